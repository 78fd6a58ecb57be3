"""Samplers compared on a table of known models."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest

from bench import samplers as command
from fusion_keras.config import get_config
from fusion_keras.errors import UsageError
from fusion_keras.searching import space_file, tables
from fusion_keras.searching.outcome import STOPPED, TRAINED, Outcome
from fusion_keras.searching.request import Request
from fusion_keras.searching.space import key_of, plan_at

DEPTHS, IMAGES, JOINS = (1, 2, 3, 5), (4, 8), ("concat", "linear")
SPACE = f"""
def get_space():
    return {{"joins": {JOINS}, "taps.text": {DEPTHS}, "taps.image": {IMAGES}}}
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """(folder, space's file) of a search whose models' NLL falls with the depths that cost time."""
    folder = tmp_path_factory.mktemp("table")
    file = folder / "space.py"
    file.write_text(SPACE)
    base = get_config()
    space = space_file.of_file(file, base)
    request = Request(base=base, space=space, folder=folder)
    (folder / "search.json").write_text(json.dumps(request.identity()))
    for text, image, join in itertools.product(DEPTHS, IMAGES, JOINS):
        point = space.point([({"text": text, "image": image}, join)], {})
        key, p90 = key_of(plan_at(point, base)), 1.0 + 0.3 * text + 0.02 * image
        model = Outcome(key, point.name, dict(point.settings), TRAINED, guess=0.69)
        # Two dips: depth alone does not say what is good.
        nll = 0.6 - 0.02 * text - 0.1 * (text in (2, 5)) - 0.05 * (join == "linear")
        for name, factor in (("fp32", 1.0), ("int8", 0.5)):
            times = {"p50": factor * p90, "p90": factor * p90, "min": factor * p90}
            model.latency[name], model.nll[name] = times, nll
        model.seconds = {"training": 30.0}
        model.named = "inter" if (text, image, join) == (3, 8, "linear") else ""
        (folder / "trials" / key).mkdir(parents=True)
        (folder / "trials" / key / "outcome.json").write_text(json.dumps(dataclasses.asdict(model)))
    return folder, file


def test_a_search_over_the_whole_table_finds_all_of_its_front(table):
    known = tables.table(table[0], str(table[1]))
    assert len(known.models) == 16
    assert known.stopped == 0
    whole = tables.searched(known, "tpe", seed=0, trials=16)
    assert whole.shares[-1] == 1
    assert (np.diff(whole.shares) >= 0).all()
    assert whole.unknown == 0
    assert whole.seconds.tolist() == [30.0 * n for n in range(1, 17)]
    assert whole.start == known.share(known.named) < 1
    assert (whole.at(29), whole.at(30), whole.at(1e9)) == (whole.start, whole.shares[0], 1)
    again = tables.searched(known, "tpe", seed=0, trials=16)
    np.testing.assert_array_equal(again.shares, whole.shares)
    other = tables.searched(known, "tpe", seed=1, trials=8)
    assert other.shares.tolist() != whole.shares[:8].tolist()


def test_a_budget_leaves_out_what_is_slower(table):
    within = tables.table(table[0], str(table[1]), budget=0.9)
    # inter takes 1.03 ms at int8.
    assert within.share(within.named) == 0
    found = tables.searched(within, "tpe", seed=0, trials=16)
    assert found.start == 0
    assert found.shares[-1] == 1
    # Of sixteen eight are within it, and trained.
    assert found.seconds[-1] == 8 * 30.0
    with pytest.raises(UsageError, match="is within the budget"):
        tables.table(table[0], str(table[1]), budget=0.1)


def test_a_table_without_a_model_better_than_a_guess_compares_nothing(table, tmp_path):
    folder = shutil.copytree(table[0], tmp_path / "guessing")
    for file in folder.glob("trials/*/outcome.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"guess": 0.1}))
    with pytest.raises(UsageError, match="better than a guess"):
        tables.table(folder, str(table[1]))


def test_what_the_table_lacks_is_counted(table):
    known = tables.table(table[0], str(table[1]))
    few = dataclasses.replace(known, models=dict(list(known.models.items())[:8]))
    assert tables.searched(few, "random", seed=0, trials=8).unknown > 0
    first = next(iter(known.models.values()))
    stopped = {**known.models, first.key: dataclasses.replace(first, state=STOPPED)}
    assert dataclasses.replace(known, models=stopped).stopped == 1


def test_the_command_says_who_is_above(table, tmp_path, capsys):
    folder, space = table
    out = tmp_path / "all.json"
    given = [str(folder), f"--space={space}", "--seeds=2", "--trials=6", f"--out={out}"]
    assert command.main(given) == 0
    said = capsys.readouterr().out
    assert "16 models in" in said
    assert "inter alone: " in said
    assert "tpe - random after 6 trials: " in said
    assert "tpe above the named variants alone in " in said
    assert "tpe against random, seed by seed: above it in " in said
    found = json.loads(out.read_text())
    assert [len(one["shares"]) for one in found["tpe"]] == [6, 6]


@pytest.mark.parametrize(
    ("folder", "space", "said"),
    [
        ("nothing", "", "is no search: give the --workdir"),
        ("", "", "a search of another space: give the --space"),
        ("", "no.py", "cannot be read"),
    ],
)
def test_what_is_no_table_is_refused(table, folder, space, said):
    with pytest.raises(UsageError, match=said):
        tables.table(table[0] / folder, space)
