"""What `Predictor` adds, measured with a session that answers at once."""

import re

import pytest

from bench.edge import overhead
from bench.edge.predictor import Predictor


def test_it_is_told_beside_what_it_is_made_of(tiny_artifact, capsys):
    assert overhead.main([str(tiny_artifact), "--pairs=40"]) == 0
    numbers = [float(x) for x in re.findall(r"^ *(\d+\.\d+) ms", capsys.readouterr().out, re.M)]
    run, bare, whole, more = numbers
    assert run > 0
    assert 0 < bare < whole
    # A twentieth of a millisecond where it was measured; in the CPU's time, so on busy ones, too.
    assert more < 0.5


def test_the_session_of_the_model_is_put_back(tiny_artifact):
    predictor = Predictor(tiny_artifact)
    before = predictor.runner.session
    examples = overhead._examples(predictor, tiny_artifact)
    wanted = predictor.predict(**examples[1]).probabilities
    bare, whole = overhead._encodings(predictor, tiny_artifact, examples, 3)
    assert (len(bare), len(whole)) == (3, 3)
    assert predictor.runner.session is before
    assert predictor.predict(**examples[1]).probabilities == wanted


def test_what_is_asked_with_no_files_is_a_sentence(tiny_artifact, tmp_path):
    (tmp_path / "queries").mkdir()
    (tmp_path / "queries" / "texts.json").write_text("[]")
    with pytest.raises(overhead.BenchError, match="holds no example as it came"):
        overhead._examples(Predictor(tiny_artifact), tmp_path)
