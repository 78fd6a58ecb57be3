"""Ask an exported model: `python -m bench.predict ARTIFACT --text "..." --image face.jpg`.

Needs numpy, onnxruntime, tokenizers and Pillow, nothing else. Prints the class, the
probability of each, and how long each stage took. A model that takes sound wants --audio, a
WAV file. One that learned with a modality withheld also answers without it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from bench.edge import inputs
from bench.edge.artifact import ArtifactError, read
from bench.edge.outputs import softmax


def predict(
    folder: Path, precision: str, text: str | None, image: str | None, audio: str | None = None
) -> dict:
    """One answer.

    Returns:
        "label", "probabilities" (class -> float), "milliseconds" (stage -> float), and "score"
        where the model predicts one.

    Raises:
        ArtifactError: the artifact, a file or the combination of inputs cannot be used.
    """
    times = _Times()
    meta = times("check the files", read, folder)
    if precision not in meta["models"]:
        raise ArtifactError(f"{folder} has no {precision}; it has {', '.join(meta['models'])}.")
    if "spectrogram" in meta["inputs"]:
        raise ArtifactError(
            f"{folder} takes the spectrogram of a recording beside an image, which is not made of "
            "files here: python -m bench measures it on the examples inside."
        )
    given = {"text": text, "image": image, "audio": audio}
    _check_given(meta, given)
    session = times("load the model", _session, folder / meta["models"][precision]["file"])
    feed = inputs.present(meta, tuple(m for m, value in given.items() if value is None))
    if "token_ids" in meta["inputs"]:
        tokens = times("load the tokenizer", inputs.Tokens, folder, meta)
        feed["token_ids"] = times("tokens", tokens, text or "")
    if "image" in meta["inputs"]:
        feed["image"] = times("image", inputs.picture, image, meta)
    if "audio" in meta["inputs"]:
        feed["audio"] = times("sound", inputs.sound, audio, meta)
    # A graph of a fixed batch answers as many times.
    feed = {name: np.repeat(x, meta["shapes"]["batch"] or 1, axis=0) for name, x in feed.items()}
    names = [output.name for output in session.get_outputs()]
    times("first inference", session.run, names, feed)
    found = dict(zip(names, times("inference", session.run, names, feed), strict=True))
    shares = softmax(found["logits"][0])
    answer = {
        "label": meta["classes"][int(shares.argmax())],
        "probabilities": dict(zip(meta["classes"], shares.tolist(), strict=True)),
        "milliseconds": times.found,
    }
    if "score" in found:
        answer["score"] = float(found["score"][0, 0])
    return answer


class _Times:
    def __init__(self):
        self.found: dict[str, float] = {}

    def __call__(self, stage, call, *arguments):
        start = time.perf_counter()
        result = call(*arguments)
        self.found[stage] = 1000 * (time.perf_counter() - start)
        return result


def _check_given(meta: dict, given: dict[str, str | None]) -> None:
    names = {"text": "token_ids", "image": "image", "audio": "audio"}
    for modality, value in given.items():
        takes = names[modality] in meta["inputs"]
        if value is not None and not takes:
            raise ArtifactError(f"{meta['variant']} takes no --{modality}: leave it out.")
        if value is None and takes and names[modality] not in meta["may_lack"]:
            raise ArtifactError(f"{meta['variant']} wants --{modality}.")
    if all(value is None for value in given.values()):
        wanted = [f"--{modality}" for modality, name in names.items() if name in meta["inputs"]]
        raise ArtifactError(f"{' or '.join(wanted)} is wanted.")


def _session(path: Path):
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(f"ONNX Runtime refuses {path}: {reason}") from None


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("artifact", type=Path, help="what `python -m export` wrote")
    parser.add_argument("--text", help="the sentence")
    parser.add_argument("--image", help="an image file")
    parser.add_argument("--audio", help="a WAV file of 16 bits at the model's rate, 16 kHz")
    parser.add_argument(
        "--precision",
        default="fp32",
        help="fp32 (default), fp16, int8, int8_static: what the artifact has",
    )
    options = parser.parse_args(arguments)
    try:
        given = (options.text, options.image, options.audio)
        answer = predict(options.artifact, options.precision, *given)
    except ArtifactError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"error: {error}: pip install numpy onnxruntime tokenizers pillow", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(answer["label"])
    for name, share in answer["probabilities"].items():
        print(f"  {100 * share:5.1f} %  {name}")
    if "score" in answer:
        print(f"  score {answer['score']:.2f}")
    for stage, milliseconds in answer["milliseconds"].items():
        print(f"{milliseconds:10.2f} ms  {stage}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
