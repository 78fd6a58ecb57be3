"""The process that makes drafts: what fails is a sentence, and the next task is done anyway."""

import importlib.util
import os
import signal

import pytest

from fusion_keras.errors import UsageError
from fusion_keras.searching import prices
from fusion_keras.searching.crew import Crew


def test_outside_the_repository_it_says_where_to_type(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="export and bench cannot be found, which stand in the re"):
        prices.prices([("text", "minilm")], None, tmp_path / "prices", print)
    assert not (tmp_path / "prices").exists()


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
