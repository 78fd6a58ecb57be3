"""Several labels a row, from a table to a device: what is learned, said, exported and answered."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.edge import predictor as bench_predictor
from bench.edge.artifact import described, read
from bench.edge.outputs import sigmoid
from bench.edge.predict import main as ask
from bench.report.front import majority
from export import ladder, stages
from fusion_keras.data.augment import AugmentSpec
from fusion_keras.errors import UsageError
from fusion_keras.label_sums import THRESHOLD
from fusion_keras.modalities.augmentation import augmentation
from fusion_keras.reference.learn import PYTORCH
from fusion_keras.studies import reliance
from fusion_keras.studies.robustness.load import load
from fusion_keras.training.evaluate import probabilities, right
from fusion_keras.training.experiment import train
from fusion_keras.training.losses import losses_of
from fusion_keras.training.plan import make_plan
from fusion_keras.training.porting import from_classifier
from fusion_keras.training.restored import restore
from fusion_keras.training.run import Run
from fusion_keras.training.sweeping import Member, Sweep
from tests.support.shared import once
from tests.support.tiny import Bench, rows, table

# The sentence tells one label, the picture the other, and neither anything of the other's.
LABELS = ("bright", "glad")


@pytest.fixture(scope="module")
def bench(shared_folder) -> Bench:
    """A manifest whose rows are glad, bright, both or neither."""

    def make(folder: Path) -> None:
        Bench.make(folder)
        with (folder / "data" / "labels.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "image", "label", "split", "id"])
            for row, (text, _, kind, split, name, *_) in enumerate(rows()):
                # Odd pictures are bright ones, odd sentences glad ones.
                bright = row // 2 % 2
                told = {"bright": bright, "glad": kind == "positive"}
                cell = ";".join(label for label in ("glad", "bright") if told[label])
                writer.writerow([text, f"{row // 2 * 2 % 72 + bright}.png", cell, split, name])

    return Bench(once(shared_folder / "multi", make))


def settings(bench: Bench, **changes) -> dict:
    named = {"data__path": bench.folder / "data" / "labels.csv", "data__label_kind": "multi"}
    named |= {"fusion__junctions": "2+2:concat", "variant": "inter"}
    return {**named, **changes}


@pytest.fixture(scope="module")
def run(bench, entries) -> Path:
    def make(folder: Path) -> None:
        rates = {"train__learning_rate": 1e-2, "train__text_rate": 1e-2, "train__image_rate": 1e-2}
        changes = settings(bench, run=folder, train__epochs=10, **rates)
        done = entries.run(
            "fusion_keras.train", *bench.flags(**changes), environment={"COLUMNS": "120"}
        )
        assert done.returncode == 0, done.stderr
        (folder / "printed.txt").write_text(done.stdout)

    return once(bench.folder / "runs" / "inter", make)


def test_both_labels_are_learned_each_for_itself(run):
    results = json.loads((run / "metrics.json").read_text())["splits"]
    for scored in results.values():
        assert scored["metrics"]["accuracy"]["value"] > 0.9
        assert scored["metrics"]["majority"]["value"] == 0.25
        assert scored["threshold"] == THRESHOLD
        assert list(scored["labels"]) == list(LABELS)
        for of_one in scored["labels"].values():
            assert of_one["count"] == 8
            assert np.sum(of_one["confusion"], axis=1).tolist() == [8, 8]
            assert of_one["metrics"]["f1"]["value"] > 0.9
    described = json.loads((run / "config.json").read_text())
    assert (described["label_kind"], described["classes"]) == ("multi", list(LABELS))
    note = described["dataset"]["notes"][0]
    assert "the label cell of 18 rows is empty or a missing value (the first in line 2)" in note


def test_what_is_predicted_stands_in_the_run_and_on_the_screen(run):
    answers = {line["id"]: line for line in table(Run(run), "predictions.csv")}
    # Row 7 of each nine groups of four is a test row; the two labels go through all four pairs.
    targets = [json.loads(answers[f"r{row}"]["target"]) for row in (28, 29, 30, 31)]
    assert targets == [[], ["glad"], ["bright"], ["bright", "glad"]]
    for line in answers.values():
        probs = {label: float(line[f"p_{label}"]) for label in LABELS}
        assert json.loads(line["predicted"]) == [n for n, p in probs.items() if p > THRESHOLD]
    printed = (run / "printed.txt").read_text()
    assert "subset accuracy" in printed
    assert "most frequent set of labels" in printed
    assert "a label is given where its probability is above 0.5" in printed
    assert "valid_macro_ap" in (run / "history.csv").read_text().splitlines()[0]


def test_shuffling_the_sentences_costs_one_label(run):
    task = restore(run)
    found = reliance.correct_when_shuffled(task, "test", repeats=20, seed=0)
    assert found[""].mean() > 0.9
    # The other label is still right: half of the rows keep theirs by chance.
    for modality in ("text", "image"):
        assert 0.3 < found[modality].mean() < 0.75
    assert (
        "subset accuracy"
        in reliance.report(reliance.measure([run], "test", 2, 0), [run], "test", 2)[0]
        .columns[1]
        .header
    )


@pytest.fixture(scope="module")
def artifact(run, entries) -> Path:
    def make(folder: Path) -> None:
        flags = (str(run), f"--out={folder}", "--precisions=fp16,int8", "--buckets=6")
        done = entries.run("export", *flags)
        assert done.returncode == 0, done.stderr
        assert "subset accuracy on test" in done.stdout

    return once(run.parent / "artifact", make)


@pytest.mark.slow
def test_an_artifact_answers_each_label_as_the_run_did(run, artifact, bench, capsys):
    meta = read(artifact)
    assert (meta["label_kind"], meta["threshold"], meta["classes"]) == ("multi", 0.5, list(LABELS))
    rung = next(rung for rung in meta["ladder"] if rung["name"] == "int8")
    assert (rung["rows"], rung["decisions"], rung["may_flip"]) == (16, 32, 2)
    trained = json.loads((run / "metrics.json").read_text())["splits"]["test"]["metrics"]
    for name in ("accuracy", "macro_f1", "macro_auroc", "nll"):
        found = meta["models"]["fp32"]["metrics"][name]
        assert found == pytest.approx(trained[name]["value"], abs=1e-4)
    with (bench.folder / "data" / "labels.csv").open(newline="") as file:
        lines = {line["id"]: line for line in csv.DictReader(file)}
    predictor = bench_predictor.Predictor(artifact)
    for answer in table(Run(run), "predictions.csv")[:4]:
        line = lines[answer["id"]]
        given = {"text": line["text"], "image": bench.folder / "data" / line["image"]}
        found = predictor.predict(**given)
        assert list(found.labels) == json.loads(answer["predicted"])
        for name, share in found.probabilities.items():
            assert share == pytest.approx(float(answer[f"p_{name}"]), abs=1e-4)
        flags = ["--text", given["text"], f"--image={given['image']}", "--precision=int8"]
        assert ask([str(artifact), *flags]) == 0
        first, *shares = capsys.readouterr().out.splitlines()
        assert first == (", ".join(found.labels) or "(no label)")
        assert [share.split("%")[1].strip() for share in shares[:2]] == list(LABELS)


@pytest.mark.slow
def test_a_report_counts_rows_whose_every_label_is_right(artifact):
    about = described(artifact, read(artifact))
    right_ones = np.array(about["test"]["predicted"]["int8"]) == about["test"]["labels"]
    assert right_ones.mean() == about["models"]["int8"]["accuracy"]
    assert about["test"]["labels"][:4] == ["", "1", "0", "0 1"]
    assert majority(about) == ("no label", 0.25)


# --- Parts --------------------------------------------------------------------------------------

LOGITS = np.array([[2.0, -1.0, 0.0], [-3.0, 0.5, 1.0]], np.float32)
TRUTH = np.array([[1, 0, 0], [0, 1, 0]], np.uint8)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_pytorchs(smoothing):
    import keras

    class Settings:
        label_smoothing, score_loss = smoothing, 1.0

    out = keras.Input((3,), name="logits")
    model = keras.Model(out, {"logits": out})
    loss = losses_of(model, Settings, "multi")["loss"]["logits"](TRUTH, LOGITS)
    shares = torch.tensor(TRUTH, dtype=torch.float32) * (1 - smoothing) + smoothing / 2
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor(LOGITS), shares)
    assert float(np.mean(loss)) == pytest.approx(wanted.item(), rel=1e-6)


def test_probabilities_and_what_is_right():
    found = probabilities(LOGITS, "multi")
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-LOGITS.astype(float))))
    np.testing.assert_array_equal(found, sigmoid(LOGITS))
    extreme = np.array([[-1000.0, 1000.0]])
    assert probabilities(extreme, "multi").tolist() == [[0.0, 1.0]]
    # A half is not given; the second row is given one label too many.
    assert right(LOGITS, TRUTH).tolist() == [True, False]


def test_mixup_mixes_labels_as_they_are():
    batch = {
        "image": np.zeros((4, 8, 8, 3), np.uint8),
        "label": np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0]], np.uint8),
    }
    before = batch["label"].astype(np.float32)
    augmentation(AugmentSpec(mixup=0.3), 2, {})(batch, np.random.default_rng(0))
    assert batch["label"].dtype == np.float32
    assert not np.array_equal(batch["label"], before)
    np.testing.assert_allclose(batch["label"].sum(0), before.sum(0), atol=1e-6)
    assert not batch["label"][:, 2].any()


def test_a_rung_counts_decisions():
    expected = np.array([[2.0, -2.0, 1e-5], [1.0, -1.0, 3.0]])
    logits = expected + np.array([[0, 0, -2e-5], [-1.1, 0, 0]])
    rung = ladder.compare("int8", logits, "fp32", expected, "int8", label_kind="multi")
    # What stands at a half is no flip.
    assert (rung.rows, rung.decisions, rung.flips, rung.may_flip) == (2, 6, 1, 1)
    assert stages.as_text(np.array([[1, 0, 1], [0, 0, 0]])).tolist() == ["0 2", ""]


def test_an_answer_is_every_label_above_the_threshold():
    meta = {"classes": ["a", "b", "c"], "label_kind": "multi", "threshold": 0.5}
    outputs = {"logits": LOGITS[:1]}
    found = bench_predictor._said(meta, outputs)
    assert found["labels"] == ("a",)
    assert list(found["probabilities"].values()) == list(sigmoid(LOGITS[0]))
    assert bench_predictor._said({**meta, "threshold": 0.2}, outputs)["labels"] == tuple("abc")
    # An artifact of before says nothing of its labels: one is right.
    one = bench_predictor._said({"classes": meta["classes"]}, outputs)
    assert one["labels"] == ("a",)
    assert sum(one["probabilities"].values()) == pytest.approx(1)


def test_the_most_frequent_set_of_labels_is_the_baseline():
    about = {"classes": ["a", "b", "c"], "test": {"labels": ["0 2", "", "1", "0 2"]}}
    assert majority({**about, "label_kind": "multi"}) == ("a + c", 0.5)
    # Of classes that are as frequent the first, as ever.
    assert majority({"classes": ["a", "b"], "test": {"labels": [1, 0, 1, 0]}}) == ("a", 0.5)


def test_a_sweep_says_which_accuracy_it_compares(tmp_path):
    metrics = {"accuracy": {"value": 0.5}, "hamming_loss": {"value": 0.1}}
    member = Member({}, "inter", "inter", tmp_path, "done", metrics=metrics)
    results = {"inter": {"runs": 1, "mean": 0.5, "spread": None, "difference": None}}
    progress, groups, *_ = Sweep([member], "inter", tmp_path, results).report()
    assert progress.columns[3].header == groups.columns[2].header == "test subset accuracy"


# --- Other ways to train, and what is refused ---------------------------------------------------


@pytest.mark.slow
def test_both_frameworks_learn_the_same(bench):
    plain = {"fusion__dropout": 0.0, "augment__mixup": 0.3, "train__label_smoothing": 0.1}
    plain |= {"variant": "image", "fusion__junctions": "", "train__learning_rate": 1e-2}
    config = bench.config(**settings(bench, **plain))
    runs = [
        train(config, bench.folder / "image-keras"),
        train(config, bench.folder / "image-pytorch", PYTORCH),
    ]
    losses = [[float(line["loss"]) for line in table(run, "history.csv")] for run in runs]
    np.testing.assert_allclose(*losses, rtol=1e-3)
    probs = [[float(r["p_bright"]) for r in table(run, "predictions.csv")] for run in runs]
    np.testing.assert_allclose(*probs, rtol=0, atol=5e-3)


@pytest.mark.slow
def test_late_fusion_takes_parents_of_several_labels_alone(bench):
    late = settings(bench, variant="late", fusion__junctions="", parent__epochs=2)
    run = train(bench.config(**late), bench.folder / "late")
    assert run.read_json("metrics.json")["splits"]["test"]["labels"].keys() == set(LABELS)
    single = bench.config(variant="text")
    parent = train(single, bench.folder / "single-text").folder
    late = {**late, "parents": (str(parent),), "variant": "early"}
    with pytest.raises(UsageError, match="label_kind was 'single', is 'multi'"):
        make_plan(bench.config(**late))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variant": "late_score", "fusion__junctions": ""}, "which late_score does not support"),
        ({"regression": True}, "which regression does not support"),
        ({"data__label_kind": "several"}, "single or multi is wanted"),
        (
            {"data__label_kind": "single", "data__label_separator": "|"},
            "label_separator is '|', and a row has a single label",
        ),
        (
            {"data__source": "demo", "data__path": "", "data__label_kind": "multi"},
            "the source demo reads no such setting",
        ),
    ],
)
def test_what_is_not_supported_is_a_sentence(bench, changes, said):
    with pytest.raises(UsageError) as refused:
        make_plan(bench.config(**settings(bench, **changes)))
    assert said in str(refused.value)


def test_studies_and_classifiers_refuse_it(run, bench, tmp_path):
    with pytest.raises(UsageError, match="which robustness does not support"):
        load([run], [], ["fp32"], "test")
    config = bench.config(**settings(bench, variant="text", fusion__junctions=""))
    with pytest.raises(UsageError, match="which classifier does not support"):
        from_classifier(config, tmp_path, tmp_path / "run")
