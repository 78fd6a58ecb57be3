"""The process that makes drafts: what fails is a sentence, and the next task is done anyway."""

import os
import signal

import numpy as np
import pytest

from bench.edge import proof
from export import draft, ladder
from fusion_keras.errors import UsageError
from fusion_keras.searching.crew import Crew


@pytest.mark.slow
def test_what_a_draft_lacks_is_told_and_a_converter_that_was_killed_is_started_anew(tmp_path):
    with Crew() as crew:
        converter = crew.whole.converter

        def failed() -> str:
            with pytest.raises(UsageError) as caught:
                converter.make(tmp_path / "made", tmp_path / "draft", ("fp32",), tmp_path / "log")
            return str(caught.value)

        first = failed()
        assert str(tmp_path / "made" / "config.json") in first
        before = converter._process.pid
        os.kill(before, signal.SIGKILL)
        converter._process.wait()

        assert failed() == first
        process = converter._process
        assert process.pid != before
    assert process.returncode is not None


def test_int8_that_random_weights_take_far_away_may_be_timed_where_it_answers_alike(tmp_path):
    rng = np.random.default_rng(0)
    rows = {"x": rng.normal(size=(64, 2)).astype(np.float32)}
    expected, here = rows["x"], rows["x"] + rng.normal(0, 0.6, (64, 2))
    usual = ladder.compare("int8", here, "jax", expected, "int8")
    wide = draft._widened(usual, here, expected)
    golden = {"input_x": rows["x"][:8], "output_logits": expected[:8]}
    np.savez(tmp_path / "golden.npz", **golden)

    def compared(rung, off):
        answers = iter(here + off)

        def infer(feed):
            return {"logits": next(answers)[None]}

        return proof.compare(infer, tmp_path, {"ladder": [rung.described()]}, "int8", 1)

    with pytest.raises(proof.WrongOutputs, match="their cosine is"):
        compared(usual, 0.0)
    assert compared(wide, 0.0)[0]["cosine"] < 0.95
    with pytest.raises(proof.WrongOutputs):
        compared(wide, 9.0)
