"""What a search keeps of a measurement, where other work shares the machine."""

import itertools
import os

import pytest

from fusion_keras.errors import MachineError, UsageError
from fusion_keras.searching import latency, measuring
from fusion_keras.searching.crew import Crew


def times(p50, p90):
    return {"p50": p50, "p90": p90, "min": 0.9 * p50}


def make_reference(folder):
    folder.mkdir()
    (folder / "meta.json").write_text("{}")


@pytest.fixture
def meter(tmp_path, monkeypatch):
    """measure(key, (of the reference, of the draft), ..., alone=...) -> what is kept of a draft
    whose measurements come out like that, and how many were made; of the reference alone they
    come out as `alone`; `reference` is the key of it."""
    with Crew() as crew:

        def measure(key, *measurements, alone=((10.0, 11.0),), reference="r", of=None):
            scale = tmp_path / of if of else None
            made = latency.Meter(tmp_path / "cache", "2 classes", reference, crew, scale=scale)
            anchor = ("reference", "fp32")
            left = [
                {anchor: times(*ours), ("draft", "int8"): times(*draft)}
                for ours, draft in measurements
            ]
            count, by_itself = len(left), itertools.cycle(alone)

            def benched(artifacts, *_):
                if len(artifacts) == 1:
                    return {anchor: times(*next(by_itself))}
                return left.pop(0)

            monkeypatch.setattr(measuring, "bench", benched)
            more = (("int8",), tmp_path / "log", make_reference)
            kept = made.measured(key, tmp_path / "draft", *more)
            return kept["int8"], count - len(left)

        yield measure


def test_other_cores_are_another_device(monkeypatch):
    before = measuring.device()
    assert measuring.device() == before
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0} | set(range(90, 99)))
    assert measuring.device() != before


def test_each_percentile_is_held_against_the_references_own(meter):
    meter("first", ((10.0, 11.0), (5.0, 5.5)))
    kept, _ = meter("second", ((20.0, 27.5), (10.0, 13.75)))
    assert kept == pytest.approx(times(5.0, 5.5))


def test_the_first_model_is_held_against_a_machine_that_was_seen_several_times(meter):
    kept, _ = meter("first", ((20.0, 22.0), (10.0, 11.0)), alone=((20.0, 22.0), (10.0, 11.0)))
    assert kept == pytest.approx(times(5.0, 5.5))


def test_a_reference_of_which_a_part_is_gone_is_made_anew(meter, tmp_path):
    meter("first", ((10.0, 11.0), (5.0, 5.5)))
    (meta,) = (tmp_path / "cache").glob("latency/*/r/reference/meta.json")
    meta.unlink()
    kept, _ = meter("second", ((20.0, 22.0), (5.0, 5.5)), alone=((20.0, 22.0),))
    assert kept == pytest.approx(times(5.0, 5.5))


def test_models_of_another_size_are_held_against_a_reference_of_their_own(meter):
    meter("small", ((0.1, 0.11), (0.2, 0.22)), alone=((0.1, 0.11),), reference="small")
    kept, _ = meter("large", ((20.0, 22.0), (30.0, 33.0)), reference="large")
    assert kept == pytest.approx(times(15.0, 16.5))


def test_a_search_has_one_scale_for_all_of_its_models(meter):
    slow, fast = ((20.0, 22.0), (10.0, 11.0)), ((10.0, 11.0), (5.0, 5.5))
    first, _ = meter("first", slow, alone=((20.0, 22.0),), of="one")
    second, _ = meter("second", fast, of="one")
    assert first == second == pytest.approx(times(10.0, 11.0))
    # Another search has the best that was seen until then.
    later, _ = meter("third", slow, of="another")
    assert later == pytest.approx(times(5.0, 5.5))


def test_what_is_known_of_a_model_is_as_fast_as_the_machine_has_become(meter, tmp_path):
    slow, fast = ((20.0, 22.0), (10.0, 11.0)), ((10.0, 11.0), (5.0, 5.5))
    meter("first", slow, alone=((20.0, 22.0),))
    meter("second", fast)
    known = latency.Meter(tmp_path / "cache", "2 classes", "r", None).known("first", ("int8",))
    assert known["int8"] == pytest.approx(times(5.0, 5.5))


def test_a_machine_that_measures_nothing_ends_the_search(meter, tmp_path, monkeypatch):
    with Crew() as crew:
        made = latency.Meter(tmp_path / "cache", "2 classes", "r", crew, runner="openvino")

        def lacking(*_):
            raise UsageError("it could not be measured: openvino is not installed")

        monkeypatch.setattr(measuring, "bench", lacking)
        with pytest.raises(MachineError, match=r"measured with openvino: it could"):
            made.measured("a", tmp_path / "draft", ("fp32",), tmp_path / "log", make_reference)


def test_a_lucky_scale_makes_no_p90_below_the_median(meter):
    meter("first", ((10.0, 11.0), (5.0, 5.5)))
    kept, _ = meter("second", ((10.0, 15.0), (5.0, 5.5)))
    assert kept["p90"] == pytest.approx(5.0)


def test_an_interval_holds_the_p90_that_it_is_of():
    of_one = {"min": 0.5, "p50": 0.9, "p90": 1.0, "p90_interval": [0.95, 1.02]}
    found = latency._scaled(of_one, {"min": 1.0, "p50": 1.2, "p90": 1.0})
    assert found["p90"] == pytest.approx(1.08)
    assert found["p90_interval"] == pytest.approx([0.95, 1.08])


def test_what_others_disturbed_is_measured_again_and_the_calmest_kept(meter):
    calm, stalled = ((10.0, 11.0), (5.0, 5.5)), ((10.0, 40.0), (5.0, 90.0))
    wild = ((10.0, 400.0), (5.0, 7.0))
    assert meter("a", calm, stalled) == (pytest.approx(times(5.0, 5.5)), 1)
    assert meter("b", stalled, calm, wild) == (pytest.approx(times(5.0, 5.5)), 2)
    kept, count = meter("c", wild, stalled, wild, calm)
    assert count == 3
    assert kept["p90"] == pytest.approx(90.0 * 11.0 / 40.0)
