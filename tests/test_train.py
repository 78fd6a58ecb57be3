"""A training from config to complete run: what it leaves behind, and what settings change."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import keras
import numpy as np
import pytest

from fusion_keras.backbones.cut import cut
from fusion_keras.backbones.presets import load_text
from fusion_keras.errors import UsageError
from fusion_keras.renamed import RENAMED
from fusion_keras.terminal import print_results
from fusion_keras.training import loop, report
from fusion_keras.training.experiment import train
from fusion_keras.training.losses import losses_of
from fusion_keras.training.restored import config_of, load_model
from fusion_keras.training.run import Run
from tests.support import tiny
from tests.support.shared import slow_but
from tests.support.tiny import table

FILES = {
    "config.json",
    "golden.npz",
    "history.csv",
    "metrics.json",
    "model.keras",
    "predictions.csv",
    "splits.csv",
    "tensorboard",
    "tokenizer.json",
}

# Text alone, at the embeddings: compiled in a second, where the architecture does not matter.
SHALLOW = {"fusion__junctions": "0+-:concat"}


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> tiny.Bench:
    return tiny.beside(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def inter(bench) -> Run:
    """Two junctions, one of attention, with a head for scores; one layer of each backbone."""
    changes = {"fusion__junctions": "0+0:linear,1+1:attention", "regression": True}
    return train(bench.config(variant="inter", **changes), bench.folder / "inter")


@pytest.fixture(scope="module")
def shallow(bench) -> Run:
    return train(bench.config(**SHALLOW), bench.folder / "shallow")


def accuracy(run: Run, split: str) -> float:
    return run.read_json("metrics.json")["splits"][split]["metrics"]["accuracy"]["value"]


# What a run holds


def test_a_complete_run_has_every_file_and_nothing_else(inter):
    assert {p.name for p in inter.folder.iterdir()} == FILES
    assert not inter.partial.exists()


def test_config_json_says_what_was_trained_on_what_with_what(inter):
    found = inter.read_json("config.json")
    assert found["variant"] == "inter"
    assert found["seed"] == 0
    assert found["classes"] == ["negative", "positive"]
    # The recipe is filled in, whole: what is not there has no rate of its backbone.
    absent = ["audio_rate", "tabular_rate"]
    assert [n for n, value in found["config"]["train"].items() if value is None] == absent
    assert found["config"]["train"]["optimizer"] == "adamw"
    assert [j["text"] for j in found["spec"]["junctions"]] == [0, 1]
    assert found["dataset"]["counts"] == {"train": 40, "valid": 16, "test": 16}
    assert len(found["dataset"]["fingerprint"]) == 64
    assert found["dataset"]["split_policy"].startswith("as the source gives it")
    assert found["inputs"]["token_ids"]["max_length"] == 12
    assert found["inputs"]["image"]["size"] == tiny.EDGE
    assert {"keras", "jax", "numpy"} <= set(found["provenance"]["packages"])
    assert set(found["provenance"]) == {"fusion_keras", "python", "platform", "packages", "git"}
    assert found["parameters"] == load_model(inter.folder).count_params()


def test_every_metric_of_every_split_has_its_interval(inter):
    found = inter.read_json("metrics.json")
    assert found["best_epoch"] in (1, 2)
    assert set(found["splits"]) == {"valid", "test"}
    for split in found["splits"].values():
        assert split["count"] == 16
        assert np.sum(split["confusion"]) == 16
        assert {"accuracy", "majority", "auroc", "mae", "pearson"} <= set(split["metrics"])
        for values in split["metrics"].values():
            assert set(values) == {"value", "low", "high"}
        shown = split["metrics"]["accuracy"]
        assert 0 <= shown["low"] <= shown["value"] <= shown["high"] <= 1


def test_predictions_are_those_of_the_rows_and_give_the_metrics(inter):
    found = table(inter, "predictions.csv")
    splits = {row["id"]: row["split"] for row in table(inter, "splits.csv")}
    assert splits == {line[4]: line[3] for line in tiny.rows()}
    lines = {line[4]: line for line in tiny.rows()}
    assert [row["id"] for row in found] == [
        *(i for i in splits if splits[i] == "valid"),
        *(i for i in splits if splits[i] == "test"),
    ]
    for split in ("valid", "test"):
        rows = [row for row in found if row["split"] == split]
        right = np.mean([row["target"] == row["predicted"] for row in rows])
        assert right == pytest.approx(accuracy(inter, split))
    for row in found:
        assert row["split"] == splits[row["id"]]
        assert row["target"] == lines[row["id"]][2]
        assert row["group"] == lines[row["id"]][5]
        assert float(row["score"]) == pytest.approx(float(lines[row["id"]][6]))
        probs = {name: float(row[f"p_{name}"]) for name in ("negative", "positive")}
        assert sum(probs.values()) == pytest.approx(1, abs=1e-5)
        assert max(probs, key=probs.get) == row["predicted"]


def test_the_saved_model_gives_the_golden_outputs(inter):
    model = load_model(inter.folder)
    with np.load(inter.folder / "golden.npz", allow_pickle=False) as golden:
        inputs = {name: golden[f"input_{name}"] for name in ("token_ids", "image")}
        outputs = model.predict_on_batch(inputs)
        assert set(golden.files) == {f"input_{n}" for n in inputs} | {
            "output_logits",
            "output_score",
        }
        for name, values in outputs.items():
            np.testing.assert_allclose(values, golden[f"output_{name}"], atol=1e-6)


def test_history_has_each_epoch_once(inter):
    found = table(inter, "history.csv")
    assert [int(row["epoch"]) for row in found] == [1, 2]
    best = inter.read_json("metrics.json")["best_epoch"]
    # The model that is kept is that of the best epoch.
    assert float(found[best - 1]["valid_accuracy"]) == pytest.approx(accuracy(inter, "valid"))
    assert float(found[best - 1]["valid_accuracy"]) == max(
        float(row["valid_accuracy"]) for row in found
    )


# Once finished


def test_a_finished_run_is_left_alone(bench, shallow):
    before = {p: p.stat().st_mtime_ns for p in shallow.folder.rglob("*")}
    elsewhere = bench.folder / "elsewhere"
    assert train(bench.config(**SHALLOW, data__cache_dir=elsewhere), shallow.folder).complete
    assert {p: p.stat().st_mtime_ns for p in shallow.folder.rglob("*")} == before


def test_a_finished_run_with_other_settings_is_refused(bench, shallow):
    with pytest.raises(UsageError, match=r"seed was 0, is 1; train\.epochs was 2, is 5"):
        train(bench.config(**SHALLOW, seed=1, train__epochs=5), shallow.folder)


def test_a_run_from_before_a_setting_existed_has_its_default(bench, shallow, tmp_path):
    older = tmp_path / "older"
    shutil.copytree(shallow.folder, older)
    described = json.loads((older / "config.json").read_text())
    del described["config"]["fusion"]["stand_ins"], described["config"]["clstm"]
    data = described["config"]["data"]
    for old, new in RENAMED.items():
        section, field = new.split(".")
        data[old] = data[section][field]
    for section in ("manifest", "mosi", "demo", "digits"):
        del data[section]
    (older / "config.json").write_text(json.dumps(described))
    assert train(bench.config(**SHALLOW), older).complete
    with pytest.raises(UsageError, match=r"fusion\.width was 16, is 32"):
        train(bench.config(**SHALLOW, fusion__width=32), older)
    changed = bench.config(**SHALLOW, data__manifest__id_column="")
    with pytest.raises(UsageError, match=r"data\.manifest\.id_column was 'id', is ''"):
        train(changed, older)
    assert config_of(older).data == config_of(shallow.folder).data


def test_a_folder_that_is_no_run_is_refused(bench, tmp_path):
    with pytest.raises(UsageError, match=r"config\.json.*not a finished run"):
        train(bench.config(), tmp_path)


# Data


def test_a_seeded_split_is_written_down(bench, tmp_path):
    path = tiny.write_manifest(tmp_path / "data", leave_out=["split", "score"])
    run = train(bench.config(**SHALLOW, data__path=path), tmp_path / "run")
    rows = table(run, "splits.csv")
    groups = {line[4]: line[5] for line in tiny.rows()}
    homes = {}
    for row in rows:
        homes.setdefault(groups[row["id"]], set()).add(row["split"])
    assert len(rows) == 72
    assert {row["split"] for row in rows} == {"train", "valid", "test"}
    assert all(len(splits) == 1 for splits in homes.values())
    assert "seed 0" in run.read_json("config.json")["dataset"]["split_policy"]
    assert "pearson" not in run.read_json("metrics.json")["splits"]["test"]["metrics"]


def test_ids_of_any_kind_survive_the_tables(bench, tmp_path):
    def rename(lines):
        for line in lines:
            line[4] = f'"{line[4]}", of\tGrüße'

    path = tiny.write_manifest(tmp_path / "data", change=rename)
    run = train(bench.config(**SHALLOW, data__path=path), tmp_path / "run")
    wanted = {f'"{line[4]}", of\tGrüße' for line in tiny.rows()}
    assert {row["id"] for row in table(run, "splits.csv")} == wanted
    assert {row["id"] for row in table(run, "predictions.csv")} < wanted


def test_a_table_is_written_a_row_at_a_time_and_whole_or_not_at_all(tmp_path):
    run = Run(tmp_path)
    run.write_rows("x.csv", [("id", "text"), ("a", 'of "two",\nlines'), ("ü", "")])
    before = (tmp_path / "x.csv").read_bytes()
    assert before == 'id,text\na,"of ""two"",\nlines"\nü,\n'.encode()

    def ends():
        yield from (("long" * 1000,) for _ in range(100))
        [partial] = {*tmp_path.iterdir()} - {tmp_path / "x.csv"}
        assert partial.stat().st_size > 300_000  # nothing waits for the last row
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        run.write_rows("x.csv", ends())
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]
    assert (tmp_path / "x.csv").read_bytes() == before


# Settings


def test_the_same_seed_gives_the_same_run_and_another_one_another(bench, shallow, tmp_path):
    def content(run):
        return (run.folder / "predictions.csv").read_text()

    assert content(train(bench.config(**SHALLOW), tmp_path / "same")) == content(shallow)
    assert content(train(bench.config(**SHALLOW, seed=1), tmp_path / "other")) != content(shallow)


def test_half_precision_trains_and_loads(bench, tmp_path):
    run = train(bench.config(dtype="bfloat16", **SHALLOW), tmp_path / "run")
    model = load_model(run.folder)
    dropout = model.get_layer("text_backbone").get_layer("embeddings_dropout")
    assert dropout.compute_dtype == "bfloat16"
    assert all(v.dtype == "float32" for v in model.trainable_variables)
    with np.load(run.folder / "golden.npz", allow_pickle=False) as golden:
        outputs = model.predict_on_batch({"token_ids": golden["input_token_ids"]})
        assert outputs["logits"].dtype == np.float32
        np.testing.assert_allclose(outputs["logits"], golden["output_logits"], atol=1e-2)


@pytest.mark.slow
def test_a_run_in_half_precision_is_exported_in_float32(bench, entries, tmp_path):
    run = train(bench.config(dtype="bfloat16", **SHALLOW), tmp_path / "run")
    out = tmp_path / "artifact"

    done = entries.run("export", str(run.folder), f"--out={out}", "--precisions=")

    assert done.returncode == 0, done.stderr
    meta = json.loads((out / "meta.json").read_text())
    assert "trained in bfloat16; its graphs start from float32" in meta["notes"]
    assert all(rung["relative"] < 1e-4 for rung in meta["ladder"])
    with np.load(out / "golden.npz") as ours, np.load(run.folder / "golden.npz") as theirs:
        logits = [file["output_logits"] for file in (ours, theirs)]
    np.testing.assert_allclose(*(x[: len(logits[0])] for x in logits), atol=2e-2)
    assert not np.array_equal(*(x[: len(logits[0])] for x in logits))


def test_a_part_without_a_rate_stays_as_it_was(bench, shallow, tmp_path):
    def embeddings(run):
        return load_model(run.folder).get_layer("text_backbone").get_weights()

    frozen = train(bench.config(**SHALLOW, train__text_rate=0.0), tmp_path / "run")
    # Before training: the preset's.
    first = load_text(str(bench.folder / "presets" / "text")).backbone
    wanted = cut(first, [0]).get_weights()
    for a, b in zip(embeddings(frozen), wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(embeddings(shallow), wanted, strict=True):
        assert not np.array_equal(a, b)


SETTINGS = [
    {"train__label_smoothing": 0.3},
    {"train__clip_norm": 1e-3, "train__optimizer": "sgd", "train__learning_rate": 0.1},
    {"train__warmup": 0.9},
    {"train__weight_decay": 0.5, "train__learning_rate": 0.1},
    {"train__optimizer": "adam"},
    {"text__dropout": 0.5},
    {"fusion__dropout": 0.9},
    {"fusion__hidden": 8},
]


@pytest.mark.parametrize(
    "changes",
    slow_but(SETTINGS[::2], SETTINGS),
    ids=lambda changes: " ".join(changes),
)
def test_a_setting_changes_the_training(bench, shallow, tmp_path, changes):
    def losses(run):
        return [row["loss"] for row in table(run, "history.csv")]

    run = train(bench.config(**SHALLOW, **changes), tmp_path / "run")
    assert losses(run) != losses(shallow)


def test_training_stops_when_patience_ends_and_keeps_the_chosen_epoch(bench, tmp_path):
    changes = {"train__epochs": 9, "train__patience": 2, "train__learning_rate": 1e-12}
    config = bench.config(**SHALLOW, **changes, train__text_rate=0.0)
    # Nothing is learned: no epoch is better than the first by more than rounding.
    run = train(config, tmp_path / "run")
    lines, best = table(run, "history.csv"), run.read_json("metrics.json")["best_epoch"]
    assert len(lines) == best + 2 < 9
    last = train(bench.config(**SHALLOW, train__select="last", train__epochs=3), tmp_path / "last")
    assert last.read_json("metrics.json")["best_epoch"] == 3


def test_a_full_disk_under_tensorboard_is_told(bench, tmp_path, monkeypatch):
    def flush(self):
        # What TensorFlow's file system raises for it.
        raise loop.tf.errors.OutOfRangeError(None, None, "File too large")

    monkeypatch.setattr(loop.Writer, "flush", flush)
    with pytest.raises(UsageError, match=r"tensorboard: File too large.*space"):
        train(bench.config(**SHALLOW), tmp_path / "run")


def test_a_damaged_model_is_refused(shallow, tmp_path):
    path = tmp_path / "model.keras"
    content = (shallow.folder / "model.keras").read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError, match=r"model\.keras cannot be read.*copy the file again"):
        load_model(tmp_path)
    path.unlink()
    with pytest.raises(UsageError, match=r"not a finished run: it has no model\.keras"):
        load_model(tmp_path)


def test_nothing_of_a_run_is_pickled(inter):
    for path in Path(inter.folder).rglob("*.npz"):
        with np.load(path, allow_pickle=False) as arrays:
            assert all(arrays[name].dtype != object for name in arrays.files)
    json.loads((inter.folder / "metrics.json").read_text(), parse_constant=pytest.fail)


def test_a_finished_run_on_rows_that_have_changed_is_not_shown_as_current(bench, tmp_path):
    path = tiny.write_manifest(tmp_path / "data")
    config = bench.config(data__path=path, train__epochs=1, fusion__junctions="0+-:concat")
    train(config, tmp_path / "run")
    tiny.write_manifest(tmp_path / "data", change=lambda lines: lines.reverse())
    with pytest.raises(UsageError, match="has changed since"):
        train(config, tmp_path / "run")


def test_the_loss_of_scores_compares_each_with_its_own():
    model = SimpleNamespace(output={"logits": None, "score": None})
    loss = losses_of(model, SimpleNamespace(label_smoothing=0.0, score_loss=1.0))["loss"]["score"]
    scores, predicted = np.array([[1.0], [2.0]], np.float32), np.array([[1.0], [4.0]], np.float32)
    np.testing.assert_array_equal(np.asarray(loss(scores, predicted)), [0, 4])
    np.testing.assert_array_equal(np.asarray(loss(scores[:, 0], predicted)), [0, 4])


def test_a_setting_refused_before_training_can_be_mended_in_the_same_folder(bench, tmp_path):
    changes = {"fusion__junctions": "0+-:concat", "train__epochs": 1}
    with pytest.raises(UsageError, match="batch"):
        train(bench.config(**changes, train__batch_size=1000), tmp_path / "run")
    assert train(bench.config(**changes), tmp_path / "run").complete


def test_a_metric_that_only_one_split_has_is_left_out_of_the_table(inter, tmp_path, capsys):
    shutil.copytree(inter.folder, tmp_path / "run")
    results = inter.read_json("metrics.json")
    del results["splits"]["valid"]["metrics"]["acc2_nonneg"]
    Run(tmp_path / "run").write_json("metrics.json", results)
    print_results(*report.closing(Run(tmp_path / "run")))
    shown = capsys.readouterr().out
    assert "acc2_nonzero" in shown
    assert "acc2_nonneg" not in shown


def test_what_fit_keeps_behind_a_step_is_not_searched_for_variables():
    """A millisecond a step, where it is; Keras may call it otherwise one day."""

    class Seen(keras.callbacks.Callback):
        kinds: ClassVar[set] = set()

        def on_train_batch_end(self, batch, logs=None):
            self.kinds.add(type(self.model._jax_state))
            self.model.others = [1]

    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    kind = type(model)
    with loop._state_as_it_is(model):
        model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[Seen()])
    assert Seen.kinds == {dict}
    assert type(model.others) is not list
    assert type(model) is kind
