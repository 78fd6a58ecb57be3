"""What an export asks for, checked before any work begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from fusion_keras.data.modalities import DROPS, INPUT_OF, PRESENT
from fusion_keras.errors import UsageError
from fusion_keras.fusion.architectures import of_values
from fusion_keras.label_sums import THRESHOLD
from fusion_keras.training.run import corrupt_run_errors, read_json

PRECISIONS = ("fp16", "int8", "int8_static")


@dataclasses.dataclass(frozen=True)
class Request:
    """What to export; see the help of `python -m export`."""

    run: Path | None
    out: Path | None
    precisions: tuple[str, ...] = ("fp16", "int8")
    batch: int = 1
    dynamic: bool = False
    buckets: tuple[str, ...] = ()
    samples: int = 64
    without: str = ""
    allow_loss: float | None = None

    def checked(self) -> dict:
        """What the run's `config.json` says, checked as far as an export needs it.

        Raises:
            UsageError: something is missing, damaged or out of range.
        """
        if self.run is None or self.out is None:
            raise UsageError("RUN and --out=ARTIFACT are wanted; --help shows how.")
        if not (self.run / "metrics.json").is_file():
            raise UsageError(
                f"{self.run} is not a finished run: give the folder that "
                "fusion_keras.train named at its end, runs/NAME/VARIANT-sSEED."
            )
        lacking = [n for n in ("config.json", "model.keras") if not (self.run / n).is_file()]
        if lacking:
            raise UsageError(f"{self.run} lacks {lacking[0]}: copy or train the run again.")
        unknown = [p for p in self.precisions if p not in PRECISIONS]
        if unknown:
            raise UsageError(
                f"Unknown precision {unknown[0]!r}; fp32 is always there, and "
                f"{', '.join(PRECISIONS)} can be."
            )
        for name, value in (("batch", self.batch), ("samples", self.samples)):
            if value < 1:
                raise UsageError(f"--{name} is {value}; at least 1 is wanted.")
        # Written so that a nan is refused.
        if self.allow_loss is not None and not 0 <= self.allow_loss <= 100:
            raise UsageError(f"--allow_loss is {self.allow_loss:g}; points, 0 to 100, are wanted.")
        if self.dynamic and self.batch != 1:
            raise UsageError("--dynamic leaves the batch open: leave --batch out.")
        description = _description(self.run)
        return _without(description, self.without) if self.without else description

    def lengths(self, description: dict) -> tuple[int, ...]:
        """The lengths that a runner pads sentences to; the last is the run's own.

        Raises:
            UsageError: a bucket that is no number, or outside 3 to that length.
        """
        if "token_ids" not in description["inputs"]:
            if self.buckets:
                raise UsageError("--buckets are lengths of sentences; this run reads none.")
            return ()
        longest = description["inputs"]["token_ids"]["max_length"]
        try:
            lengths = {int(b) for b in self.buckets}
        except ValueError:
            raise UsageError(
                f"--buckets is {','.join(self.buckets)}; numbers of tokens are wanted."
            ) from None
        bad = [b for b in lengths if not 3 <= b <= longest]
        if bad:
            raise UsageError(f"--buckets has {bad[0]}; 3 to {longest}, the run's own, is wanted.")
        return tuple(sorted({*lengths, longest}))


def _description(run: Path) -> dict:
    """The run's `config.json`, of which nothing is missing that an export needs.

    Raises:
        UsageError: it is damaged, or of a kind that cannot be exported.
    """
    description = read_json(run / "config.json")
    with corrupt_run_errors(run):
        for name in ("variant", "seed", "spec", "dataset", "provenance"):
            description[name]
        if len(description["classes"]) < 2:
            raise ValueError("fewer than two classes")
        may_lack(description)
        backbones(description)
        if "token_ids" in description["inputs"]:
            int(description["inputs"]["token_ids"]["max_length"])
        trained_accuracy(run)
        description["config"]["dtype"]
    if "token_ids" in description["inputs"]:
        if not (run / "tokenizer.json").is_file():
            raise UsageError(f"{run} lacks tokenizer.json: copy or train the run again.")
        try:
            Tokenizer.from_file(str(run / "tokenizer.json"))
        except Exception as error:  # the library raises nothing more special
            raise UsageError(
                f"{run / 'tokenizer.json'} cannot be read ({error}): copy or train the run again."
            ) from None
    return description


def _without(description: dict, modality: str) -> dict:
    """The description of the model that never has a modality.

    Raises:
        UsageError: there is no such one, or it has learned nothing to stand in for it.
    """
    name, variant = INPUT_OF.get(modality), description["variant"]
    of_values(description["spec"]).refuse(variant, "without")
    if name not in description["inputs"]:
        known = ", ".join(m for m, n in INPUT_OF.items() if n in description["inputs"])
        raise UsageError(
            f"--without is {modality!r}; one of {known} is wanted, for this {variant}."
        )
    if not description["spec"].get("stand_ins") or name not in may_lack(description):
        raise UsageError(
            f"This {variant} has learned no stand-in for {modality}: train it with "
            f"--config.fusion.stand_ins and --config.augment.drop_{modality}=0.3."
        )
    inputs = {n: description["inputs"][n] for n in kept(description["inputs"], modality)}
    return {**description, "inputs": inputs, "variant": f"{variant} without {modality}"}


def kept(inputs: Iterable[str], modality: str) -> list[str]:
    """The names of a model's inputs that are still read without a modality.

    Where only one other is left, nobody is asked whether it is there.
    """
    names = [n for n in inputs if n not in (INPUT_OF[modality], PRESENT[modality])]
    presence = [PRESENT[m] for m in INPUT_OF if PRESENT[m] in names]
    return [n for n in names if len(presence) > 1 or n not in presence]


def trained_accuracy(run: Path) -> float:
    """Test accuracy as training measured it."""
    metrics = read_json(run / "metrics.json")
    with corrupt_run_errors(run):
        return float(metrics["splits"]["test"]["metrics"]["accuracy"]["value"])


def described(description: dict, lengths: Sequence[int]) -> dict:
    """What `meta.json` says of a run, from its `config.json` and the lengths of a runner."""
    label_kind = description.get("label_kind", "single")
    return {
        **{name: description[name] for name in ("variant", "seed", "spec", "classes")},
        "label_kind": label_kind,
        **({"threshold": THRESHOLD} if label_kind == "multi" else {}),
        "dataset": description["dataset"],
        "inputs": description["inputs"],
        "backbones": backbones(description),
        "lengths": list(lengths),
        "may_lack": may_lack(description),
    }


def backbones(description: dict) -> dict[str, str]:
    """Modality -> how reports call its backbone; empty where there are none."""
    config = description["config"]
    return of_values(description["spec"]).backbone_names(description["inputs"], config)


def may_lack(description: dict) -> list[str]:
    """The inputs that some training examples lacked, so that the others will do.

    Their rows came without it, or training withheld it: one of an example's modalities at most, and
    never the only one.
    """
    augment = description["config"]["augment"]
    # A frozen head without stand-ins learns from whole examples.
    spec = description["spec"]
    withholds = augment["enabled"] and (spec.get("stand_ins") or not spec.get("frozen"))
    taken = [m for m, name in INPUT_OF.items() if name in description["inputs"]]
    if len(taken) < 2:
        return []
    # Older runs have no word on what they never withheld, nor on rows that lack something.
    rows = description["dataset"].get("lacking", {})
    return [
        INPUT_OF[m]
        for m in taken
        if (withholds and augment.get(DROPS[m], 0) > 0) or rows.get(m, {}).get("train", 0) > 0
    ]
