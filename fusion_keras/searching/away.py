"""Trainings of a search on the nodes of a Ray cluster; all else of a trial stays on this machine.

A trial's rungs are decided where it trains: the trials that it is compared with are known when it
begins. What comes home is its checkpoint, with which the trial goes on here as if it had been
trained here. See `away_training` for the nodes' end.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fusion_keras import cluster_node
from fusion_keras.cluster import Cluster
from fusion_keras.errors import MachineError, UsageError
from fusion_keras.files import last_line
from fusion_keras.training.run import Run, as_json, read_json

if TYPE_CHECKING:
    from fusion_keras.searching.crew import Place

_log = logging.getLogger(__name__)
MODULE = "fusion_keras.searching.away_training"
# Of a training whose rungs are decided: whether it was stopped at one.
VERDICT = "verdict.json"
# Linux takes 128 KiB as one argument; thousands of peers are more.
_LONGEST = 100_000
# Seconds between two looks at a training.
_LOOK = 0.5


class Away:
    """What trains there, for all threads of a search."""

    def __init__(self, cluster: Cluster, measures_here: bool):
        """
        Args:
            cluster: the nodes.
            measures_here: whether latencies are those of this machine.
        """
        self._cluster, self._lock = cluster, threading.Lock()
        _log.info("%s", cluster.described())
        if measures_here and cluster.trains_here():
            _log.warning(
                "note: a node on this machine trains while models are measured here, which makes "
                "them slower: start it with --num_cpus=0, or measure elsewhere (--device)."
            )

    def train_run(self, place: Place, config, folder: Path) -> None:
        """An ordinary run, trained to its end; left alone where it is there.

        Args:
            place: lent to others meanwhile.
            config: as given.
            folder: its run directory.

        Raises:
            UsageError: whatever went wrong there.
        """
        if not Run(folder).complete:
            self._train(place, config, folder, folder.with_suffix(".log"), {})

    def train_trial(
        self,
        place: Place,
        config,
        folder: Path,
        p90: float,
        peers: Mapping[int, Sequence[Sequence[float]]],
    ) -> tuple[list[dict], bool]:
        """A trial's training, to its end or to the rung where others do better.

        Args:
            place: lent to others meanwhile.
            config: as given.
            folder: of the trial; its training's checkpoint and history are put where a training
                in `folder/run` goes on from.
            p90: of the model, ms.
            peers: epoch of a rung -> objectives, NLL and p90, of the trials it is compared with.

        Returns:
            The history, and whether it was stopped.

        Raises:
            UsageError: whatever went wrong with this model there.
            MachineError: it could not be trained there, whatever the model is.
        """
        brought, here = folder / "away", Run(folder / "run").partial
        if not (here / VERDICT).is_file():
            if not brought.is_dir():
                of_rungs = {str(epoch): objectives for epoch, objectives in peers.items()}
                task = {"p90": p90, "peers": of_rungs}
                self._train(place, config, brought, folder / "away.log", task)
            # Its parents, too, where it has trained some of its own.
            shutil.rmtree(here, ignore_errors=True)
            os.rename(brought, here)
        verdict = read_json(here / VERDICT)
        return verdict["history"], verdict["stopped"]

    def _train(self, place: Place, config, folder: Path, log: Path, task: dict) -> None:
        crew = place.crew
        flags = {"run": folder, "parents": ",".join(config.parents)}
        flags |= {"teacher": ",".join(config.teacher.runs)}
        command = [sys.executable, "-m", MODULE, *(f"--{n}={x}" for n, x in flags.items() if x)]
        text = json.dumps({"config": as_json(config), **task})
        command += [f"--task={text[i : i + _LONGEST]}" for i in range(0, len(text), _LONGEST)]
        folder.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        with crew.lent(place):
            with self._lock:
                training = self._cluster.start(command, log)
            try:
                while self._said(training.poll) is None:
                    crew.check()
                    time.sleep(_LOOK)
            except BaseException:
                self._said(training.terminate)
                raise
        code, said = training.returncode, last_line(log).removeprefix("error: ")
        if code == cluster_node.LOST:
            # The same command goes on once that is mended.
            raise MachineError(f"{folder} could not be trained on the cluster: {said}")
        if code < 0:
            said = f"the training's process was killed (exit code {code}), perhaps out of memory"
        if code:
            raise UsageError(said)

    def _said(self, ask: Callable):
        with self._lock:
            return ask()
