"""A sweep: its axes, its runs in processes of their own, and what it says at the end."""

import csv
import json

import numpy as np
import pytest

from fusion_keras.metrics import paired_bootstrap
from fusion_keras.training.sweeping import Member, _difference, _waves
from tests.support import tiny

JUNCTIONS = "0+-:concat"


@pytest.fixture(scope="module")
def split_all(entries):
    """`split_values` of a list, in a process of its own: entry modules are never imported."""
    code = (
        "import json, runpy, sys; "
        "found = runpy.run_module('fusion_keras.sweep', run_name='sweep')['split_values']; "
        "print(json.dumps([found(v) for v in json.loads(sys.argv[1])]))"
    )

    def split(values):
        return json.loads(entries.run("-c", code, json.dumps(values)).stdout)

    return split


def test_values_split_at_commas_outside_brackets_and_quotes(split_all):
    wanted = {
        "0,1,2": ["0", "1", "2"],
        "one": ["one"],
        "": [""],
        "a,": ["a", ""],
        "(4+4:linear,8+8:attention),(6+6:add)": ["(4+4:linear,8+8:attention)", "(6+6:add)"],
        "(0.9,1.1),(0.5,(1,2))": ["(0.9,1.1)", "(0.5,(1,2))"],
        "'a,b',c": ["'a,b'", "c"],
        '"(",c': ['"("', "c"],
    }
    assert dict(zip(wanted, split_all(list(wanted)), strict=True)) == wanted


def test_a_setting_that_is_a_list_is_taken_whole(entries):
    code = (
        "import json, runpy, sys; "
        "found = runpy.run_module('fusion_keras.sweep', run_name='sweep')['_axis']; "
        "print(json.dumps([found(v)[1] for v in json.loads(sys.argv[1])]))"
    )
    wanted = {
        "--config.tabular.numbers=age,pulse": ["age,pulse"],
        "--config.tabular.numbers=(age),(age,pulse)": ["(age)", "(age,pulse)"],
        "--config.tabular.numbers=age,pulse (bpm)": ["age,pulse (bpm)"],
        "--teacher=a,b": ["a,b"],
        "--parents=(a),b": ["(a),b"],
        "--config.fusion.blocks=2,4": ["2", "4"],
        "--config.data.manifest.text_column=title,body": ["title", "body"],
        "--config.nothing.there=1,2": ["1", "2"],
        "--variant=text,image": ["text", "image"],
    }
    found = json.loads(entries.run("-c", code, json.dumps(list(wanted))).stdout)
    assert dict(zip(wanted, found, strict=True)) == wanted


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> tiny.Bench:
    return tiny.beside(tmp_path_factory.mktemp("sweep"))


def sweep(entries, bench, workdir, **changes):
    axes = {"fusion__junctions": JUNCTIONS, **changes}
    arguments = [f"--workdir={workdir}", *bench.flags(**axes)]
    return entries.run("fusion_keras.sweep", *arguments, environment={"COLUMNS": "200"})


def correct(folder) -> dict[str, bool]:
    with (folder / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return {row["id"]: row["target"] == row["predicted"] for row in rows}


@pytest.mark.slow
def test_a_sweep_compares_skips_what_is_done_and_goes_on_past_a_failure(entries, bench, tmp_path):
    # At one rate training diverges, which no plan foresees; the others are trained all the same.
    axes = {"train__learning_rate": "0.0005,1e30,0.05", "seed": "0,1"}
    first = sweep(entries, bench, tmp_path, **axes)
    assert first.returncode == 2
    assert first.stderr.strip() == "error: 2 of 6 runs failed; see the table above."
    assert "learning_rate=1e30 seed=0" in first.stdout
    assert "failed" in first.stdout
    groups = {rate: f"learning_rate={rate}" for rate in ("0.0005", "0.05")}
    folders = {r: [tmp_path / f"learning_rate={r}_s{s}" for s in (0, 1)] for r in groups}
    results = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert set(results) == set(groups.values())
    table = {}
    for rate, group in groups.items():
        found = [correct(folder) for folder in folders[rate]]
        shares = [np.mean(list(run.values())) for run in found]
        assert results[group]["runs"] == 2
        assert results[group]["mean"] == pytest.approx(np.mean(shares))
        assert results[group]["spread"] == pytest.approx(np.std(shares, ddof=1))
        table[rate] = np.array([list(run.values()) for run in found])
    assert results[groups["0.0005"]]["difference"] is None
    line_groups = {line[4]: line[5] for line in tiny.rows()}
    names = [line_groups[i] for i in correct(folders["0.05"][0])]
    wanted = paired_bootstrap(table["0.05"], table["0.0005"], groups=names)
    assert results[groups["0.05"]]["difference"] == pytest.approx(wanted)

    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.keras")}
    assert len(before) == 4
    second = sweep(entries, bench, tmp_path, **axes)
    assert second.returncode == 2
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.keras")} == before


@pytest.mark.slow
def test_runs_side_by_side_are_the_same_runs(entries, bench, tmp_path):
    axes = {"variant": "text", "seed": "0,1", "fusion__junctions": JUNCTIONS}
    one, two = tmp_path / "one", tmp_path / "two"
    for workdir, flags in ((one, []), (two, ["--jobs=2"])):
        given = [f"--workdir={workdir}", *flags, *bench.flags(**axes)]
        found = entries.run("fusion_keras.sweep", *given, environment={"COLUMNS": "200"})
        assert found.returncode == 0, found.stdout + found.stderr

    for name in ("s0", "s1"):
        splits = [json.loads((w / name / "metrics.json").read_text())["splits"] for w in (one, two)]
        nlls = [found["test"]["metrics"]["nll"]["value"] for found in splits]
        assert nlls[0] == pytest.approx(nlls[1], abs=1e-6)


@pytest.mark.slow
def test_a_sweep_over_seeds_alone_ends_with_their_mean(entries, bench, tmp_path):
    found = sweep(entries, bench, tmp_path, seed="0,1", variant="text")
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("done") == 2
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results) == ["text"]
    assert results["text"]["runs"] == 2
    assert "tensorboard --logdir=" in found.stdout


def test_side_by_side_runs_of_one_modality_come_first(tmp_path):
    variants = ["late", "text", "inter", "image"]
    members = [Member({"variant": v}, v, v, tmp_path / v) for v in variants]

    waves = [[m.label for m in wave] for wave in _waves(members, 2)]

    assert waves == [["text", "image"], ["late", "inter"]]
    assert _waves(members, 1) == [members]


def test_runs_on_other_examples_have_no_paired_difference(tmp_path):
    def member(name, text):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "splits.csv").write_text(f"id,split,text,image\na,test,{text},\nb,test,y,\n")
        rows = "a,test,,1,1\nb,test,,0,1\n"
        (folder / "predictions.csv").write_text(f"id,split,group,target,predicted\n{rows}")
        return Member({}, name, name, folder)

    one, same, other = member("one", "x"), member("same", "x"), member("other", "z")
    assert _difference([one], [same])["difference"] == 0
    assert _difference([one], [other]) is None
