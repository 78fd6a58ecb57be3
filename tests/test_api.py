"""The Python of training and of export: what a notebook asks for, and what it is told."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from bench.api import BenchError, Predictor, Results, measure, report
from export.api import Artifact
from fusion_keras.api import Metric, Run, UsageError, configure, train
from fusion_keras.config import get_config
from fusion_keras.training.run import as_json


def rows_of(run: Run, split: str) -> tuple[list[dict], list[dict[str, str]]]:
    """The examples of a split as they stand in the table, and what the training said of them."""
    with (run.folder / "predictions.csv").open(newline="") as file:
        told = [line for line in csv.DictReader(file) if line["split"] == split]
    path = run.config.data.path
    with open(path, newline="") as file:
        table = {line["id"]: line for line in csv.DictReader(file)}
    folder = run.folder.__class__(path).parent
    rows = [table[line["id"]] for line in told]
    return [{"text": r["text"], "image": folder / r["image"]} for r in rows], told


def probabilities(predictions) -> np.ndarray:
    return np.array([list(p.probabilities.values()) for p in predictions])


# --- Settings ---------------------------------------------------------------------------------


def test_settings_are_those_of_the_flags(tmp_path):
    made = configure(
        {"variant": "early", "data.path": tmp_path / "a.csv", "teacher": [tmp_path / "late"]}
    )

    assert made.variant == "early"
    assert made.data.path == str(tmp_path / "a.csv")
    assert made.teacher.runs == (str(tmp_path / "late"),)
    assert as_json(configure()) == as_json(get_config())


def test_an_experiment_file_is_where_settings_begin(tmp_path):
    made = configure({"train.epochs": 3}, config="configs/small.py")

    assert (made.name, made.train.epochs) == ("small", 3)


def test_a_config_that_is_given_is_left_as_it_was():
    given = configure({"variant": "late"})

    assert configure({"variant": "text"}, config=given).variant == "text"
    assert given.variant == "late"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train.epoch": 3}, r"'train.epoch' is no setting. Is it train.epochs"),
        ({"train.epochs": "three"}, "got 'three' for train.epochs, wanted a whole number"),
    ],
)
def test_a_setting_that_cannot_be_is_named(changes, said):
    with pytest.raises(UsageError, match=said):
        configure(changes)


def test_a_file_that_is_no_experiment_is_named(tmp_path):
    (tmp_path / "empty.py").write_text("")

    for name in ("empty.py", "missing.py"):
        with pytest.raises(UsageError, match=f"{name} is no experiment"):
            configure(config=tmp_path / name)


# --- Runs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tiny_run) -> Run:
    return Run.load(tiny_run)


def test_training_gives_the_run_of_the_command(tiny, entries, tmp_path):
    run = train(tiny.config(variant="text"), out=tmp_path / "here")
    done = entries.run("fusion_keras.train", *tiny.flags(run=tmp_path / "there"))
    assert done.returncode == 0, done.stderr

    assert run.folder == tmp_path / "here"
    losses = [[e["loss"] for e in Run.load(tmp_path / n).history] for n in ("here", "there")]
    assert losses[0] == losses[1]
    assert run.metrics == Run.load(tmp_path / "there").metrics
    # A finished one is left alone.
    assert train(tiny.config(variant="text"), out=tmp_path / "here") == run


def test_training_prints_nothing(tiny, tmp_path, capfd):
    train(tiny.config(variant="image", train__epochs=1), out=tmp_path / "image")

    printed = capfd.readouterr()
    assert printed.out == ""
    assert "epoch" not in printed.err


def test_a_run_says_what_it_is(run, tiny_run):
    said = json.loads((tiny_run / "config.json").read_text())

    assert (run.variant, run.seed, run.classes) == ("inter", 0, tuple(said["classes"]))
    assert run.parameters == run.model.count_params() == said["parameters"]
    assert [j.depths for j in run.spec.junctions] == [
        {"text": 1, "image": 1},
        {"text": 2, "image": 2},
    ]
    assert run.config.augment.drop_text == 0.2
    assert [line["epoch"] for line in run.history] == [1, 2]


def test_what_cannot_be_loaded_is_named(tmp_path):
    for kind, said in ((Run, "is not a finished run"), (Artifact, "is no artifact, it has no")):
        with pytest.raises(UsageError, match=said):
            kind.load(tmp_path)


def test_a_run_asked_anew_has_the_metrics_that_training_wrote(run):
    found = run.evaluate("test")

    assert found.keys() == run.metrics["test"].keys()
    for name, metric in run.metrics["test"].items():
        assert isinstance(metric, Metric)
        assert found[name].value == pytest.approx(metric.value, abs=1e-5, nan_ok=True)
    with pytest.raises(UsageError, match="got the split 'dev', wanted one of train, valid, test"):
        run.evaluate("dev")


def test_an_example_is_answered_as_a_row_of_the_data(run):
    rows, told = rows_of(run, "test")

    found = run.predict(rows)

    wanted = [[float(line[f"p_{name}"]) for name in run.classes] for line in told]
    np.testing.assert_allclose(probabilities(found), wanted, atol=1e-5)
    assert [p.label for p in found] == [line["predicted"] for line in told]


def test_an_image_may_be_a_file_its_bytes_pillows_or_pixels(run):
    ((row, *_), _) = rows_of(run, "test")
    with Image.open(row["image"]) as image:
        pixels = np.asarray(image.convert("RGB"))
        content = row["image"].read_bytes()

        forms = (row["image"], content, bytearray(content), image, pixels)
        found = run.predict([row | {"image": form} for form in forms])

    assert found[0] == found[1] == found[2] == found[3]
    np.testing.assert_allclose(*probabilities(found[3:]), atol=1e-6)


def test_what_is_left_out_is_missing_where_the_run_has_learned_that(run, tiny, tmp_path):
    ((row, *_), _) = rows_of(run, "test")

    found = run.predict([row, {"text": row["text"]}, {"image": row["image"]}])

    assert len({p.probabilities["positive"] for p in found}) == 3
    with pytest.raises(UsageError, match="row 1 has none of text, image"):
        run.predict([row, {}])
    text = train(tiny.config(variant="text"), out=tmp_path / "text")
    with pytest.raises(UsageError, match="row 0 has none of text"):
        text.predict([{"image": row["image"]}])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"picture": "a.png"}, "row 0 has 'picture', which is no modality"),
        ({"image": b"no image"}, "the image of row 0 cannot be read: not an image"),
        ({"image": "lost.png"}, "the image of row 0 cannot be read: no such file"),
        ({"image": np.zeros((4, 4), np.uint8)}, r"got uint8 \[4, 4\], wanted uint8 \[H, W, 3\]"),
        ({"text": 5}, "the text of row 0 cannot be read: got int, wanted a sentence"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(change, said, run):
    ((row, *_), _) = rows_of(run, "test")

    with pytest.raises(UsageError, match=said):
        run.predict([row | change])


def test_no_rows_have_no_answers(run):
    assert run.predict([]) == []


# --- Artifacts --------------------------------------------------------------------------------


def test_an_artifact_says_what_it_is(tiny_artifact, run):
    artifact = Artifact.load(tiny_artifact)

    assert artifact.variant == "inter"
    assert artifact.classes == run.classes
    assert list(artifact.models) == ["fp32", "fp16", "int8", "int8_static"]
    plain = artifact.models["fp32"]
    assert plain.file.is_file()
    assert plain.accuracy == pytest.approx(run.metrics["test"]["accuracy"].value)
    assert plain.change == 0


def test_an_artifact_answers_as_its_run(tiny_artifact, run):
    ((row, *_), _) = rows_of(run, "test")
    examples = [row, {"text": row["text"]}, {"image": row["image"]}]

    predictor = Predictor(tiny_artifact)
    answers = [predictor.predict(**example) for example in examples]

    np.testing.assert_allclose(
        probabilities(answers), probabilities(run.predict(examples)), atol=1e-4
    )


def test_what_is_measured_stands_in_the_results(tiny_artifact, tmp_path):
    said = []

    results = measure([tiny_artifact], tmp_path / "r.json", precisions=["all"], say=said.append)

    assert [t.name for t in results.timings] == [
        f"artifact {precision}" for precision in ("fp32", "fp16", "int8", "int8_static")
    ]
    for timing in results.timings:
        assert not timing.error
        assert 0 < timing.p50_interval[0] <= timing.p50 <= timing.p50_interval[1]
        assert timing.count >= 64
    assert len(results.ratios) == 6
    assert Results.load(results).timings == results.timings
    assert any("loading" in line for line in said)

    made = report([results], tmp_path / "page", budget_ms=1000)

    assert made.page.is_file()
    assert any("artifact" in line or "inter" in line for line in made.answer)


def test_what_the_bench_cannot_take_is_an_error(tmp_path, tiny_artifact):
    for call in (
        lambda: measure([tmp_path]),
        lambda: measure([tiny_artifact], runners=["fast"]),
        lambda: Results.load(tmp_path / "lost.json"),
        lambda: report([tmp_path / "lost.json"]),
    ):
        with pytest.raises(BenchError):
            call()
