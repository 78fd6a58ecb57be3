"""A model in an application: opened once, then asked as often as one likes.

    predictor = Predictor("artifacts/inter", precision="int8")
    answer = predictor.predict(text="What a day!", image="face.jpg")
    answer.label, answer.probabilities, answer.milliseconds

Needs numpy, onnxruntime, tokenizers and Pillow, nothing else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.edge import inputs, proof
from bench.edge.artifact import ArtifactError, golden, read
from bench.edge.errors import InputError
from bench.edge.inputs.tabular import Given as Cells
from bench.edge.inputs.text import Given as Text
from bench.edge.outputs import sigmoid, softmax
from bench.edge.runners.engines import open_runner

if TYPE_CHECKING:
    from PIL import Image

# What runs a model -> the runner: ONNX Runtime's providers, and OpenVINO.
PROVIDERS = {
    **{"cpu": "ort", "cuda": "ort-cuda", "tensorrt": "ort-tensorrt"},
    **{"openvino": "openvino", "openvino-bf16": "openvino-bf16"},
}


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model says of one example.

    Attributes:
        labels: the most probable class; of a model of several labels, all whose probability is
            above the artifact's threshold, which may be none.
        probabilities: of each class, in the artifact's order; of several labels each for itself.
        milliseconds: of each stage ("tokens", "image", "sound", "row", "inference") and of "all".
        score: where the model predicts one.
        notes: what of the inputs the model does not get, in sentences.
        several: whether the model gives any number of labels.
    """

    labels: tuple[str, ...]
    probabilities: dict[str, float]
    milliseconds: dict[str, float]
    score: float | None = None
    notes: tuple[str, ...] = ()
    several: bool = False

    @property
    def label(self) -> str:
        """The label; of several, with commas between."""
        return ", ".join(self.labels)

    def as_json(self) -> dict[str, Any]:
        """For JSON: "labels" of a model of several, else "label"; score and notes if there are."""
        named = {"labels": list(self.labels)} if self.several else {"label": self.label}
        score = {} if self.score is None else {"score": self.score}
        notes = {"notes": list(self.notes)} if self.notes else {}
        return {
            **named,
            "probabilities": self.probabilities,
            **score,
            "milliseconds": self.milliseconds,
            **notes,
        }


class Predictor:
    """An artifact's model, ready to answer; any number of threads may ask it at once.

    Attributes:
        meta: the artifact's checked `meta.json`.
        takes: what the model takes, as `predict` calls it.
        may_lack: what of it may be left out.
        kinds: input of the model -> how it is made.
        runner: what runs the model.
        opening: stage -> milliseconds that it took to open.
    """

    def __init__(
        self,
        artifact: str | Path,
        precision: str = "fp32",
        provider: str = "cpu",
        threads: int = 0,
    ):
        """Check the artifact's files, load, check its golden outputs here, and warm up.

        Args:
            artifact: what `python -m export` wrote.
            precision: fp32, fp16, int8, int8_static: what the artifact has.
            provider: of ONNX Runtime: cpu, cuda or tensorrt; or openvino, or openvino-bf16.
                `runner.providers` says what is really used.
            threads: of the CPU for one answer, at most its cores; 0 leaves that to ONNX Runtime.

        Raises:
            ArtifactError: the artifact cannot be used, it has no such precision, the engine is not
                installed or refuses, there are fewer cores than threads, or the model answers
                otherwise here than at the export.
        """
        self._folder, times = Path(artifact), _Times()
        self.meta = meta = times("check the files", read, self._folder)
        if precision not in meta["models"]:
            has = ", ".join(meta["models"])
            raise ArtifactError(f"{artifact} has no {precision}; it has {has}.")
        if provider not in PROVIDERS:
            raise ArtifactError(f"There is no provider {provider!r}, only {', '.join(PROVIDERS)}.")
        # More would wait for each other by spinning: an answer took minutes.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        if not isinstance(threads, int) or not 0 <= threads <= cores:
            raise ArtifactError(
                f"threads is {threads!r}; a number from 1 to {cores} is wanted, the cores that "
                "this process has, or 0 for as many as ONNX Runtime takes."
            )
        self.kinds = inputs.kinds_of(meta)
        self.takes, self.may_lack = inputs.keywords(meta)
        # Of the others the runners have one place in memory for the inputs of all.
        self._turn = contextlib.nullcontext() if provider == "cpu" else threading.Lock()
        self._batch = meta["shapes"]["batch"] or 1
        model = (PROVIDERS[provider], self._folder, meta, precision, threads, self._batch)
        self.runner, first = times("load the model", _proven, *model)
        self._encoders = {
            name: times(kind.loads, kind.encoder, self._folder, meta)
            for name, kind in self.kinds.items()
        }
        times.found["first inference"] = 1000 * first
        times("warm up", self._warm_up)
        self.opening = times.found

    def predict(
        self,
        *,
        text: Text = None,
        image: str | Path | bytes | np.ndarray | Image.Image | None = None,
        audio: str | Path | bytes | np.ndarray | None = None,
        features: Cells = None,
    ) -> Answer:
        """The answer for one example; a modality that is missing is left out.

        Args:
            text: the sentence; or, where it is joined from columns, column -> cell.
            image: a file, the bytes of one, an image of Pillow, or pixels, uint8 [H, W, 3] in RGB.
            audio: a WAV file of 16 bits, or the bytes of one; or samples, float [n] or
                [n, channels], full scale -1 to 1; at the model's rate, 16 kHz.
            features: column -> cell of a table's row.

        Raises:
            InputError: what is given cannot be used, or something is missing without which the
                model has not learned to do.
            ArtifactError: the engine fails.
        """
        given = {"text": text, "image": image, "audio": audio, "features": features}
        self._check({keyword for keyword, value in given.items() if value is not None})
        times, notes = _Times(), []
        begun = time.perf_counter()
        missing = tuple(k.modality for k in self.kinds.values() if given[k.keyword] is None)
        feed = inputs.present(self.meta, missing)
        for name, kind in self.kinds.items():
            encode = self._encoders[name]
            feed[name], note = times(kind.stage, encode, given[kind.keyword])
            notes += [note] if note else []
        found = times("inference", self._infer, feed)
        said = _said(self.meta, found)
        times.found["all"] = 1000 * (time.perf_counter() - begun)
        return Answer(**said, milliseconds=times.found, notes=tuple(notes))

    def predict_many(self, rows: Iterable[Mapping[str, Any]]) -> list[Answer | InputError]:
        """Answers in order; in the place of a row that cannot be used, why.

        One by one: int8 scales the examples of a batch together, so that an answer would depend on
        who stands beside.

        Args:
            rows: each the arguments of `predict`, by name.

        Raises:
            ArtifactError: the engine fails.
        """
        return [self._tried(row) for row in rows]

    def _tried(self, row: Mapping[str, Any]) -> Answer | InputError:
        known = ("text", "image", "audio", "features")
        try:
            if not isinstance(row, Mapping):
                raise InputError(f"A row is a {type(row).__name__}: names and values are wanted.")
            unknown = [name for name in row if name not in known]
            if unknown:
                raise InputError(f"There is no {unknown[0]!r}; there are {', '.join(self.takes)}.")
            return self.predict(**row)
        except InputError as error:
            return error

    def _check(self, given: set[str]) -> None:
        variant = self.meta["variant"]
        strange = [keyword for keyword in given if keyword not in self.takes]
        if strange:
            raise InputError(f"{variant} takes no {strange[0]}: leave it out.")
        named = {k.keyword: k.named for k in self.kinds.values() if k.keyword not in given}
        lacking = [name for keyword, name in named.items() if keyword not in self.may_lack]
        if lacking:
            raise InputError(
                f"The {variant} model was given no {' and no '.join(lacking)}, and has not learned "
                "to do without: give it one."
            )
        if not given:
            raise InputError(f"{' or '.join(named.values())} is wanted.")

    def _infer(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        # A graph of a fixed batch answers as many times.
        if self._batch > 1:
            feed = {name: np.repeat(x, self._batch, axis=0) for name, x in feed.items()}
        with self._turn:
            return self.runner.infer(feed)

    def _warm_up(self) -> None:
        """Every length of sentences once, and one of the artifact's examples as it came."""
        arrays, _ = golden(self._folder)
        feed = {name: x[:1] for name, x in arrays.items()}
        if "token_ids" in feed and not self.meta["shapes"]["length"]:
            for length in self.meta["lengths"]:
                self._infer({**feed, "token_ids": feed["token_ids"][:, :length]})
        folder = self._folder / "queries"
        examples = {k.keyword: k.queries(folder)[:1] for k in self.kinds.values()}
        if all(examples.values()):
            self.predict(**{keyword: first for keyword, (first,) in examples.items()})


def _said(meta: dict, found: dict[str, np.ndarray]) -> dict[str, Any]:
    """labels, probabilities, several and score, from outputs [B, ...] whose rows are all alike."""
    logits, classes = found["logits"][0], meta["classes"]
    if not np.isfinite(logits).all():
        raise ArtifactError("The model answers with numbers that are nan or infinite.")
    several = meta.get("label_kind") == "multi"
    shares = sigmoid(logits) if several else softmax(logits)
    given = shares > meta["threshold"] if several else np.arange(len(shares)) == shares.argmax()
    return {
        "labels": tuple(name for name, yes in zip(classes, given, strict=True) if yes),
        "probabilities": dict(zip(classes, shares.tolist(), strict=True)),
        "several": several,
        "score": float(found["score"][0, 0]) if "score" in found else None,
    }


def _proven(name: str, folder: Path, meta: dict, precision: str, threads: int, batch: int):
    """A runner that answers as the export's did; and the seconds of its first inference."""
    # What a GPU has no kernel for may run elsewhere: here the answer counts, not whose time it is.
    opened = open_runner(name, folder, meta, precision, threads=threads, allow_fallback=True)
    try:
        _, first = proof.compare(opened.infer, folder, meta, precision, batch, opened.tolerance)
    except proof.WrongOutputs as error:
        why = ""
        if precision.startswith("int8"):
            why = " A CPU without VNNI may cut off sums of int8 products."
        raise ArtifactError(
            f"{precision} answers wrong on this machine: {error}{why} Take another precision "
            f"({', '.join(meta['models'])})."
        ) from None
    return opened, first


class _Times:
    def __init__(self):
        self.found: dict[str, float] = {}

    def __call__(self, stage, call, *arguments):
        start = time.perf_counter()
        result = call(*arguments)
        if stage:
            self.found[stage] = 1000 * (time.perf_counter() - start)
        return result
