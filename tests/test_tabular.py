"""Numbers and categories of a table: read, joined by every variant, exported, asked."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from bench.edge import worker
from bench.edge.artifact import read
from bench.edge.errors import InputError
from bench.edge.inputs import tabular as device
from bench.edge.method import Contender
from bench.edge.predictor import Predictor
from bench.edge.runners.engines import open_runner
from fusion_keras import api
from fusion_keras.config import get_config
from fusion_keras.data.load import check_source, load_dataset
from fusion_keras.data.records import Records
from fusion_keras.data.table import parse_number
from fusion_keras.errors import UsageError
from fusion_keras.modalities import MODALITY
from fusion_keras.modalities.tabular import LIMIT, MOST_LEVELS, TabularReader, encode
from fusion_keras.training.restored import restore
from fusion_keras.training.run import Run
from tests.support.shared import once, slow_but
from tests.support.tiny import Bench, table

NUMBERS, CATEGORIES = ("age", "heart rate"), ("site",)
VARIANTS = ("tabular", "late", "inter", "early", "late_score", "hybrid", "input")


def records(rows: list[dict[str, str]], splits: list[str]) -> Records:
    return Records(
        name="made",
        ids=[f"r{i}" for i in range(len(rows))],
        splits=splits,
        raw={"text": [""] * len(rows), "tabular": rows},
        labels=np.zeros(len(rows), np.int32),
        classes=("a", "b"),
    )


def row(age: str = "", site: str = "") -> dict[str, str]:
    return {"age": age, "site": site}


def reading(rows, splits, numbers=("age",), categories=("site",)):
    return TabularReader(numbers, categories).read(records(rows, splits), Path())


# --- What a row becomes -------------------------------------------------------------------------


def test_numbers_are_standardised_and_levels_named_by_the_training_rows_alone():
    rows = [row("1", "north"), row("3", "south"), row("100", "west"), row("2", "north")]
    read = reading(rows, ["train", "train", "valid", "test"])
    assert read.encoding == {
        "numbers": [{"name": "age", "mean": 2.0, "deviation": 1.0}],
        "categories": [{"name": "site", "levels": ["north", "south"]}],
    }
    expected = [[-1, 1, 0], [1, 0, 1], [LIMIT, 0, 0], [0, 1, 0]]
    np.testing.assert_array_equal(read.values, np.array(expected, np.float32))
    assert read.values.dtype == np.float32
    assert read.notes == (
        "1 of 4 rows have no site, or one that no training row has: no level stands for it",
    )


def test_columns_that_say_nothing_or_nearly_the_same_are_noted():
    rows = [row("5", "Male"), row("5", "male"), row("5", "f")]
    notes = reading(rows, ["train"] * 3).notes
    assert any(note.startswith("every age is the same number") for note in notes)
    assert any(note.startswith("site: 'Male' and 'male' look alike") for note in notes)


def test_a_column_is_named_once():
    config = get_config()
    config.tabular.numbers, config.tabular.categories = "age,site", "site"
    with pytest.raises(UsageError, match="name 'site' twice"):
        MODALITY["tabular"].reader(config)


def test_the_device_says_what_it_does_not_get():
    encoding = reading([row("1", "n"), row("3", "s")], ["train"] * 2).encoding
    meta = {"inputs": {"tabular": {**encoding, "missing": ["nan"]}}}

    def note(*cells):
        return device.noted(list(cells), meta)[1]

    assert note("age=2", "site=n") == note("age=nan") == note() == ""
    np.testing.assert_array_equal(device.row(["age=NaN"], meta), device.row(None, meta))
    np.testing.assert_array_equal(device.row({"age": None}, meta), device.row(None, meta))
    np.testing.assert_array_equal(device.row({"age": 3}, meta), device.row(["age=3"], meta))
    assert note("site=basel") == (
        "site is 'basel', which no training row had (n, s): no level stands for it"
    )
    assert "age is 300, more than 10 standard deviations from the mean" in note("age=300")
    with pytest.raises(InputError, match="names a column twice"):
        note("age=1", "age=2")


def test_what_is_missing_in_a_number_may_be_a_level_beside_it():
    encoding = reading([row("1", "NULL"), row("3", "s")], ["train"] * 2).encoding
    meta = {"inputs": {"tabular": {**encoding, "missing": ["null"]}}}
    np.testing.assert_array_equal(device.row({"age": "NULL", "site": "NULL"}, meta), [[0, 1, 0]])
    made = MODALITY["tabular"].one(
        {"age": "NULL", "site": "NULL"},
        TabularReader(("age",), ("site",)),
        meta["inputs"]["tabular"],
    )
    np.testing.assert_array_equal(made, [0, 1, 0])


@pytest.mark.parametrize("levels", [("False", "True"), ("false", "true")])
def test_a_truth_is_the_level_that_training_had_of_it(levels):
    encoding = reading([row("1", levels[0]), row("3", levels[1])], ["train"] * 2).encoding
    meta = {"inputs": {"tabular": encoding}}
    np.testing.assert_array_equal(device.row({"site": True}, meta), [[0, 0, 1]])
    reads = TabularReader(("age",), ("site",))
    np.testing.assert_array_equal(
        MODALITY["tabular"].one({"site": True}, reads, encoding), [0, 0, 1]
    )


def test_what_is_missing_is_the_mean_and_no_level_and_is_counted():
    read = reading([row("1", "n"), row("3", "s"), row("", " ")], ["train", "train", "train"])
    np.testing.assert_array_equal(read.values[2], [0, 0, 0])
    assert [note.split(":")[0] for note in read.notes] == [
        "1 of 3 rows have no age",
        "1 of 3 rows have no site, or one that no training row has",
    ]


@pytest.mark.parametrize("cell", ["5", "0.1", "1.1"])
def test_a_constant_column_is_zero(cell):
    # 100 times 0.1 have a deviation of 3e-17.
    read = reading([row(cell, "n")] * 100, ["train"] * 100)
    np.testing.assert_array_equal(read.values, [[0, 1]] * 100)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row("", "n"), row("", "n")], "no number in column 'age' of any training row"),
        ([row("1", ""), row("2", "")], "got 0 values in column 'site'"),
        ([row("1", str(i)) for i in range(MOST_LEVELS + 1)], "got 1001 values in column 'site'"),
    ],
)
def test_columns_that_teach_nothing_are_refused(rows, said):
    with pytest.raises(UsageError, match=said):
        reading(rows, ["train"] * len(rows))


def test_a_cell_that_is_no_number_costs_its_row_behind_the_split(tmp_path):
    rows = [f"word{i},{'xy'[i % 2]},{i}" for i in range(60)]
    rows[7] = 'word7,y,"4,5"'
    path = tmp_path / "set.csv"
    path.write_text("\n".join(["text,label,age", *rows]), encoding="utf-8")
    config = get_config().data
    config.source, config.path, config.cache_dir = "manifest", str(path), str(tmp_path / "cache")
    config.manifest.image_column, config.max_skipped = "", 0.02
    alone = load_dataset(config)
    fused = load_dataset(config, {"tabular": TabularReader(("age",), ())})
    said = "set.csv line 9: age '4,5' is no number (a decimal comma: write a point)"
    assert said in fused.notes
    kept = [i for i in range(60) if i != 7]
    assert fused.ids == [alone.ids[i] for i in kept]
    assert list(fused.splits) == [alone.splits[i] for i in kept]
    config.max_skipped = 0.01
    with pytest.raises(UsageError, match=r"got 1 unusable of 60 rows in set.csv .*line 9: age"):
        check_source(config, {"tabular": TabularReader(("age",), ())})


@pytest.mark.parametrize(
    "written", ["age,Speed (km/h)", "(age,Speed (km/h))", "( age , Speed (km/h) )"]
)
def test_names_of_columns_may_end_in_parentheses(written):
    config = get_config()
    config.tabular.numbers, config.tabular.categories = written, "Site (code)"
    reader = MODALITY["tabular"].reader(config)
    assert reader.columns == ("age", "Speed (km/h)", "Site (code)")


def test_a_source_without_such_columns_is_refused():
    source = records([row()], ["train"])
    source.raw.pop("tabular")
    with pytest.raises(UsageError, match="source 'made' without columns of numbers"):
        TabularReader(("age",), ()).read(source, Path())


# --- On a device --------------------------------------------------------------------------------


def test_the_device_makes_the_same_of_a_row():
    rows = [row("1", "north"), row("4.5", "south"), row("", "moon"), row("1e9", ""), row("-1e9")]
    encoding = reading(rows, ["train"] * 2 + ["test"] * 3).encoding
    for cells in rows:
        found = device.row(cells, {"inputs": {"tabular": encoding}})
        np.testing.assert_array_equal(found, encode(cells, encoding)[None])
    written = device.row(["age= 4.5", "site=south"], {"inputs": {"tabular": encoding}})
    np.testing.assert_array_equal(written, encode(rows[1], encoding)[None])
    nothing = device.row(None, {"inputs": {"tabular": encoding}})
    np.testing.assert_array_equal(nothing, [[0, 0, 0]])


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["shoe=43"], "no column 'shoe'; it reads age, site"),
        (["age"], "'age' names no column: NAME=VALUE"),
        (["age=old"], "age is 'old'; a number is wanted"),
        (["age=1_0"], "age is '1_0'"),
        (["age=inf"], "age is 'inf'"),
    ],
)
def test_cells_that_cannot_be_read_are_a_sentence(cells, said):
    encoding = reading([row("1", "n"), row("2", "s")], ["train", "train"]).encoding
    with pytest.raises(InputError, match=said):
        device.row(cells, {"inputs": {"tabular": encoding}})


# --- From a table to a device -------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(shared_folder) -> Bench:
    """A manifest with columns of numbers and of a category, which tell the label in part."""

    def make(folder: Path) -> None:
        Bench.make(folder)
        with (folder / "data" / "manifest.csv").open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        rng = np.random.default_rng(0)
        for i, line in enumerate(lines):
            sign = 1 if line["label"] == "positive" else -1
            line["age"] = "" if i % 9 == 8 else f"{40 + 10 * sign + rng.normal(0, 8):.1f}"
            line["heart rate"] = f"{rng.normal(70, 5):.0f}"
            line["site"] = str(rng.choice(["north", "south"] if sign > 0 else ["south", "west"]))
        with (folder / "data" / "cells.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)

    return Bench(once(shared_folder / "tabular", make))


def settings(bench: Bench, **changes) -> dict:
    named = {"tabular__numbers": ",".join(NUMBERS), "tabular__categories": ",".join(CATEGORIES)}
    named |= {"tabular__preset": "mlp_2x8", "fusion__modalities": "text+tabular"}
    return {"data__path": bench.folder / "data" / "cells.csv", **named, **changes}


@pytest.mark.parametrize("variant", slow_but(["tabular", "inter", "input"], VARIANTS))
def test_every_variant_joins_it(bench, variant):
    from fusion_keras.training.plan import make_plan
    from fusion_keras.training.task import prepare

    changes = settings(bench, variant=variant, fusion__modalities="text+image+tabular")
    task = prepare(make_plan(bench.config(**changes)))
    assert task.spec.modalities == (
        ("tabular",) if variant == "tabular" else ("text", "image", "tabular")
    )
    rows = task.rows["valid"][:3]
    names = [x.name for x in task.graph.model.inputs]
    logits = task.graph.model({n: task.arrays[n][rows] for n in names})["logits"]
    assert logits.shape == (3, 2)
    taps = task.graph.taps("tabular")
    assert set(taps) == {f"tabular_{d}" for d in task.spec.depths("tabular")}
    # What is behind the deepest tap is not built.
    deepest = task.spec.depths("tabular")[-1]
    layers = [x.name for x in task.graph.model.get_layer("tabular_backbone").layers]
    built = 2 if deepest == "last" else deepest
    assert [name for name in layers if name.startswith("layer_")] == [
        f"layer_{i}" for i in range(built)
    ]


def test_a_table_without_a_text_trains_what_takes_none(bench, tmp_path):
    from fusion_keras.training.plan import make_plan
    from fusion_keras.training.task import prepare

    cells = bench.folder / "data" / "cells.csv"
    with cells.open(newline="") as file:
        rows = list(csv.DictReader(file))
    path = cells.with_name("no_text.csv")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name != "text"])
        writer.writeheader()
        writer.writerows({k: v for k, v in row.items() if k != "text"} for row in rows)
    without = {"data__path": path, "data__manifest__text_column": "", "variant": "inter"}
    changes = settings(bench, **without, fusion__modalities="image+tabular")
    task = prepare(make_plan(bench.config(**changes)))
    assert task.spec.modalities == ("image", "tabular")
    assert task.dataset.present == {}
    for other in ("text+tabular", "text+image"):
        changes = settings(bench, **without, fusion__modalities=other)
        with pytest.raises(UsageError, match="the source 'no_text' without texts, wanted some"):
            make_plan(bench.config(**changes))
    changes = settings(bench, **without, fusion__modalities="image+tabular")
    changes |= {"data__manifest__split_column": "", "data__group_by": "text"}
    with pytest.raises(UsageError, match="group_by='text' and no text column"):
        make_plan(bench.config(**changes))


@pytest.fixture(scope="module")
def run(bench, entries) -> Path:
    """A trained early fusion of sentences and tables that can do without either."""

    def make(folder: Path) -> None:
        drops = {"augment__drop_text": 0.2, "augment__drop_tabular": 0.2}
        # Long enough to be sure of its rows: lower precisions must not decide any of the 16.
        changes = {"variant": "early", "fusion__stand_ins": True, "train__epochs": 12, **drops}
        changes = settings(bench, run=folder, **changes)
        done = entries.run("fusion_keras.train", *bench.flags(**changes))
        assert done.returncode == 0, done.stderr

    return once(bench.folder / "runs" / "early", make)


def test_a_run_says_how_rows_are_read(run, bench):
    described = json.loads((run / "config.json").read_text())
    read = described["inputs"]["tabular"]
    assert [n["name"] for n in read["numbers"]] == list(NUMBERS)
    assert read["categories"] == [{"name": "site", "levels": ["north", "south", "west"]}]
    assert any(
        "rows have no age: the mean stands for it" in n for n in described["dataset"]["notes"]
    )
    with (run / "splits.csv").open(newline="") as file:
        assert all(line["tabular"] for line in csv.DictReader(file))
    task = restore(run)
    with np.load(run / "golden.npz") as golden:
        inputs = {n.removeprefix("input_"): x for n, x in golden.items() if n.startswith("input_")}
        logits = np.asarray(task.graph.model(inputs)["logits"])
        np.testing.assert_allclose(logits, golden["output_logits"], atol=1e-5)


def test_shuffling_it_is_measured(run, capsys):
    from fusion_keras.studies.reliance import correct_when_shuffled

    found = correct_when_shuffled(restore(run), "test", repeats=2, seed=0)
    assert found.keys() == {"", "text", "tabular"}


def test_a_run_is_asked_with_cells(run, bench):
    with (run / "predictions.csv").open(newline="") as file:
        told = [line for line in csv.DictReader(file) if line["split"] == "test"]
    with (bench.folder / "data" / "cells.csv").open(newline="", encoding="utf-8") as file:
        table = {line["id"]: line for line in csv.DictReader(file)}
    lines = [table[line["id"]] for line in told]
    rows = [{"text": x["text"], "tabular": {n: x[n] for n in (*NUMBERS, "site")}} for x in lines]
    opened = api.Run.load(run)

    found = opened.predict(rows)

    wanted = [float(line[f"p_{opened.classes[0]}"]) for line in told]
    assert [p.probabilities[opened.classes[0]] for p in found] == pytest.approx(wanted, abs=1e-5)
    as_missing, left_out = ({"tabular": {"age": x, "site": "north"}} for x in ("n/a", None))
    assert opened.predict([as_missing]) == opened.predict([left_out])
    with pytest.raises(UsageError, match=r"row 0 cannot be read: there is no column 'weight'"):
        opened.predict([{"text": "a", "tabular": {"weight": 3}}])
    for value in ("old", float("inf")):
        with pytest.raises(UsageError, match=f"row 0 cannot be read: age is '{value}'; a number"):
            opened.predict([{"text": "a", "tabular": {"age": value}}])


@pytest.fixture(scope="module")
def artifact(run, entries) -> Path:
    def make(folder: Path) -> None:
        flags = (str(run), f"--out={folder}", "--precisions=fp16,int8,int8_static")
        done = entries.run("export", *flags)
        assert done.returncode == 0, done.stderr
        assert done.stdout.rstrip().endswith('--text "..." --tabular NAME=VALUE ...')

    return once(run.parent / "artifact", make)


def test_an_artifact_is_asked_with_cells(run, artifact, bench):
    with (bench.folder / "data" / "cells.csv").open(newline="") as file:
        lines = {line["id"]: line for line in csv.DictReader(file)}
    answers = [a for a in table(Run(run), "predictions.csv") if a["split"] == "test"]
    predictor = Predictor(artifact)
    for answer in answers[:5]:
        line = lines[answer["id"]]
        cells = [f"{name}={line[name]}" for name in (*NUMBERS, *CATEGORIES)]
        found = predictor.predict(text=line["text"], features=cells)
        for name, share in found.probabilities.items():
            assert share == pytest.approx(parse_number(answer[f"p_{name}"]), abs=1e-4)
    assert Predictor(artifact, "int8").predict(text="a good day").label in ("negative", "positive")


def test_an_artifact_with_it_is_timed_from_cells_to_the_answer(artifact):
    contender = Contender("it", artifact, read(artifact))
    with open_runner("ort", artifact, contender.meta, "fp32") as runner:
        found = worker._stages(runner, contender, 3)
    assert {name: len(samples) for name, samples in found.items()} == {
        "tokens": 3, "row": 3, "inference": 3, "all": 3
    }  # fmt: skip
