"""Ask an exported model: `python -m bench.predict ARTIFACT --text "..." --image face.jpg`.

Needs numpy, onnxruntime, tokenizers and Pillow, nothing else. Prints the class, or of several
labels those whose probability is above the artifact's threshold, the probability of each, and how
long each stage took. A model that takes sound wants --audio, a WAV file, and one that takes a
table's columns --tabular NAME=VALUE ... Where the sentence is joined from several columns, --text
NAME=VALUE comes once for each. One that learned with a modality withheld also answers without it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.edge import inputs, proof
from bench.edge.artifact import ArtifactError, read
from bench.edge.entry import ends
from bench.edge.outputs import sigmoid, softmax


def predict(folder: Path, precision: str, given: Mapping[str, Any]) -> dict:
    """One answer.

    Args:
        folder: the artifact.
        precision: of its model.
        given: modality -> what there is of it, a sentence (or the cells that it is joined from), a
            file, cells; without those that are missing.

    Returns:
        "label", or of a model of several labels "labels", a list; "probabilities" (class -> float),
        "milliseconds" (stage -> float), "notes" (what of the inputs the model does not get), and
        "score" where the model predicts one.

    Raises:
        ArtifactError: the artifact, a file or the combination of inputs cannot be used, or the
            model answers otherwise here than at the export.
    """
    times = _Times()
    meta = times("check the files", read, folder)
    if precision not in meta["models"]:
        raise ArtifactError(f"{folder} has no {precision}; it has {', '.join(meta['models'])}.")
    kinds = inputs.kinds_of(meta)
    _check_given(meta, kinds, given)
    session, first = times("load the model", _proven, folder, meta, precision)
    missing = tuple(kind.modality for kind in kinds.values() if kind.modality not in given)
    feed, notes = inputs.present(meta, missing), []
    for name, kind in kinds.items():
        make = times(kind.loads, kind.encoder, folder, meta)
        feed[name] = times(kind.stage, make, given.get(kind.modality))
        notes.append(kind.note(make, given.get(kind.modality)))
    # A graph of a fixed batch answers as many times.
    feed = {name: np.repeat(x, meta["shapes"]["batch"] or 1, axis=0) for name, x in feed.items()}
    names = [output.name for output in session.get_outputs()]
    times.found["first inference"] = 1000 * first
    found = dict(zip(names, times("inference", session.run, names, feed), strict=True))
    answer = {
        **_answer(meta, found["logits"][0]),
        "milliseconds": times.found,
        "notes": [note for note in notes if note],
    }
    if "score" in found:
        answer["score"] = float(found["score"][0, 0])
    return answer


def _answer(meta: dict, logits: np.ndarray) -> dict:
    """What is answered, and how probable each class is, from logits [C]."""
    classes = meta["classes"]
    if meta.get("label_kind") == "multi":
        shares = sigmoid(logits)
        above = shares > meta["threshold"]
        answer = {"labels": [name for name, yes in zip(classes, above, strict=True) if yes]}
    else:
        shares = softmax(logits)
        answer = {"label": classes[int(shares.argmax())]}
    return {**answer, "probabilities": dict(zip(classes, shares.tolist(), strict=True))}


class _Times:
    def __init__(self):
        self.found: dict[str, float] = {}

    def __call__(self, stage, call, *arguments):
        start = time.perf_counter()
        result = call(*arguments)
        if stage:
            self.found[stage] = 1000 * (time.perf_counter() - start)
        return result


def _check_given(meta: dict, kinds: Mapping[str, inputs.Kind], given: Mapping[str, Any]) -> None:
    taken = {kind.modality: name for name, kind in kinds.items()}
    for modality in given:
        if modality not in taken:
            raise ArtifactError(f"{meta['variant']} takes no --{modality}: leave it out.")
    lacking = [m for m, name in taken.items() if m not in given and name not in meta["may_lack"]]
    if lacking:
        raise ArtifactError(f"{meta['variant']} wants {' and '.join(f'--{m}' for m in lacking)}.")
    if not given:
        raise ArtifactError(f"{' or '.join(f'--{m}' for m in taken)} is wanted.")


def _proven(folder: Path, meta: dict, precision: str):
    """A session that answers as the export's did; and the seconds of its first inference."""
    session = _session(folder / meta["models"][precision]["file"])
    names = [output.name for output in session.get_outputs()]
    taken = {value.name for value in session.get_inputs()}

    def infer(feed):
        given = {name: x for name, x in feed.items() if name in taken}
        return dict(zip(names, session.run(names, given), strict=True))

    try:
        _, first = proof.compare(infer, folder, meta, precision, meta["shapes"]["batch"] or 1)
    except proof.WrongOutputs as error:
        why = ""
        if precision.startswith("int8"):
            why = " A CPU without VNNI cuts off sums of int8 products."
        raise ArtifactError(
            f"{precision} answers wrong on this machine: {error}{why} Take another --precision "
            f"({', '.join(meta['models'])})."
        ) from None
    return session, first


def _session(path: Path):
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(f"ONNX Runtime refuses {path}: {reason}") from None


def _joined(arguments: list[str]) -> list[str]:
    """Flags and values, what follows --text joined to it: a sentence may begin with "-"."""
    flags = ("--help", "--precision", *(f"--{kind.modality}" for kind in inputs.KINDS.values()))
    joined: list[str] = []
    for argument in arguments:
        is_flag = argument.partition("=")[0] in flags
        if joined and joined[-1] == "--text" and not is_flag:
            joined[-1] = f"--text={argument}"
        else:
            joined.append(argument)
    return joined


@ends(install="pip install numpy onnxruntime tokenizers pillow")
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("artifact", type=Path, help="what `python -m export` wrote")
    for kind in inputs.KINDS.values():
        parser.add_argument(f"--{kind.modality}", **kind.flag)
    parser.add_argument(
        "--precision",
        default="fp32",
        help="fp32 (default), fp16, int8, int8_static: what the artifact has",
    )
    options = parser.parse_args(_joined(arguments))
    every = {kind.modality: getattr(options, kind.modality) for kind in inputs.KINDS.values()}
    given = {modality: value for modality, value in every.items() if value is not None}
    answer = predict(options.artifact, options.precision, given)
    for note in answer["notes"]:
        print(f"note: {note}", file=sys.stderr)
    if "labels" in answer:
        print(", ".join(answer["labels"]) or "(no label)")
    else:
        print(answer["label"])
    for name, share in answer["probabilities"].items():
        print(f"  {100 * share:5.1f} %  {name}")
    if "score" in answer:
        print(f"  score {answer['score']:.2f}")
    for stage, milliseconds in answer["milliseconds"].items():
        print(f"{milliseconds:10.2f} ms  {stage}")
    return 0
