"""What a machine can tell apart: which measurements are made, what their verdicts come to."""

import json

import pytest

from bench.edge import repeatability
from bench.repeatability import main
from tests.support.fake_runner import write_artifact

RIGHT = {True: "slower", False: "same"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command; `verdict` is told (slowed down, disturbed) instead of a measurement."""

    def run(verdict, *flags):
        disturbed = []

        def measure(pair, method, target, say, on_round):
            disturbed.append(on_round.from_round >= 0)
            slowed = bool(pair[0].slow_by)
            said = verdict(slowed, disturbed[-1])
            ratio = {"ratio": 1.0, "low": 0.9, "high": 1.1, "verdict": said}
            contenders = [{"error": None}, {"error": None}]
            steady = {"steady": True}
            return {"contenders": contenders, "ratios": [ratio], "machine_speed": steady}

        monkeypatch.setattr(repeatability, "measure", measure)
        folder = write_artifact(tmp_path / "a", {})
        return main([str(folder), f"--out={tmp_path / 'out'}", *flags])

    return run


def test_four_kinds_are_measured_and_a_verdict_in_two_of_three_is_enough(run, tmp_path, capsys):
    turn = iter(range(100))

    def verdict(slowed, disturbed):
        return "unclear" if disturbed or next(turn) % 3 == 0 else RIGHT[slowed]

    assert run(verdict) == 0
    said = capsys.readouterr().out
    assert "a verdict in 2 of 3 alike and 2 of 3 slowed; wrong ones in all: 0" in said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    kinds = [(entry["planted"], entry["disturbed"]) for entry in summary]
    assert kinds == [
        (planted, disturbed)
        for disturbed in (False, True)
        for planted in (False, True)
        for _ in range(3)
    ]


def test_a_wrong_verdict_is_never_fine(run):
    assert run(lambda slowed, disturbed: "same" if disturbed else RIGHT[slowed], "--times=1") == 1


def test_a_machine_that_tells_nothing_apart_is_not_fine(run):
    assert run(lambda slowed, disturbed: "unclear", "--times=1") == 1
