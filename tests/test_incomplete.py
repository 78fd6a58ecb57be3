"""Rows that lack a modality: kept where the model can do without, counted, and never made up."""

import csv
import json
import shutil
from pathlib import Path

import ml_collections
import numpy as np
import pytest
from PIL import Image

from bench.edge.artifact import golden, queries, read
from bench.edge.predictor import Predictor
from export.request import may_lack
from fusion_keras.config import get_config
from fusion_keras.data import incomplete
from fusion_keras.data.augment import AugmentSpec
from fusion_keras.data.images import ImageSpec
from fusion_keras.data.manifest import read_manifest
from fusion_keras.errors import UsageError
from fusion_keras.exported import run_onnx
from fusion_keras.modalities.augmentation import augmentation
from fusion_keras.modalities.tabular import TabularReader
from fusion_keras.studies import reliance
from fusion_keras.studies.robustness import cells
from fusion_keras.studies.robustness.load import load as robustness
from fusion_keras.training.evaluate import predict
from fusion_keras.training.experiment import train
from fusion_keras.training.plan import make_plan
from fusion_keras.training.report import closing
from fusion_keras.training.restored import config_of, restore
from fusion_keras.training.task import prepare
from tests.support import tiny
from tests.support.loading import load_dataset

SPEC = ImageSpec(size=8)
# Of 20 rows, the images of which are empty cells or missing values, the texts of which.
NO_IMAGE, NO_TEXT = (1, 4, 11), (2, 18)


def table(folder, change=lambda row, cells: None):
    """20 rows of two classes with a split, of which some lack something; `change` edits them."""
    folder.mkdir(exist_ok=True)
    with (folder / "set.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "image", "label", "split"])
        writer.writeheader()
        for row in range(20):
            Image.new("RGB", (9, 9), (10 * row + 5, 0, 0)).save(folder / f"{row}.png")
            cells = {"text": f"a {row}", "image": f"{row}.png", "label": "ab"[row % 2]}
            cells["split"] = "train" if row < 10 else ("valid" if row < 14 else "test")
            if row in NO_IMAGE:
                cells["image"] = ("", " ", "N/A")[NO_IMAGE.index(row)]
            if row in NO_TEXT:
                cells["text"] = ("", "null")[NO_TEXT.index(row)]
            change(row, cells)
            writer.writerow(cells)
    return folder / "set.csv"


@pytest.fixture
def config(tmp_path):
    """config.data of such a table, and a vocabulary beside it."""
    (tmp_path / "words").mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", *map(str, range(20))]
    (tmp_path / "words" / "vocab.txt").write_text("\n".join(words))
    data = get_config().data.copy_and_resolve_references()
    data.unlock()
    data.update(
        {
            "source": "manifest",
            "path": str(table(tmp_path / "data")),
            "max_length": 5,
            "cache_dir": str(tmp_path / "cache"),
        }
    )
    return data


def load(config: ml_collections.ConfigDict, keep=True, **readers):
    given = {"image": {"image_spec": SPEC}, "text": {"tokenizer_dir": _words(config)}}
    wanted = {n: v for m in readers.get("of", ("image", "text")) for n, v in given[m].items()}
    return load_dataset(config, keep_incomplete=keep, **wanted)


def _words(config):
    return Path(config.path).parents[1] / "words"


def test_empty_cells_and_missing_values_lack_and_nothing_stands_for_them(config):
    dataset = load(config)
    assert len(dataset) == 20
    for modality, lacking in (("image", NO_IMAGE), ("text", NO_TEXT)):
        assert np.flatnonzero(~dataset.present[modality]).tolist() == list(lacking)
        assert [dataset.raw[modality][row] for row in lacking] == [None] * len(lacking)
    assert [dataset.lacking(row) for row in (0, 1, 2)] == ["", "image", "text"]
    assert not dataset.inputs["image"][list(NO_IMAGE)].any()
    assert dataset.inputs["image"][3, 0, 0].tolist() == [35, 0, 0]
    assert dataset.inputs["text"][2].tolist() == [2, 3, 0, 0, 0]
    notes = " | ".join(dataset.notes)
    assert "3 of 20 rows (15.0 %) lack image, the first in set.csv line 3: where" in notes
    assert "2 of 20 rows (10.0 %) lack text, the first in set.csv line 4" in notes


def test_a_file_that_is_named_and_not_there_is_no_missing_modality(config):
    (_words(config).with_name("data") / "6.png").unlink()
    with pytest.raises(UsageError, match=r"got 1 unusable of 20 rows .*line 8: no image file '6.p"):
        load(config)
    config.max_skipped = 0.1
    dataset = load(config)
    assert len(dataset) == 19
    assert np.flatnonzero(~dataset.present["image"]).tolist() == [1, 4, 10]
    (_words(config).with_name("data") / "6.png").write_bytes(b"broken")
    assert len(load(config)) == 19


def test_a_missing_value_that_names_a_file_is_that_file(tmp_path):
    def change(row, cells):
        cells |= {"text": f"a {row}", "image": "none" if row == 5 else f"{row}.png"}

    path = table(tmp_path / "data", change)
    assert read_manifest(path, keep_incomplete=True).raw["image"][5] is None
    shutil.copy(tmp_path / "data" / "5.png", tmp_path / "data" / "none")
    assert read_manifest(path, keep_incomplete=True).raw["image"][5].name == "none"


def test_what_is_not_kept_is_told_how_it_could_be(config):
    with pytest.raises(UsageError) as caught:
        load(config, keep=False)
    said = str(caught.value)
    assert said.startswith("got 5 unusable of 20 rows in set.csv (set.csv line 3: no image file ''")
    assert "3 lack image (the first in set.csv line 3), 2 lack text (the first in" in said
    assert "--config.fusion.stand_ins --config.augment.drop_image=0.3" in said
    config.max_skipped = 0.5
    dataset = load(config, keep=False)
    assert (len(dataset), dataset.present) == (15, {})
    assert any("--config.fusion.stand_ins" in note for note in dataset.notes)


def test_a_row_without_all_is_skipped_and_counted(config):
    def change(row, cells):
        if row == 3:
            cells |= {"text": "", "image": ""}

    table(_words(config).with_name("data"), change)
    with pytest.raises(UsageError, match=r"got 1 unusable of 20 rows .*line 5: no image and no te"):
        load(config)
    config.max_skipped = 0.1
    dataset = load(config)
    # It keeps its place in the splits, which are those of a model of either.
    assert len(dataset) == 20
    assert "set.csv line 5: no image and no text" in dataset.notes


def test_a_modality_that_no_training_row_has_is_refused(config):
    def without(row, cells):
        cells |= {"text": "a", "image": "" if row < 10 else f"{row}.png"}

    table(Path(config.path).parent, without)
    said = r"no training row with image in set\.csv \(of 20 rows 10 have one\).*without image"
    with pytest.raises(UsageError, match=said):
        load(config, image=SPEC)


def test_a_model_of_one_modality_leaves_out_rows_without_it(config):
    image = load(config, of=("image",))
    assert set(image.present) == {"image"}
    assert "lack image, the first in set.csv line 3: they are left out" in " ".join(image.notes)
    assert image.splits == load(config, of=("text",)).splits == load(config).splits
    assert image.fingerprint == load(config).of_one("image").fingerprint


def test_numbers_are_missing_where_a_row_has_none_of_them(tmp_path):
    lines = ["text,label,split,age,site"]
    for row in range(12):
        split = ("train", "valid", "test")[row % 3]
        age, site = ("", "") if row == 6 else (("NaN", "A") if row == 7 else (str(row), "B"))
        lines.append(f"t,{'ab'[row // 6]},{split},{age},{site}")
    (tmp_path / "set.csv").write_text("\n".join(lines))
    table = {"image_column": "", "numbers": ("age",), "categories": ("site",)}
    records = read_manifest(tmp_path / "set.csv", keep_incomplete=True, **table)
    reader = TabularReader(("age",), ("site",))
    assert records.raw["tabular"][6:8] == [None, {"age": "", "site": "A"}]
    assert np.flatnonzero(~incomplete.presence(records, ["tabular"])["tabular"]).tolist() == [6]
    kept = reader.read(records, tmp_path)
    assert kept.values[6].tolist() == [0, 0]
    skipping = read_manifest(tmp_path / "set.csv", **table)
    assert skipping.raw["tabular"][6] == {"age": "", "site": ""}
    np.testing.assert_array_equal(reader.read(skipping, tmp_path).values, kept.values)


def test_classes_are_counted_over_the_rows_that_are_of_use(config):
    def change(row, cells):
        cells |= {"text": f"a {row}", "image": f"{row}.png"}
        if row % 2 and row < 14:
            cells["image"] = ""

    table(_words(config).with_name("data"), change)
    assert len(load(config)) == 20
    with pytest.raises(UsageError, match="got no train row of class b"):
        load(config, of=("image",))


def test_complete_data_are_as_they_were(config, tmp_path):
    table(_words(config).with_name("data"), lambda row, c: c.update(text="a", image=f"{row}.png"))
    before = load(config, keep=False)
    fingerprint = before.fingerprint
    cached = sorted((tmp_path / "cache").glob("*.npy"))
    after = load(config)
    assert after.present == {}
    assert (after.fingerprint, after.notes) == (fingerprint, before.notes)
    assert sorted((tmp_path / "cache").glob("*.npy")) == cached


def test_the_fingerprint_tells_a_black_image_from_none(config):
    folder = _words(config).with_name("data")
    lacking = load(config).fingerprint
    Image.new("RGB", (9, 9)).save(folder / "black.png")

    def change(row, cells):
        if row in NO_IMAGE:
            cells["image"] = "black.png"

    table(folder, change)
    black = load(config)
    assert not black.inputs["image"][list(NO_IMAGE)].any()
    assert black.fingerprint != lacking


def test_rows_of_the_first_few_are_of_every_kind(config):
    dataset = load(config)
    order = incomplete.each_kind_first(np.arange(3, 20), dataset)
    assert order[:3].tolist() == [3, 4, 18]
    assert sorted(order) == list(range(3, 20))
    whole = np.array([3, 5, 6, 7])
    assert incomplete.each_kind_first(whole, dataset).tolist() == whole.tolist()


# ---- In training ---------------------------------------------------------------------------


def test_what_a_row_lacks_is_not_withheld_further_and_its_place_is_taken():
    count = 600
    rng = np.random.default_rng(0)
    text, image = np.ones((2, count, 1), np.float32)
    image[: count // 2] = 0
    text[-100:] = 0
    pixels = np.zeros((count, 4, 4, 3), np.uint8)
    pixels[count // 2 :] = rng.integers(50, 60, (count // 2, 4, 4, 3))
    batch = {
        "label": np.arange(count) % 2,
        "token_ids": np.ones((count, 4), np.int32),
        "image": pixels.copy(),
        "present_text": text.copy(),
        "present_image": image.copy(),
    }
    still = {"flip": False, "shift": 0, "scale": (1, 1), "rotate": 0, "brightness": 0}
    spec = AugmentSpec(**still, contrast=0, saturation=0, drop_text=0.4, drop_image=0.4, mixup=0.3)
    augmentation(spec, 2, {})(batch, rng)
    there = np.hstack([batch["present_text"], batch["present_image"]])
    assert (there.sum(axis=1) >= 1).all()
    # Rows that came without an image keep their sentence, those without a sentence their image.
    assert there[: count // 2].tolist() == [[1, 0]] * (count // 2)
    assert there[-100:].tolist() == [[0, 1]] * 100
    complete = there[count // 2 : -100]
    assert (complete == 0).mean(axis=0) == pytest.approx([0.4, 0.4], abs=0.08)
    # No black image reaches a backbone.
    assert batch["image"].min() >= 50
    # Mixed are images that stand alone, the labels of others are whole.
    whole = np.isin(batch["label"], (0, 1)).all(axis=1)
    assert whole[there[:, 0] == 1].all()
    assert not whole[there[:, 0] == 0].all()


def test_nothing_is_withheld_of_a_row_that_teachers_alone_answer():
    """It is put together of several: without its sentence its answer would be of nothing."""
    by_label_and_teacher = np.full((200, 2, 2), 0.25, np.float32)
    by_label_and_teacher[:100, 0] = 0
    batch = {
        "label": by_label_and_teacher,
        "token_ids": np.ones((200, 4), np.int32),
        "image": np.full((200, 4, 4, 3), 50, np.uint8),
        "present_text": np.ones((200, 1), np.float32),
        "present_image": np.ones((200, 1), np.float32),
    }
    spec = AugmentSpec(drop_text=0.5)
    augmentation(spec, 2, {})(batch, np.random.default_rng(0))
    assert batch["present_text"][:100].all()
    assert batch["present_text"][100:].mean() == pytest.approx(0.5, abs=0.15)


def test_settings_that_cannot_be_are_refused(tmp_path):
    bench = tiny.Bench(tmp_path)
    with pytest.raises(UsageError, match="is 'most'; one of auto, skip, keep is wanted"):
        make_plan(bench.config(data__incomplete="most"))
    with pytest.raises(UsageError, match=r"nothing to put in the place .*config.fusion.stand_ins"):
        make_plan(bench.config(variant="inter", data__incomplete="keep"))
    with pytest.raises(UsageError, match="the source demo reads no such setting"):
        make_plan(bench.config(data__source="demo", data__path="", data__incomplete="keep"))


def _holes(bench, every=3):
    """A table beside the whole one: one in three rows without an image, one in eight a text."""

    def change(lines):
        for row, line in enumerate(lines):
            if row % every == 0:
                line[1] = ""
            elif row % 8 == 1:
                line[0] = ""

    return tiny.write_manifest(bench.folder / "data", change=change, name="holes.csv")


WITHHELD = {
    "fusion__stand_ins": True,
    "augment__enabled": True,
    "augment__drop_text": 0.2,
    "augment__drop_image": 0.2,
}


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory):
    bench = tiny.beside(tmp_path_factory.mktemp("incomplete"))
    _holes(bench)
    return bench


@pytest.fixture(scope="module")
def run(bench):
    data = {"data__path": bench.folder / "data" / "holes.csv"}
    return train(bench.config(variant="inter", **data, **WITHHELD), bench.folder / "inter")


def test_a_run_is_told_what_is_there_and_measured_for_each_kind(run):
    task = restore(run.folder)
    lines = tiny.table(run, "splits.csv")
    for modality in ("text", "image"):
        told = task.arrays[f"present_{modality}"][:, 0].tolist()
        assert told == [float(bool(line[modality])) for line in lines]
        assert 0 in told
    described = json.loads((run.folder / "config.json").read_text())["dataset"]
    assert described["lacking"]["image"]["test"] == sum(
        not line["image"] for line in lines if line["split"] == "test"
    )
    assert sum(described["counts"].values()) == 72
    scored = json.loads((run.folder / "metrics.json").read_text())["splits"]["test"]
    right = {"complete": [], "without image": [], "without text": []}
    predicted = {
        line["id"]: line["predicted"] == line["target"]
        for line in tiny.table(run, "predictions.csv")
    }
    for line in (line for line in lines if line["split"] == "test"):
        kind = next((f"without {m}" for m in ("image", "text") if not line[m]), "complete")
        right[kind].append(predicted[line["id"]])
    assert all(right.values())
    assert set(scored["patterns"]) == set(right)
    for kind, answers in right.items():
        of_kind = scored["patterns"][kind]
        assert of_kind["count"] == len(answers)
        assert of_kind["metrics"]["accuracy"]["value"] == pytest.approx(np.mean(answers))
    assert scored["count"] == sum(map(len, right.values()))


def test_the_closing_report_has_a_line_for_each_kind(run):
    (found,) = [
        part for part in closing(run) if getattr(part, "title", "") == "accuracy by what rows lack"
    ]
    kinds = list(found.columns[0].cells)
    assert kinds == ["complete", "without image", "without text"]
    assert "n = " in next(iter(found.columns[2].cells))


def test_golden_rows_are_of_every_kind(run):
    with np.load(run.folder / "golden.npz") as golden:
        there = np.hstack([golden["input_present_text"], golden["input_present_image"]])
    assert {tuple(row) for row in there} == {(1, 1), (1, 0), (0, 1)}


def test_a_run_of_before_reads_its_rows_as_it_did(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    described = json.loads(path.read_text())
    assert config_of(tmp_path / "run").data.incomplete == "auto"
    del described["config"]["data"]["incomplete"]
    path.write_text(json.dumps(described))
    assert config_of(tmp_path / "run").data.incomplete == "skip"


def test_a_parent_that_would_see_one_class_alone_is_refused(bench):
    def change(lines):
        for line in lines:
            if line[2] == "positive" and line[3] == "train":
                line[1] = ""

    path = tiny.write_manifest(bench.folder / "data", change=change, name="one.csv")
    config = bench.config(variant="late", data__path=path, **WITHHELD)
    with pytest.raises(UsageError, match=r"20 of 72 rows have no image; of the others: .*positive"):
        make_plan(config)


def test_parents_and_their_head_divide_the_same_rows(bench):
    changes = {"data__path": bench.folder / "data" / "holes.csv", "parent__share": 0.5}
    plan = make_plan(bench.config(variant="late", **changes, **WITHHELD))
    dataset = plan.architecture.data(plan.config)
    learned = {}
    for modality, parent in plan.parents.items():
        assert parent.config.data.incomplete == "keep"
        task = prepare(parent, dataset.of_one(modality))
        learned[modality] = set(task.rows["train"])
        assert dataset.has(modality)[task.rows["train"]].all()
        assert parent.architecture.data(parent.config).fingerprint == task.dataset.fingerprint
    head = set(prepare(plan, dataset).rows["train"])
    assert not head & (learned["text"] | learned["image"])
    train_rows = set(dataset.rows("train"))
    assert head | learned["text"] | learned["image"] == train_rows


def test_stand_ins_that_no_row_would_teach_are_refused(bench):
    changes = {"data__incomplete": "keep", "augment__enabled": True, "fusion__stand_ins": True}
    changes |= {"augment__drop_text": 0.0, "augment__drop_image": 0.0}
    with pytest.raises(UsageError, match=r"no row of .* lacks a modality and none is withheld"):
        prepare(make_plan(bench.config(variant="inter", **changes)))
    path = bench.folder / "data" / "holes.csv"
    prepare(make_plan(bench.config(variant="inter", data__path=path, **changes)))


# ---- To the device -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def late(bench):
    """Two parents trained on the way, each on the rows that it can read, and their head."""
    data = {"data__path": bench.folder / "data" / "holes.csv"}
    return train(bench.config(variant="late", **data, **WITHHELD), bench.folder / "late")


@pytest.fixture(scope="module")
def artifact(entries, late):
    out = late.folder.with_name("artifact")
    flags = ("--buckets=6", "--precisions=fp16,int8,int8_static")
    done = entries.run("export", str(late.folder), f"--out={out}", *flags)
    assert done.returncode == 0, done.stderr
    return out


def test_what_rows_of_training_lack_may_be_missing_on_the_device(tiny_run):
    described = json.loads((tiny_run / "config.json").read_text())
    described["config"]["augment"] |= {"drop_text": 0.0, "drop_image": 0.0, "enabled": True}
    assert may_lack(described) == []
    described["dataset"]["lacking"] = {"image": {"train": 3}, "text": {"train": 0, "test": 4}}
    assert may_lack(described) == ["image"]
    del described["dataset"]["lacking"]  # of a run of before
    assert may_lack(described) == []
    described["config"]["augment"]["drop_image"] = 0.3
    assert may_lack(described) == ["image"]
    # A frozen head learns from whole examples, unless it has stand-ins.
    described["spec"] |= {"frozen": True, "stand_ins": False}
    assert may_lack(described) == []
    described["spec"]["stand_ins"] = True
    assert may_lack(described) == ["image"]


@pytest.mark.slow
def test_parents_of_incomplete_rows_are_runs_of_their_own(late):
    for modality in ("text", "image"):
        parent = restore(late.folder / "parents" / modality)
        assert parent.dataset.has(modality)[np.concatenate(list(parent.rows.values()))].all()
        described = json.loads((late.folder / "parents" / modality / "config.json").read_text())
        assert described["dataset"]["lacking"] == {modality: {"train": 0, "valid": 0, "test": 0}}


@pytest.mark.slow
def test_an_export_is_held_to_rows_of_every_kind_and_measured(entries, late, artifact, tmp_path):
    meta = read(artifact)
    assert meta["may_lack"] == ["token_ids", "image"]
    task = restore(late.folder)
    for arrays in (golden(artifact)[0], queries(artifact)):
        there = np.hstack([arrays["present_text"], arrays["present_image"]])
        assert {tuple(row) for row in there} == {(1, 1), (1, 0), (0, 1)}
        # What the model does not hear of is no black image, of which int8 would take its scales.
        assert arrays["image"].any(axis=(1, 2, 3)).all()
    test = task.rows["test"]
    rows = {x.name: np.asarray(task.arrays[x.name][test]) for x in task.graph.model.inputs}
    wanted = predict(task.graph.model, task.arrays, test)["logits"]
    found = run_onnx(artifact / "model.onnx", rows)["logits"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    # Examples as they came are complete ones, so that they stand side by side.
    texts = json.loads((artifact / "queries" / "texts.json").read_text())
    assert all(texts)
    assert len(texts) == len(list((artifact / "queries").glob("*.png")))
    out = tmp_path / "results.json"
    done = entries.run("bench", artifact, f"--out={out}", "--precisions=all")
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(out.read_text())["contenders"]
    assert len(measured) == len(meta["models"])
    alone = Predictor(artifact).predict(text="a lovely day")
    assert sum(alone.probabilities.values()) == pytest.approx(1)


@pytest.mark.slow
def test_what_is_left_out_of_an_export_leaves_rows_that_have_the_other(entries, late, tmp_path):
    out = tmp_path / "no_image"
    done = entries.run(
        "export", str(late.folder), f"--out={out}", "--precisions=", "--without=image"
    )
    assert done.returncode == 0, done.stderr
    task = restore(late.folder)
    with_text = [i for i, row in enumerate(task.rows["test"]) if task.dataset.has("text")[row]]
    with (out / "test.csv").open() as file:
        ids = [line["id"] for line in csv.DictReader(file)]
    assert ids == [task.dataset.ids[task.rows["test"][i]] for i in with_text]


@pytest.mark.slow
def test_studies_of_incomplete_rows_keep_what_is_missing_missing(late):
    task = restore(late.folder)
    answers = reliance.correct_when_shuffled(task, "test", 5, 0)
    for modality in ("image", "text"):
        lacking = ~task.dataset.has(modality)[task.rows["test"]]
        assert lacking.any()
        np.testing.assert_array_equal(
            answers[modality][:, lacking], np.repeat(answers[""][:, lacking], 5, axis=0)
        )
    (contender,) = robustness([late.folder], [], [], "test")
    rows = contender.rows
    told = cells.damaged(rows, "image_missing", 0.5, seed=0, repeat=0)["present_image"]
    assert (told <= rows.inputs["present_image"]).all()
    assert told.sum() < rows.inputs["present_image"].sum()
    typed = cells.damaged(rows, "text_typing", 0.3, seed=0, repeat=0)["token_ids"]
    lacking = rows.inputs["present_text"][:, 0] == 0
    np.testing.assert_array_equal(typed[lacking], rows.inputs["token_ids"][lacking])


@pytest.mark.slow
def test_pytorch_learns_from_the_same_rows(bench, late):
    pytorch = pytest.importorskip("fusion_keras.reference.learn").PYTORCH
    data = {"data__path": bench.folder / "data" / "holes.csv"}
    config = bench.config(variant="late", **data, **WITHHELD)
    other = train(config, bench.folder / "pytorch", pytorch)
    counts = [
        {
            k: v["count"]
            for k, v in json.loads((r.folder / "metrics.json").read_text())["splits"]["test"][
                "patterns"
            ].items()
        }
        for r in (late, other)
    ]
    assert counts[0] == counts[1]
