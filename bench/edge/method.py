"""How a measurement is made: profiles, contenders, and the rounds in which they take turns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bench.edge.artifact import ArtifactError


@dataclasses.dataclass(frozen=True)
class Profile:
    """How much is measured of each contender.

    queries, seconds: both are reached. rounds: turns that they are dealt out over; a ratio is
    taken within each. Short turns, of a third of a second: machines change their speed from one
    second to the next. warm_up: most seconds of it.
    """

    queries: int
    seconds: float
    rounds: int
    warm_up: float


PROFILES = {
    "quick": Profile(queries=64, seconds=3, rounds=12, warm_up=5),
    "full": Profile(queries=1024, seconds=60, rounds=200, warm_up=20),
    "mlperf": Profile(queries=1024, seconds=600, rounds=1000, warm_up=60),
}
# Samples after another contender's turn, while caches fill and clocks rise: kept, not counted.
SETTLING = 3
INPUTS = ("data", "padded")
# Of these the threads cannot be set, or do not matter.
_NO_THREADS = ("tensorrt", "keras")


@dataclasses.dataclass(frozen=True)
class Method:
    """What a result says of how it was made.

    profile: its name; seed: of the order within rounds and of the inputs; margin, confidence: see
    `latency.ratio`; timeout: seconds that a contender may be silent.
    """

    profile: str = "quick"
    seed: int = 0
    margin: float = 0.03
    confidence: float = 0.99
    timeout: float = 600.0
    settling: int = SETTLING

    @property
    def amount(self) -> Profile:
        return PROFILES[self.profile]

    def described(self) -> dict:
        note = {"note": "not an MLPerf result"} if self.profile == "mlperf" else {}
        return {**dataclasses.asdict(self), **dataclasses.asdict(self.amount), **note}


@dataclasses.dataclass(frozen=True)
class Contender:
    """One thing that is timed.

    Attributes:
        name: short and distinct.
        folder, meta: the artifact and its checked `meta.json`.
        precision, runner: keys of `meta["models"]` and of `engines.RUNNERS`.
        batch: examples a query. threads: 0 for the engine's own choice.
        inputs: "data": the artifact's queries, each padded as little as the artifact allows;
            "padded": all of the greatest length.
        hz: queries a second that arrive; 0: the next as soon as the last ends.
        run: of runners that need the training stack.
        allow_fallback: let an engine hand operators to another one.
        slow_by: a delay after each query, as a share of its time; for checks of the method.
    """

    name: str
    folder: Path
    meta: dict
    precision: str = "fp32"
    runner: str = "ort"
    batch: int = 1
    threads: int = 0
    inputs: str = "data"
    hz: float = 0.0
    run: Path | None = None
    allow_fallback: bool = False
    slow_by: float = 0.0

    def described(self) -> dict:
        kept = ("name", "precision", "runner", "batch", "threads", "inputs", "hz", "slow_by")
        return {name: getattr(self, name) for name in kept}


def check(contender: Contender) -> None:
    """Refuse what the artifact cannot do, before anything is started.

    Raises:
        ArtifactError: which, and what there is.
    """
    meta, folder = contender.meta, contender.folder
    if contender.precision not in meta["models"]:
        has = ", ".join(meta["models"])
        raise ArtifactError(f"{folder} has no {contender.precision}; it has {has}.")
    fixed = meta["shapes"]["batch"]
    if fixed and contender.batch != fixed:
        raise ArtifactError(
            f"{folder} takes batches of {fixed}, got --batches={contender.batch}: export it with "
            "--dynamic."
        )
    if contender.inputs == "padded" and (
        meta["shapes"]["length"] or "token_ids" not in meta["inputs"]
    ):
        raise ArtifactError(
            f"{folder} has no sentences of several lengths: data and padded are the same to it. "
            "Leave --inputs out, or export with --buckets."
        )
    if contender.threads and contender.runner in _NO_THREADS:
        raise ArtifactError(f"--threads means nothing to {contender.runner}: leave it out.")


def names(contenders: list[dict]) -> list[str]:
    """A short, distinct name for each: the artifact's folder, and in what it differs.

    Args:
        contenders: the fields of `Contender` but for the name.
    """
    shown = {"precision": "{}", "runner": "{}", "batch": "batch {}", "threads": "{} threads"}
    shown |= {"inputs": "{}", "hz": "at {:g} Hz"}
    always = {"precision"}
    differing = [f for f in shown if f in always or len({c[f] for c in contenders}) > 1]
    said = {("hz", 0.0): "back to back", ("threads", 0): "threads as the engine likes"}
    named = []
    for c in contenders:
        parts = [said.get((f, c[f]), shown[f].format(c[f])) for f in differing]
        name = " ".join([_short(c["folder"], contenders), *parts])
        twins = sum(other == name or other.startswith(f"{name} (") for other in named)
        named.append(f"{name} ({twins + 1})" if twins else name)
    return named


def _short(folder: Path, contenders: list[dict]) -> str:
    """The folder's own name; with its parent's where two folders have the same."""
    folders = {c["folder"].resolve() for c in contenders}
    folder = folder.resolve()
    alike = sum(other.name == folder.name for other in folders)
    return folder.name if alike == 1 else f"{folder.parent.name}/{folder.name}"
