"""What is searched for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fusion_keras.files import digest_if_there
from fusion_keras.searching.space import Space
from fusion_keras.training.run import as_json

SAMPLERS = ("tpe", "nsga2", "random", "gp")


@dataclasses.dataclass(frozen=True)
class Request:
    """What is searched for.

    Attributes:
        base: the config that points change, as given.
        space: what may vary.
        folder: where all of it goes.
        count: trials, the named variants among them.
        budget: ms of p90 at the fastest precision; None for none.
        memory, energy: MB of the process that answers, at its peak, and mJ of an inference, all
            that the module takes; likewise.
        precisions: that count.
        sampler: one of SAMPLERS.
        storage: Optuna's URL; "" is a SQLite file in the folder.
        named: variants to begin with.
        seed: of the sampler.
        cache: where latencies are kept for later searches.
        teacher: a variant that is trained first, and teaches all points of the space; "" for what
            `base` says.
        jobs: trials at a time.
        device: flags of the bench that say on which other machine it measures; () for this one.
        runner: of the bench, what runs the models that are measured.
    """

    base: object
    space: Space
    folder: Path
    count: int = 40
    budget: float | None = None
    memory: float | None = None
    energy: float | None = None
    precisions: tuple[str, ...] = ("fp32", "int8")
    sampler: str = "tpe"
    storage: str = ""
    named: tuple[str, ...] = ("text", "late", "inter", "early")
    seed: int = 0
    cache: Path = Path("~/.cache/fusion_keras")
    teacher: str = ""
    jobs: int = 1
    device: tuple[str, ...] = ()
    runner: str = "ort"

    @property
    def url(self) -> str:
        """Optuna's storage."""
        return self.storage or f"sqlite:///{self.folder / 'search.db'}"

    @property
    def limits(self) -> dict[str, float]:
        """Measured -> most that is allowed; see `latency.Meter.known`."""
        asked = {"p90": self.budget, "peak_mb": self.memory, "mj": self.energy}
        return {name: most for name, most in asked.items() if most is not None}

    def tables(self) -> dict[str, str]:
        """The tables of rows -> sha256 of each that is there."""
        paths = filter(None, (self.base.data.path, self.base.teacher.unlabelled))
        digests = {path: digest_if_there(path) for path in paths}
        return {path: sha256 for path, sha256 in digests.items() if sha256}

    def identity(self) -> dict:
        """What may not change from one call to the next."""
        config = as_json(self.base)
        # Where things are kept changes nothing.
        del config["data"]["cache_dir"]
        # How it is reached changes nothing, which one it is does.
        where = [flag for flag in self.device if flag.startswith("--device=")]
        return {
            **({"device": where[0].partition("=")[2]} if where else {}),
            **({"runner": self.runner} if self.runner != "ort" else {}),
            "space": self.space.digest(),
            "budget_ms": self.budget,
            "budget_mb": self.memory,
            "budget_mj": self.energy,
            "precisions": list(self.precisions),
            "sampler": self.sampler,
            "teacher": self.teacher,
            "seed": self.seed,
            "config": config,
        }
