"""How long a draft takes on a device, by the bench's own method, beside a reference.

A search lasts hours, in which a machine has slow ones. Each draft takes turns with one and the same
reference graph, which takes about as long as drafts do (`base.reference`); what is kept is its
ratio to that, percentile by percentile. What it took is this ratio times the least that the
reference had ever taken when the search began: one scale for all models of a search.
Another machine measures where the bench is given one (--device): then nothing here stands still.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from fusion_keras.errors import MachineError, UsageError
from fusion_keras.files import write
from fusion_keras.searching import measuring
from fusion_keras.searching.crew import Crew
from fusion_keras.searching.measuring import INTERVAL, TIMES, Elsewhere, device, read_values

# A graph that does the same for every query takes hardly longer at its 90th percentile than at the
# median: 1.1 to 1.4 times on a shared machine (twelve measurements of 9 ms). Beyond this others
# were at work, and it is measured anew; so many measurements at most.
_CALM, _TRIES = 1.5, 3
# Times that a new reference is measured by itself, before it is held against any model.
_SETTLING = 5


class Meter:
    """Measures drafts, each once.

    Attributes:
        folder: what is known of models with these outputs on this device, beside this reference;
            kept for later searches.
    """

    def __init__(
        self,
        cache: Path,
        outputs: str,
        reference: str,
        crew: Crew,
        there: Elsewhere | None = None,
        runner: str = "ort",
        scale: Path | None = None,
    ):
        """
        Args:
            cache: where all of it is kept.
            outputs: what models answer, beside their architecture, by which they are known.
            reference: the key of the model that all are held against.
            crew: stands still while one is measured on this machine.
            there: measures, instead of this machine.
            runner: of the bench.
            scale: a file that keeps what the reference takes, for one search; without it that is
                the least that is known at the time.
        """
        self._crew, self._one, self._there = crew, threading.Lock(), there
        self._runner, self._scale = runner, scale
        # Held against another reference they would not be comparable.
        self._beside = cache / "latency" / device(there, runner) / reference
        self.folder = self._beside / outputs.replace(" ", "_")

    def known(
        self, key: str, precisions: tuple[str, ...], wanted: Collection[str] = ()
    ) -> dict[str, dict] | None:
        """Precision -> what was measured before of a model: p50, p90, min in ms; p90_interval, 95 %
        of the 90th percentile, of which p90 is an upper estimate, by the turns of this measurement
        alone; peak_mb, of the process
        that answers, in MB; where the machine has sensors mj, of an inference, in mJ.

        Args:
            key, precisions: of the model.
            wanted: of these; None where one of them is not known.
        """
        kept, scale = read_values(self.folder / f"{key}.json"), self._taken()
        found = {p: kept[p] for p in precisions if p in kept and set(wanted) <= set(kept[p])}
        complete = scale and len(found) == len(precisions)
        return {p: _scaled(ratios, scale) for p, ratios in found.items()} if complete else None

    def measured(
        self,
        key: str,
        draft: Path,
        precisions: tuple[str, ...],
        log: Path,
        make_reference: Callable[[Path], None],
        wanted: Collection[str] = (),
    ) -> dict:
        """As `known`, measured now.

        Args:
            key: of the model.
            draft: an artifact; precisions: of it.
            log: what the bench said.
            make_reference: writes the reference's artifact, at fp32 alone, where this device has
                none yet.
            wanted: what must be among it.

        Raises:
            UsageError: it could not be measured.
            MachineError: the device has no sensors for it, or is gone.
            EndedError: the crew has ended.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._one:
            times, anchor = self._beside_reference(draft, log, make_reference)
            scale = self._taken()
        found = {name: _scaled(times[(draft.name, name)], anchor, -1) for name in precisions}
        for ratios in found.values():
            lacking = sorted(set(wanted) - set(ratios))
            if lacking:
                flag = {"mj": "--budget_mj", "peak_mb": "--budget_mb"}[lacking[0]]
                raise MachineError(
                    f"{flag} is given, and {'the device' if self._there else 'this machine'} has "
                    "no sensors for it that the bench knows: leave it out, with another --workdir."
                )
        file = self.folder / f"{key}.json"
        write(file, _json({**read_values(file), **found}))
        return {name: _scaled(ratios, scale) for name, ratios in found.items()}

    def _taken(self) -> dict[str, float]:
        """What the reference takes, for this search; empty where nobody has measured it."""
        kept = read_values(self._scale) if self._scale else {}
        taken = kept or read_values(self._beside / "reference.json")
        if self._scale and taken and not kept:
            write(self._scale, _json(taken))
        return taken

    def _beside_reference(
        self, draft: Path, log: Path, make_reference: Callable[[Path], None]
    ) -> tuple[dict[tuple[str, str], dict], dict[str, float]]:
        """As `measuring.bench`, and what the reference took beside the draft."""
        reference, least = self._beside / "reference", self._beside / "reference.json"
        if not (reference / "meta.json").is_file():
            # What is left of one, say by a cleaner of caches, would be in the way of every draft.
            shutil.rmtree(reference, ignore_errors=True)
            make_reference(reference)
            least.unlink(missing_ok=True)
        if not least.is_file():
            # Else the first models would be held against how the machine is at the moment.
            try:
                alone = [self._undisturbed([reference], log) for _ in range(_SETTLING)]
            except MachineError:
                raise
            except UsageError as error:
                raise MachineError(
                    f"No model can be measured with {self._runner}: {error}"
                ) from None
            for times in alone:
                _keep_least(least, times[(reference.name, "fp32")])
        tries = []

        def unrest(times) -> float:
            anchor = times[(reference.name, "fp32")]
            return anchor["p90"] / anchor["p50"]

        for _ in range(_TRIES):
            try:
                tries.append(self._undisturbed([reference, draft], log))
            except MachineError:
                raise
            except UsageError:
                if not tries:
                    raise
                break
            if unrest(tries[-1]) <= _CALM:
                break
        times = min(tries, key=unrest)
        anchor = times[(reference.name, "fp32")]
        _keep_least(least, anchor)
        return times, anchor

    def _undisturbed(self, artifacts: list[Path], log: Path) -> dict[tuple[str, str], dict]:
        """As `measuring.bench`, while the crew stands still."""
        with contextlib.nullcontext() if self._there else self._crew.quiet():
            self._crew.check()
            return measuring.bench(artifacts, log, self._crew, self._there, self._runner)


def _scaled(of_one: dict, scale: dict[str, float], power: int = 1) -> dict:
    """What was measured of a model, its times multiplied by a scale, or with -1 divided by it."""
    found = of_one | {which: of_one[which] * scale[which] ** power for which in TIMES}
    if INTERVAL in of_one:
        found[INTERVAL] = [x * scale["p90"] ** power for x in of_one[INTERVAL]]
    if power > 0:
        # Of two scales one may have been luckier.
        for less, more in itertools.pairwise(TIMES):
            found[more] = max(found[more], found[less])
        if INTERVAL in found:
            low, high = found[INTERVAL]
            found[INTERVAL] = [min(low, found["p90"]), max(high, found["p90"])]
    return found


def _keep_least(file: Path, anchor: dict[str, float]) -> None:
    """Of all measurements of the reference, the one that the machine's other work disturbed least,
    time by time; kept in a file."""
    known = read_values(file)
    best = {which: min(anchor[which], known.get(which, anchor[which])) for which in TIMES}
    write(file, _json(best))


def _json(values: dict) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()
