"""What `Predictor` adds to what it is made of: the session, the tokenizer, the image decoder.

    python -m bench.overhead artifacts/inter --precision=int8

Both answer the artifact's own examples as they came, in turns, an order drawn anew for each pair; a
session that answers at once stands in for ONNX Runtime's, so that what is compared is the work of
one thread, in the time that the CPU spends on it: a busy machine makes no difference. The inference
itself is timed by the clock. Needs numpy, onnxruntime, tokenizers and Pillow.
"""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path

import numpy as np

from bench.edge import flags, inputs
from bench.edge.entry import ends
from bench.edge.errors import BenchError
from bench.edge.predictor import Predictor

_SETTLING = 50


@ends(install="pip install numpy onnxruntime tokenizers pillow")
def main(arguments: list[str]) -> int:
    parser = flags.parser("bench.overhead", __doc__)
    parser.add_argument("artifact", type=Path, help="what `python -m export` wrote")
    parser.add_argument("--precision", default="int8", help="default: int8")
    parser.add_argument("--pairs", type=flags.positive, default=1000, help="default: 1000")
    options = parser.parse_args(arguments)
    predictor = Predictor(options.artifact, options.precision)
    if (predictor.meta["shapes"]["batch"] or 1) > 1:
        raise BenchError(f"{options.artifact} takes several at a time: export it without --batch.")
    examples = _examples(predictor, options.artifact)
    runs = _inferences(predictor, examples, options.pairs)
    bare, whole = _encodings(predictor, options.artifact, examples, options.pairs)
    more = statistics.median(np.subtract(whole, bare))
    print(f"{min(runs):8.3f} ms  inference, the fastest of {len(runs)} by the clock", end=", ")
    print(f"{statistics.median(runs):.3f} their median")
    print(f"{statistics.median(bare):8.3f} ms  of the CPU for tokens, pixels and the call")
    print(
        f"{statistics.median(whole):8.3f} ms  of the CPU in Predictor for the same and its answer"
    )
    print(f"{more:8.3f} ms  more, the median of the pairs:", end=" ")
    print(f"{100 * more / min(runs):.1f} % of the fastest inference")
    return 0


def _examples(predictor: Predictor, folder: Path) -> list[dict]:
    """
    Raises:
        BenchError: the artifact holds no example as it came.
    """
    kinds = predictor.kinds.values()
    columns = {kind.keyword: kind.queries(folder / "queries") for kind in kinds}
    if not all(columns.values()):
        raise BenchError(f"{folder} holds no example as it came: it cannot be asked with files.")
    rows = zip(*columns.values(), strict=False)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _inferences(predictor: Predictor, examples: list[dict], count: int) -> list[float]:
    """Milliseconds of the inference of each example."""
    rows = (examples[turn % len(examples)] for turn in range(-_SETTLING, count))
    return [predictor.predict(**row).milliseconds["inference"] for row in rows][_SETTLING:]


def _encodings(
    predictor: Predictor, folder: Path, examples: list[dict], pairs: int
) -> tuple[list[float], list[float]]:
    """Milliseconds of this thread, of each pair: written by hand, and Predictor's."""
    runner, by_hand = predictor.runner, _ByHand(predictor, folder)
    session = runner.session
    runner.session = by_hand.session = _AtOnce(session, by_hand.feed(examples[0]))
    calls = {"bare": by_hand, "whole": lambda example: predictor.predict(**example)}
    found: dict[str, list[float]] = {name: [] for name in calls}
    draw = random.Random(0)
    try:
        for turn in range(-_SETTLING, pairs):
            for name in draw.sample(list(calls), 2):
                start = time.thread_time()
                calls[name](examples[turn % len(examples)])
                if turn >= 0:
                    found[name].append(1000 * (time.thread_time() - start))
    finally:
        runner.session = session
    return found["bare"], found["whole"]


class _AtOnce:
    """A session that has its answer ready: that of an example, of nothing else."""

    def __init__(self, session, feed: dict[str, np.ndarray]):
        self._answer = session.run(None, feed)

    def run(self, names, feed) -> list[np.ndarray]:
        return self._answer


class _ByHand:
    """What a user would write: encoders, then the session."""

    def __init__(self, predictor: Predictor, folder: Path):
        self._encoders = {
            name: (kind.keyword, kind.encoder(folder, predictor.meta))
            for name, kind in predictor.kinds.items()
        }
        self._present = inputs.present(predictor.meta)
        self.session = predictor.runner.session

    def feed(self, example: dict) -> dict[str, np.ndarray]:
        feed = dict(self._present)
        for name, (keyword, encode) in self._encoders.items():
            feed[name], _ = encode(example[keyword])
        return feed

    def __call__(self, example: dict) -> None:
        self.session.run(None, self.feed(example))
