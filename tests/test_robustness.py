"""Robustness curves: the two numbers by hand, cells kept, runs and artifacts alike."""

import csv
import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bench.edge import artifact as bench_artifact
from bench.edge.artifact import FORMAT
from bench.report.__main__ import main as report
from fusion_keras.data.tokens import TextTokenizer, load_tokenizer
from fusion_keras.errors import UsageError
from fusion_keras.studies.robustness import cells, curves, load, models, study
from fusion_keras.studies.robustness.study import Options, measure
from fusion_keras.training import restored
from fusion_keras.training.experiment import train
from fusion_keras.training.run import read_json
from tests.support import tiny

N = 12
FEW = ("image_noise:0.1:1", "image_missing:1", "text_typing:0.3", "text_missing:1")
NAMES = tuple(text.split(":")[0] for text in FEW)


# ---- Numbers by hand -------------------------------------------------------------------------


def test_relative_robustness_is_the_area_by_trapezoids():
    # Two steps of a half: (1 + 0.5) / 2 / 2 + (0.5 + 0.5) / 2 / 2
    assert curves.relative_robustness([1, 0.5, 0.5]) == pytest.approx(0.625)
    # MultiBench's eleven levels: its step is 0.1.
    levels = np.array([0.9, 0.8, 0.8, 0.7, 0.6, 0.6, 0.6, 0.5, 0.5, 0.5, 0.5])
    by_hand = sum((a + b) * 0.1 / 2 for a, b in itertools.pairwise(levels))
    assert curves.relative_robustness(levels) == pytest.approx(by_hand)
    assert curves.relative_robustness([0.8, 0.8]) == pytest.approx(0.8)


def test_effective_robustness_is_against_the_reference_moved_to_the_same_start():
    # The reference starts 0.1 lower; moved up it is 0.9, 0.7, 0.6.
    found = curves.effective_robustness([0.9, 0.8, 0.55], [0.8, 0.6, 0.5])
    assert found == pytest.approx(0 + 0.1 - 0.05)
    same = [0.7, 0.1, 0.3]
    assert curves.effective_robustness(same, same) == 0


def model(path="a", variant="late", seed=0, precision="", family="f"):
    given = {"path": path, "variant": variant, "seed": seed, "precision": precision}
    return {**given, "family": family, "key": f"{path} {precision}"}


def test_seeds_share_a_name_and_what_differs_otherwise_does_not():
    models = [
        model("a", seed=0),
        model("b", seed=1),
        model("c", precision="int8", family="g"),
        model("d", "inter", family="h"),
        model("e", "inter", family="i"),
    ]
    names = curves.names_of(models)
    assert names == ["late", "late", "late int8", "inter (d)", "inter (e)"]


def test_curves_average_seeds_and_pair_rows():
    right = {
        ("a ", 0.0): [1, 1, 1, 1],
        ("b ", 0.0): [1, 1, 1, 0],
        ("a ", 0.5): [1, 1, 0, 0],
        ("b ", 0.5): [0.5, 1, 0, 0],
        ("c ", 0.0): [1, 1, 0, 0],
        ("c ", 0.5): [1, 1, 0, 0],
    }
    models = [model("a"), model("b", seed=1), model("c", "inter", family="g")]
    late, inter = curves.curves_of(
        models,
        {"text_typing": (0.5,)},
        lambda key, corruption, strength: np.array(right[key, strength], float),
        None,
        "late",
    )
    assert (late["seeds"], late["levels"]) == ([0, 1], ["clean", "50 %"])
    assert late["accuracy"] == pytest.approx([7 / 8, 3.5 / 8])
    assert late["drop"] == pytest.approx([0, 3.5 / 8])
    assert late["low"][1] < 3.5 / 8 < late["high"][1]
    assert late["relative"] == pytest.approx((7 / 8 + 3.5 / 8) / 2)
    assert (late["effective"], inter["effective"]) == (0, pytest.approx(3.5 / 8))
    # The same rows are right: nothing is lost in any resample.
    assert (inter["drop_low"][1], inter["drop_high"][1]) == (0, 0)


def test_one_group_alone_has_no_interval():
    (curve,) = curves.curves_of(
        [model()], {"text_typing": (0.5,)}, lambda *_: np.ones(3), ["g"] * 3, "late"
    )
    assert curve["low"] == curve["drop_high"] == [None, None]
    assert curve["accuracy"] == [1, 1]


# ---- The grid and its file -------------------------------------------------------------------


def rows(**changes) -> models.Rows:
    """Dark images are class 0; sentences of one tokenizer that knows [MASK]."""
    bright = np.arange(N) % 2
    plain = {
        "name": "made",
        "inputs": {"image": np.repeat(60 + 120 * bright, 48).reshape(N, 4, 4, 3).astype(np.uint8)},
        "texts": ["word"] * N,
        "labels": bright,
        "ids": [f"r{i}" for i in range(N)],
        "groups": None,
        "classes": ("dark", "bright"),
        "tokenizer": None,
    }
    return models.Rows(**{**plain, **changes})


class Brightness:
    """A model that is right about brightness, and counts how often it is asked."""

    def __init__(self, **changes):
        self.asked = []
        self.contender = models.Contender(
            **{"key": "k", "path": Path("r"), "variant": "image", "seed": 0, "precision": ""}
            | {"family": "f", "rows": rows(), "classes": self.classes, **changes}
        )

    def classes(self, changed):
        self.asked.append(changed)
        images = {**self.contender.rows.inputs, **changed}["image"]
        return (images.mean(axis=(1, 2, 3)) > 120).astype(int)


def filled(path, *brightness, grid=None, **changes):
    settings = {"split": "test", "seed": 0, "repeats": 2, **changes}
    contenders = [b.contender for b in brightness]
    store = cells.Store(path, contenders[0].rows, **settings)
    cells.fill(store, contenders, grid or {"image_missing": (1.0,)})
    return store.content["cells"]


def test_cells_count_the_draws_in_which_a_row_is_right(tmp_path):
    cells = filled(tmp_path / "r.json", Brightness())
    # Grey, 127, is called bright: every second row is right, in both draws.
    assert cells["k"] == {"clean": [1] * N, "image_missing 1.0": [0, 2] * (N // 2)}


def test_what_is_finished_is_not_computed_again(tmp_path):
    first, again = Brightness(), Brightness()
    before = filled(tmp_path / "r.json", first)
    assert len(first.asked) == 3  # clean, and two draws
    assert filled(tmp_path / "r.json", again) == before
    assert not again.asked
    filled(tmp_path / "r.json", again, grid={"image_missing": (0.5, 1.0)})
    assert len(again.asked) == 2


def test_equal_inputs_are_damaged_once_for_all_models(tmp_path):
    one, two = Brightness(), Brightness(key="l")
    filled(tmp_path / "r.json", one, two, grid={"image_noise": (1.0,)})
    for mine, other in zip(one.asked[1:], two.asked[1:], strict=True):
        assert mine["image"] is other["image"]


def test_a_stopped_measurement_leaves_whole_cells(tmp_path):
    class Stops(Brightness):
        def classes(self, changed):
            if len(self.asked) == 3:
                raise KeyboardInterrupt
            return super().classes(changed)

    path, grid = tmp_path / "r.json", {"image_missing": (0.5, 1.0)}
    with pytest.raises(KeyboardInterrupt):
        filled(path, Stops(), grid=grid)
    assert list(json.loads(path.read_text())["cells"]["k"]) == ["clean", "image_missing 0.5"]
    rest = Brightness()
    filled(path, rest, grid=grid)
    assert len(rest.asked) == 2


@pytest.mark.parametrize(
    ("change", "said"), [({"seed": 1}, "seed was 0, is 1"), (None, "holds no robust")]
)
def test_a_file_of_other_settings_or_no_such_file_is_left_alone(tmp_path, change, said):
    path = tmp_path / "r.json"
    filled(path, Brightness())
    if change is None:
        path.write_text(json.dumps({"format": "something else"}))
    before = path.read_text()
    with pytest.raises(UsageError, match=said):
        filled(path, Brightness(), **(change or {}))
    assert path.read_text() == before


def test_strengths_are_read_in_order():
    found = study.parse_strengths(["image_noise:1:0.1", "image_jpeg:70"])
    assert found == {"image_noise": (0.1, 1.0), "image_jpeg": (70.0,)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image_noise", "NAME:STRENGTH"),
        ("rain:1", "NAME of image_noise, "),
        ("image_noise:much", "numbers are wanted"),
        ("image_occlusion:2", "1 at most"),
    ],
)
def test_strengths_that_are_none_are_refused(text, said):
    with pytest.raises(UsageError, match=said):
        study.parse_strengths([text])


def test_only_what_the_models_can_suffer_is_measured():
    contender = Brightness().contender
    grid = study.grid_of((), {}, [contender])
    assert list(grid) == [n for n in study.CORRUPTIONS if n.startswith("image_")]
    with pytest.raises(UsageError, match="none of the models takes sentences"):
        study.grid_of(("text_typing",), {}, [contender])
    with pytest.raises(UsageError, match="which --corruptions leaves out"):
        study.grid_of(("image_blur",), {"image_noise": (1.0,)}, [contender])


@pytest.fixture
def tokenizer(tmp_path) -> TextTokenizer:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nab\n")
    return load_tokenizer(tmp_path)


def test_sentences_are_mistyped_before_and_masked_after_they_are_tokenised(tokenizer):
    ids = np.array([[2, 5, 6, 5, 3, 0, 0]] * N, np.int32)  # [CLS] a b a [SEP]
    made = rows(inputs={"token_ids": ids}, texts=["a b a"] * N, tokenizer=tokenizer)
    masked = cells.damaged(made, "text_masking", 1.0, 0, 0)["token_ids"]
    np.testing.assert_array_equal(masked[0], [2, 4, 4, 4, 3, 0, 0])
    typed = cells.damaged(made, "text_typing", 1.0, 0, 0)["token_ids"]
    assert typed.shape == ids.shape
    # Neighbours of a and b are not in this vocabulary, and what is left out is gone.
    assert set(typed.ravel()) <= {0, 1, 2, 3}
    contender = Brightness(rows=made).contender
    assert "text_masking" in study.grid_of((), {}, [contender])


# ---- Trained runs ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> tiny.Bench:
    return tiny.beside(tmp_path_factory.mktemp("robustness"))


@pytest.fixture(scope="module")
def early(bench) -> Path:
    """Trained with a rate at which two epochs are enough to tell dark from bright."""
    changes = {"fusion__junctions": "1+1:attention", "train__learning_rate": 1e-2}
    return train(bench.config(variant="early", **changes), bench.folder / "early").folder


@pytest.fixture(scope="module")
def text(bench) -> Path:
    return train(bench.config(), bench.folder / "text").folder


@pytest.fixture(scope="module")
def measured(early, text, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "robust.json"
    measure(Options((early, text), out, corruptions=NAMES, strengths=FEW, repeats=2))
    return out


def curve(content, name, corruption):
    (found,) = [c for c in content["curves"] if (c["name"], c["corruption"]) == (name, corruption)]
    return found


def test_a_kept_encoder_answers_as_the_whole_model(early):
    task = restored.restore(early)
    made = models.rows_of(task, "test")
    split = models.keras_classes(task, made)
    whole = models.keras_classes(task, made, room=0)
    grey = np.full_like(made.inputs["image"], 127)
    empty = np.zeros_like(made.inputs["token_ids"])
    empty[:, :2] = made.inputs["token_ids"][:, :1]
    answers = []
    for changed in ({}, {"image": grey}, {"token_ids": empty}, {}):
        answers.append(split(changed))
        np.testing.assert_array_equal(answers[-1], whole(changed))
    np.testing.assert_array_equal(answers[0], answers[3])
    assert not np.array_equal(answers[0], answers[1])


def test_a_curve_starts_at_the_accuracy_of_the_run(early, measured):
    content = read_json(measured)
    found = read_json(early / "metrics.json")["splits"]["test"]["metrics"]["accuracy"]["value"]
    for name in NAMES:
        assert curve(content, "early", name)["accuracy"][0] == pytest.approx(found)
    # It sees nothing but grey: one class for all of 8 and 8 rows, whatever it reads.
    missing = curve(content, "early", "image_missing")
    assert missing["accuracy"][1] < found - 0.2
    assert missing["drop_low"][1] <= missing["drop"][1] <= missing["drop_high"][1]
    assert missing["drop"][1] == pytest.approx(found - missing["accuracy"][1])


def test_a_model_loses_nothing_by_what_it_never_sees(measured):
    content = read_json(measured)
    noise = curve(content, "text", "image_noise")
    assert noise["drop"] == [0, 0, 0]
    assert noise["relative"] == pytest.approx(noise["accuracy"][0])
    # Nothing was run for it.
    (key,) = [m["key"] for m in content["models"] if m["variant"] == "text"]
    assert list(content["cells"][key]) == ["clean", "text_typing 0.3", "text_missing 1.0"]


def test_without_late_fusion_the_first_model_is_the_reference(measured):
    content = read_json(measured)
    assert content["reference"] == "early"
    assert {c["effective"] for c in content["curves"] if c["name"] == "early"} == {0}


def test_table_and_picture_lie_beside_the_file(measured):
    with measured.with_suffix(".csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    # Clean and the strengths, of two models.
    assert len(lines) == 2 * (3 + 2 + 2 + 2)
    noise = next(line for line in lines if line["level"] == "10 dB")
    assert (noise["model"], noise["strength"]) == ("early", "0.1")
    assert measured.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_gives_the_same_file_whatever_else_is_measured(early, measured, tmp_path):
    out = tmp_path / "alone.json"
    measure(Options((early,), out, corruptions=NAMES[:1], strengths=FEW[:1], repeats=2))
    alone, both = read_json(out), read_json(measured)
    (key,) = [m["key"] for m in alone["models"]]
    for cell, counts in alone["cells"][key].items():
        assert both["cells"][key][cell] == counts


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": ()}, "Give directories of finished runs"),
        ({"models": (Path("nowhere"),)}, "neither a finished run nor an artifact"),
        ({"corruptions": ("rain",)}, "Unknown corruption 'rain'"),
        ({"corruptions": ("text_masking",)}, "has no token for a masked word"),
        ({"reference": "late"}, "one of the curves is wanted: text"),
        ({"split": "dev"}, "one of train, valid, test"),
        ({"repeats": 0}, "at least 1"),
        ({"seed": -1}, "0 or more"),
        ({"out": Path("robust.csv")}, "ends in .json"),
    ],
)
def test_what_cannot_be_measured_is_said(text, tmp_path, change, said):
    options = Options((text,), tmp_path / "r.json", corruptions=("text_missing",), repeats=1)
    with pytest.raises(UsageError, match=said):
        measure(dataclasses.replace(options, **change))
    assert not list(tmp_path.iterdir())


def test_runs_of_other_settings_are_no_seeds_of_each_other(bench, text):
    again = train(bench.config(seed=1), bench.folder / "text-s1").folder
    longer = train(bench.config(train__epochs=1), bench.folder / "shorter-trained").folder
    families = [c.family for c in load.load([text, again, longer], (), (), "test")]
    assert families[0] == families[1] != families[2]


def test_models_of_unlike_rows_are_not_compared(bench, text):
    def shorter(lines):
        del lines[-1]

    path = tiny.write_manifest(bench.folder / "data", change=shorter, name="shorter.csv")
    other = train(bench.config(data__path=str(path)), bench.folder / "shorter").folder
    with pytest.raises(UsageError, match="have other test rows"):
        load.load([text, other], (), (), "test")


# ---- Artifacts -------------------------------------------------------------------------------


def test_an_artifact_is_measured_beside_its_run_and_int8_beside_float(
    tiny_run, tiny_artifact, tmp_path
):
    options = Options(
        (tiny_run, tiny_artifact),
        tmp_path / "r.json",
        precisions=("fp32", "int8"),
        corruptions=("image_missing", "text_missing"),
        strengths=("image_missing:1", "text_missing:1"),
        repeats=1,
    )
    content = measure(options)
    assert [m["precision"] for m in content["models"]] == ["", "fp32", "int8"]
    cells = [content["cells"][m["key"]] for m in content["models"]]
    assert cells[1] == cells[0]
    meta = read_json(tiny_artifact / "meta.json")
    assert np.mean(cells[2]["clean"]) == meta["models"]["int8"]["metrics"]["accuracy"]


def test_an_artifact_is_told_by_what_the_bench_knows_it_by(tiny_artifact, tiny_run):
    """The bench travels alone, so what a folder's description is called stands here and there."""
    assert FORMAT.startswith(f"{load._ARTIFACT} ")
    assert load._is(tiny_artifact)
    assert load._meta(tiny_artifact) == bench_artifact.read(tiny_artifact)
    assert not load._is(tiny_run)


def test_an_artifact_wants_its_own_run_whole_files_and_a_precision_it_has(
    tiny_run, tiny_artifact, text, tmp_path
):
    with pytest.raises(UsageError, match="--runs=RUN"):
        load.load([tiny_artifact], [text], ["fp32"], "test")
    with pytest.raises(UsageError, match="has no int4; it has fp32"):
        load.load([tiny_artifact], [tiny_run], ["int4"], "test")
    copy = tmp_path / "copy"
    shutil.copytree(tiny_artifact, copy)
    with (copy / "model.onnx").open("ab") as file:
        file.write(b"more")
    with pytest.raises(UsageError, match="not the file that was exported"):
        load.load([copy], [tiny_run], ["fp32"], "test")


# ---- The entry and the report ----------------------------------------------------------------


def test_a_precision_of_runs_is_refused(text, tmp_path):
    with pytest.raises(UsageError, match="--precisions is int8, and what was given are runs"):
        measure(Options((text,), tmp_path / "r.json", precisions=("int8",)))


def test_the_entry_takes_names_and_ends_with_a_sentence(entries, tmp_path):
    done = entries.run("fusion_keras.robustness", tmp_path, "--repeats=1")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == (
        f"error: {tmp_path} is neither a finished run nor an artifact: it has no model.keras that "
        "can be read, and no meta.json."
    )


def test_the_help_names_every_corruption(entries):
    done = entries.run("fusion_keras.robustness", "--help")
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in study.CORRUPTIONS)


def test_the_report_shows_curves_and_a_table(measured, tmp_path, capsys):
    assert report([str(measured), f"--out={tmp_path / 'r'}"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Robustness of early, text to image_noise, image_missing, ")
    text, page = (tmp_path / f"r.{end}" for end in ("md", "html"))
    lines = text.read_text().splitlines()
    assert sum(line.startswith("Chart in r.html: ") for line in lines) == len(NAMES)
    found = curve(read_json(measured), "early", "text_missing")
    (row,) = [line for line in lines if line.startswith("| early | 0 | text\\_missing")]
    assert f"{100 * found['accuracy'][1]:.1f}" in row
    assert f"{found['relative']:.3f}" in row
    assert "early" in page.read_text()


def test_the_report_refuses_a_measurement_that_was_not_ended(tmp_path, capsys):
    path = tmp_path / "r.json"
    filled(path, Brightness())
    assert report([str(path), f"--out={tmp_path / 'r'}"]) == 2
    said = capsys.readouterr().err
    assert "is not laid out as 'fusion_keras robustness 1'" in said
    assert "Traceback" not in said
