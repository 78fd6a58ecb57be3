"""`python -m fusion_keras.searching.away_training`: what a search has a node train; see `away`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

from fusion_keras import cli, huge_pages, interrupts
from fusion_keras.errors import UsageError


def train_trial(config, folder: Path, p90: float, peers: dict[str, list]) -> None:
    """See `away.Away.train_trial`."""
    from fusion_keras.searching import rungs
    from fusion_keras.searching.away import VERDICT
    from fusion_keras.searching.training import history_of
    from fusion_keras.training import experiment
    from fusion_keras.training.plan import make_plan
    from fusion_keras.training.run import Run

    plan, run, stopped = make_plan(config), Run(folder), False
    # What an earlier search left here, or this one before the node or the driver died.
    for left in (run.folder, run.partial):
        if left.is_dir() and not _is_of(left, plan.config):
            shutil.rmtree(left)
    if run.complete:
        return

    def goes_on(history: list[dict]) -> bool:
        nonlocal stopped
        epoch = history[-1]["epoch"]
        own = rungs.reached(history, p90, epoch)
        stopped = str(epoch) in peers and not rungs.goes_on(own, peers[str(epoch)])
        return not stopped

    folder.parent.mkdir(parents=True, exist_ok=True)
    with run.open(plan.config):
        task = experiment.begin(plan, run)
        experiment.fit(run, task, goes_on)
        run.write_json(VERDICT, {"stopped": stopped, "history": history_of(run)})
        (run.partial / "lock").unlink()
        os.rename(run.partial, run.folder)


def _is_of(folder: Path, config) -> bool:
    """Whether it was begun with these resolved settings, as far as it was begun."""
    from fusion_keras.training.run import as_json, read_json

    file = folder / "config.json"
    try:
        return not file.is_file() or read_json(file)["config"] == as_json(config)
    except (UsageError, KeyError):
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--task", required=True, action="append", help="in pieces")
    # What `cluster` sends along; they stand in the config, too.
    for flag in ("parents", "teacher"):
        parser.add_argument(f"--{flag}")
    given = parser.parse_args()
    # Late, as the program may start again in large pages.
    from fusion_keras.training import experiment
    from fusion_keras.training.restored import config_of_values

    folder, task = Path(given.run), json.loads("".join(given.task))
    config = config_of_values(task["config"])
    if "peers" in task:
        train_trial(config, folder, task["p90"], task["peers"])
    else:
        experiment.train(config, folder)


if __name__ == "__main__":
    huge_pages.restart_with()
    interrupts.end_with_starter()
    cli.guarded(main)
