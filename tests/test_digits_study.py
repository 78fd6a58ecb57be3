"""The audio-visual study: from config to run, to answers on a grid, to the paper's figures."""

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image

from bench.edge import predict as bench_predict
from bench.edge.artifact import golden, read
from bench.report import runs as report_runs
from configs import digits as full_size
from configs import digits_small
from export import reference
from fusion_keras.backbones.clstm import FULL, REDUCED, Sizes
from fusion_keras.config import get_config
from fusion_keras.data.digit_set import load_digit_set, read_digits, split_examples
from fusion_keras.data.pipeline import train_batches
from fusion_keras.errors import UsageError
from fusion_keras.fusion import audio_visual
from fusion_keras.fusion.architectures import CLSTM
from fusion_keras.fusion.describe import count_macs
from fusion_keras.studies import reliance
from fusion_keras.studies.digits import cells, figures
from fusion_keras.studies.digits.figures import make
from fusion_keras.studies.digits.regimes import ORIGINAL, Study
from fusion_keras.studies.robustness import load
from fusion_keras.terminal import print_results
from fusion_keras.training import experiment, porting, report
from fusion_keras.training.experiment import train
from fusion_keras.training.recipes import resolve
from fusion_keras.training.restored import load_model, restore
from fusion_keras.training.run import Run
from tests.support.digits_layout import Digits
from tests.support.tiny import table

# Keras's own variables answer numpy 2's new `copy` keyword with this, wherever it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

VARIANTS = ("clstm_initial", "clstm_second", "clstm_fc")
NOISE = {"data__digits__audio_snr": 0.5, "data__digits__image_snr": 0.25}
RATIOS = {"test_audio": (ORIGINAL, 0.5), "test_image": (ORIGINAL, 0.25, 0)}


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Digits:
    return Digits.make(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def run(digits) -> Run:
    return train(digits.config(**NOISE), digits.folder / "run")


@pytest.fixture(scope="module")
def studied(digits) -> Study:
    """Figure 1 of two seeds is there."""
    config = digits.config(variant="clstm_initial")
    study = Study(config, digits.folder / "study", seeds=(0, 1), **RATIOS)
    make(1, study)
    return study


def rows_of(study: Study, figure: int) -> list[dict[str, str]]:
    with (study.folder / "figures" / f"figure{figure}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def data_of(digits, **changes):
    config = digits.config(**changes)
    return load_digit_set(config.data, config.clstm.image, config.clstm.steps)


# --- Data ---------------------------------------------------------------------------------------


def test_rows_are_the_splits_one_after_the_other_and_inputs_are_their_examples(digits):
    config = digits.config(**NOISE)
    dataset = data_of(digits, **NOISE)
    assert [len(dataset.rows(s)) for s in ("train", "valid", "test")] == [64, 16, 20]
    assert len(set(dataset.ids)) == 100
    read = read_digits(config.data, 7, 3)
    for split in ("train", "valid", "test"):
        rows = dataset.rows(split)[[3, 0]]
        inputs, labels = split_examples(read, config.data, split).batch([3, 0])
        assert dataset.labels[rows].tolist() == labels.tolist()
        for name, values in inputs.items():
            column = dataset.inputs["audio" if name == "spectrogram" else name]
            np.testing.assert_array_equal(column[rows], values)


def test_pairs_of_one_recording_are_one_group(digits):
    dataset = data_of(digits)
    recordings = [name.split("+")[1] for name in dataset.ids]
    assert dataset.groups == [f"recording {r}" for r in recordings]
    assert len(set(recordings)) < len(recordings)


def test_a_batch_makes_its_own_rows_and_no_others(digits, monkeypatch):
    dataset, made = data_of(digits), []
    arrays = {"label": dataset.labels, **CLSTM.arrays(dataset, None)}
    rows = dataset.rows("train")
    inputs, labels = next(iter(train_batches(arrays, rows, 8, seed=0, epochs=1)))
    assert inputs["image"].shape == (8, 7, 7, 1)
    assert inputs["spectrogram"].shape == (8, 3, 201)
    # A drawn row of the digit d is bright at 2 d + 4 of 28.
    brightest = inputs["image"][..., 0].mean(axis=2).argmax(axis=1)
    assert (np.abs(brightest - (2 * labels + 6) / 4) <= 1).all()
    column = dataset.inputs["image"]
    object.__setattr__(column, "make", lambda row: made.append(row) or np.zeros(1))
    column[[5, 2]]
    assert made == [5, 2]


def test_pairs_stay_when_the_noise_changes(digits):
    clean, noisy = data_of(digits), data_of(digits, **NOISE)
    assert clean.ids == noisy.ids
    assert clean.fingerprint != noisy.fingerprint
    a, b = (d.inputs["image"][[0]] for d in (clean, noisy))
    assert np.mean(a**2) / np.mean((a - b) ** 2) == pytest.approx(0.25, rel=0.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"data__digits__split": "speaker"},
        {"data__split_seed": 1},
        {"data__digits__image_snr": 2.0},
        {"data__digits__audio_snr": 2.0},
        {"data__digits__train_pairs": 63},
        {"data__digits__valid_pairs": 15},
        {"data__digits__test_pairs": 19},
        {"clstm__image": 14},
        {"clstm__steps": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_setting_of_the_data_makes_other_data(digits, changes):
    assert data_of(digits, **changes).fingerprint != data_of(digits).fingerprint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data__path": ""}, "no data.path, wanted the folder that holds mnist"),
        ({"data__path": "/nowhere"}, "no file /nowhere/mnist/train-images"),
        ({"data__digits__test_pairs": 41}, "data.digits.test_pairs=41, wanted 1 to 40"),
        ({"data__digits__train_pairs": 0}, "data.digits.train_pairs=0, wanted 1 to 2560"),
        ({"data__digits__image_snr": -1.0}, "image_snr=-1.0, wanted a power ratio"),
        ({"data__digits__split": "voice"}, "split='voice', wanted one of example, speaker"),
        ({"clstm__image": 9}, "image_size=9, wanted a divisor of 28"),
        ({"clstm__steps": 0}, "0 steps of sound, wanted at least 1"),
    ],
)
def test_data_that_cannot_be_is_told(digits, changes, said):
    with pytest.raises(UsageError, match=said):
        data_of(digits, **changes)


# --- Settings -----------------------------------------------------------------------------------


def test_full_size_is_the_papers_and_the_small_one_is_named():
    config = resolve(full_size.get_config())
    assert Sizes(**config.clstm.to_dict()) == FULL
    assert config.data.digits.train_pairs == 87516
    train = config.train
    assert (train.optimizer, train.learning_rate) == ("adam", 1e-3)
    assert (train.weight_decay, train.clip_norm, train.label_smoothing) == (0, 0, 0)
    assert (train.schedule, train.warmup) == ("constant", 0)
    assert not config.augment.enabled
    assert Sizes(**digits_small.get_config().clstm.to_dict()) == REDUCED


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fusion__junctions": "1+1:linear"}, "config.fusion.junctions is set, and clstm_fc"),
        ({"text__preset": "bert_base"}, "config.text.preset is set"),
        ({"image__size": 96}, "config.image.size is set"),
        ({"augment__flip": False}, "config.augment.flip is set"),
        ({"augment__enabled": True}, "config.augment.enabled is set"),
        ({"train__image_rate": 0.5}, "config.train.image_rate is set"),
        ({"parent__warm_start": ("image",)}, "config.parent.warm_start is set"),
        ({"parents": ("runs/a",)}, "config.parents is set"),
        ({"regression": True}, "config.regression is set"),
        ({"data__max_length": 12}, "config.data.max_length is set"),
        ({"data__part": "first"}, "config.data.part is set"),
        ({"recipe": "best"}, "trained with recipe digits"),
        ({"variant": "inter"}, "data.source is 'digits', which has no sentences for inter"),
        ({"data__source": "demo"}, "data.source is 'demo': start from --config=configs/digits"),
    ],
)
def test_a_setting_that_a_clstm_does_not_read_is_refused(digits, changes, said):
    with pytest.raises(UsageError, match=said):
        resolve(digits.config(**changes))


def test_a_setting_that_only_a_clstm_reads_is_refused_elsewhere():
    config = get_config()
    config.clstm.units = 7
    with pytest.raises(UsageError, match=r"config\.clstm\.units is set, and inter reads no such"):
        resolve(config)


def test_a_resolved_config_may_be_resolved_again(digits):
    once = resolve(digits.config(**NOISE))
    assert resolve(once).to_dict() == once.to_dict()


# --- A run --------------------------------------------------------------------------------------


def test_an_export_is_compared_with_what_the_run_answers(run, tmp_path):
    reference.main(run.folder, tmp_path, 4)
    with np.load(tmp_path / "inputs.npz") as inputs, np.load(tmp_path / "reference.npz") as found:
        assert {name: len(inputs[name]) for name in inputs} == {"image": 4, "spectrogram": 4}
        assert found["jax/logits"].shape == (4, 10)
    # Examples that are drawn came as no files.
    assert (tmp_path / "queries" / "texts.json").read_text() == "[]\n"


def test_a_run_is_complete_and_says_what_was_trained(run, digits):
    names = {path.name for path in run.folder.iterdir()}
    assert {"model.keras", "metrics.json", "golden.npz", "predictions.csv"} < names
    assert "tokenizer.json" not in names
    about = run.read_json("config.json")
    assert about["spec"]["architecture"] == "clstm_fc"
    assert about["spec"]["sizes"]["units"] == 2
    assert about["dataset"]["counts"] == {"train": 64, "valid": 16, "test": 20}
    assert about["inputs"]["spectrogram"]["steps"] == 3
    assert about["classes"] == list("0123456789")
    assert about["config"]["data"]["digits"]["audio_snr"] == 0.5
    found = run.read_json("metrics.json")["splits"]["test"]["metrics"]["accuracy"]
    assert found["low"] <= found["value"] <= found["high"]
    with np.load(run.folder / "golden.npz") as arrays:
        inputs = {n: arrays[f"input_{n}"] for n in ("image", "spectrogram")}
        outputs = load_model(run.folder).predict_on_batch(inputs)
        np.testing.assert_allclose(outputs["logits"], arrays["output_logits"], atol=1e-6)
    assert {r["id"] for r in table(run, "splits.csv")} == set(data_of(digits, **NOISE).ids)


def test_a_run_is_left_alone_restored_and_refused_with_other_noise(run, digits):
    before = (run.folder / "model.keras").stat().st_mtime_ns
    assert train(digits.config(**NOISE), run.folder).complete
    assert (run.folder / "model.keras").stat().st_mtime_ns == before
    task = restore(run.folder)
    assert task.spec.architecture == "clstm_fc"
    features = task.graph.encoders.output["features"]
    assert task.graph.fusion.input["features"].shape == features.shape
    with pytest.raises(UsageError, match=r"data\.digits\.audio_snr was 0\.5, is 2\.0"):
        train(digits.config(**{**NOISE, "data__digits__audio_snr": 2.0}), run.folder)


def test_an_interrupted_run_ends_as_an_undisturbed_one(run, digits, monkeypatch, tmp_path):
    save, calls = experiment.loop.checkpoint.save, []

    def interrupted(*arguments):
        save(*arguments)
        calls.append(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(experiment.loop.checkpoint, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(digits.config(**NOISE), tmp_path / "run")
    again = train(digits.config(**NOISE), tmp_path / "run")
    assert len(calls) == 1
    wanted = [row["loss"] for row in table(run, "history.csv")]
    found = [row["loss"] for row in table(again, "history.csv")]
    np.testing.assert_allclose(np.float64(found), np.float64(wanted), rtol=1e-5)


def test_closing_table_names_the_study_as_the_next_step(run, capsys):
    print_results(*report.closing(run))
    assert "python -m fusion_keras.digits --figure=1" in capsys.readouterr().out


def test_macs_of_a_loop_are_those_of_all_its_steps():
    # First layer: 14 x 14 places, each once a 3 x 3 patch of the image and 19 times one of 16
    # units, onto 4 x 16 gates; 19 columns of 201. The second: 7 x 7 places, 19 times two patches.
    first = 14 * 14 * 9 * 64 + 19 * 201 * 64 + 19 * 14 * 14 * 9 * 16 * 64
    second = 19 * 7 * 7 * 2 * 9 * 16 * 64
    spec = audio_visual.ClstmSpec("clstm_initial", REDUCED)
    wanted = first + second + 3 * 3 * 16 * 128 + 128 * 10
    assert count_macs(audio_visual.build(spec).model) == wanted


@pytest.mark.parametrize("variant", VARIANTS)
def test_describe_shows_the_layers(variant, digits, capsys, tmp_path):
    print_results(*report.described(digits.config(variant=variant), tmp_path / "model.png"))
    shown = capsys.readouterr().out
    assert "logits" in shown
    assert "MACs" in shown


def test_what_is_not_made_for_a_clstm_says_so(run, tmp_path):
    with pytest.raises(UsageError, match=r"figures 3 and 4 of fusion_keras\.digits"):
        reliance.measure([run.folder], "test", 1, 0)
    with pytest.raises(UsageError, match=r"fusion_keras\.digits draws its accuracy under noise"):
        load.load([run.folder], [], ["fp32"], "test")
    with pytest.raises(UsageError, match="its weights are not carried over yet"):
        porting.to_pytorch(run.folder, tmp_path / "weights.safetensors")


def test_another_framework_is_told_that_it_has_no_such_model(digits, tmp_path):
    other = experiment.Framework("pytorch", None)
    with pytest.raises(UsageError, match=r"clstm_fc is a C-LSTM .*: it is trained by Keras alone"):
        train(digits.config(), tmp_path / "run", other)
    assert not list(tmp_path.iterdir())


def test_the_report_reads_a_run(run):
    found = report_runs.read(run.folder)
    assert found.artifact["variant"] == "clstm_fc"
    assert found.artifact["backbones"] == {}
    assert len(found.correct) == 20


# --- Answers and figures ------------------------------------------------------------------------


@pytest.mark.slow
def test_figure_1_has_three_variants_and_every_cell(studied):
    picture = studied.folder / "figures" / "figure1.png"
    with Image.open(picture) as image:
        assert min(image.size) > 500
    rows = rows_of(studied, 1)
    assert len(rows) == 3 * 6
    assert {row["variant"] for row in rows} == set(VARIANTS)
    assert {(row["test_audio"], row["test_image"]) for row in rows} == {
        (a, i) for a in ("orig", "0.5") for i in ("orig", "0.25", "0")
    }
    first = {(r["test_audio"], r["test_image"]): float(r["accuracy"]) for r in rows[:6]}
    for row in rows:
        accuracy = float(row["accuracy"])
        assert float(row["accuracy_low"]) <= accuracy <= float(row["accuracy_high"])
        lead = first[row["test_audio"], row["test_image"]] - accuracy
        assert float(row["initial_minus_this"]) == pytest.approx(lead, abs=1e-5)


@pytest.mark.slow
def test_the_cell_of_the_training_noise_is_the_runs_own_test(studied):
    for variant in VARIANTS:
        wanted = [
            Run(studied.folder / f"{variant}-a0.5-v0.25-s{seed}").read_json("metrics.json")
            for seed in (0, 1)
        ]
        wanted = [w["splits"]["test"]["metrics"]["accuracy"]["value"] for w in wanted]
        (row,) = (
            r
            for r in rows_of(studied, 1)
            if (r["variant"], r["test_audio"], r["test_image"]) == (variant, "0.5", "0.25")
        )
        assert float(row["accuracy"]) == pytest.approx(np.mean(wanted), abs=1e-5)


@pytest.mark.slow
def test_a_figure_once_made_is_neither_trained_nor_tested_again(studied, monkeypatch):
    def never(*_):
        raise AssertionError("done again")

    monkeypatch.setattr(experiment.loop, "fit", never)
    monkeypatch.setattr(cells, "predict", never)
    before = rows_of(studied, 1)
    make(1, studied)
    assert rows_of(studied, 1) == before
    # The regime of figure 1 is one of figure 2's.
    one = {"train_audio": (0.5,), "train_image": (0.25,)}
    make(2, Study(studied.config, studied.workdir, (0, 1), **one, **RATIOS))
    assert [r["accuracy"] for r in rows_of(studied, 2)] == [r["accuracy"] for r in before[:6]]


@pytest.mark.slow
def test_cells_that_were_tested_before_an_interrupt_are_kept(studied, monkeypatch):
    tested = []

    def interrupted(*arguments, predict=cells.predict):
        if len(tested) == 2:
            raise KeyboardInterrupt
        tested.append(1)
        return predict(*arguments)

    more = Study(studied.config, studied.workdir, (0,), test_audio=(4, 2), test_image=(4, 2))
    with monkeypatch.context() as patch:
        patch.setattr(cells, "predict", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(1, more)
        tested.clear()
        tested += [1, 1]
        with pytest.raises(KeyboardInterrupt):
            make(1, more)
    name = "clstm_initial-a0.5-v0.25-s0.json"
    kept = json.loads((studied.folder / "answers" / name).read_text())["cells"]
    assert len(kept) == 6 + 2


def test_answers_of_another_model_do_not_count(tmp_path):
    kept = cells.Cells(tmp_path / "a.json", "model")
    correct = np.arange(21) % 3 == 0
    kept[math.inf, 0.5] = correct
    again = cells.Cells(tmp_path / "a.json", "model")
    np.testing.assert_array_equal(again[math.inf, 0.5], correct)
    assert (0.5, math.inf) not in again
    assert (math.inf, 0.5) not in cells.Cells(tmp_path / "a.json", "another")


@pytest.mark.slow
@pytest.mark.parametrize(("figure", "name"), [(3, "audio"), (4, "image")])
def test_one_input_alone_is_trained_and_tested_with_the_other_zero(digits, figure, name):
    kept = "image" if name == "audio" else "audio"
    study = Study(
        digits.config(variant="clstm_second", train__epochs=1),
        digits.folder / f"alone{figure}",
        **{f"train_{kept}": (1,), f"test_{kept}": (ORIGINAL, 1, 0)},
    )
    make(figure, study)
    rows = rows_of(study, figure)
    assert {row[f"train_{name}"] for row in rows} == {"0"} == {row[f"test_{name}"] for row in rows}
    assert [row[f"train_{kept}"] for row in rows] == 3 * ["orig"] + 3 * ["1"]
    (folder,) = study.folder.glob("clstm_second-*1-*s0")
    assert Run(folder).read_json("config.json")["config"]["data"]["digits"][f"{name}_snr"] == 0
    # Nothing is left to see or hear: one class for all, a tenth or so of the pairs.
    accuracies = [float(row["accuracy"]) for row in rows if row[f"test_{kept}"] == "0"]
    labels = data_of(digits).labels[-20:]
    assert set(np.round(20 * np.array(accuracies))) <= set(np.bincount(labels, minlength=10))


def test_figure_6_shows_the_pair_at_each_ratio_and_trains_nothing(digits, tmp_path):
    study = Study(digits.config(), tmp_path, example=3, **RATIOS)
    make(6, study)
    rows = rows_of(study, 6)
    assert [(r["input"], r["ratio"]) for r in rows] == [
        ("image", "orig"),
        ("image", "0.25"),
        ("image", "0"),
        ("spectrogram", "orig"),
        ("spectrogram", "0.5"),
    ]
    assert [float(r["most"]) for r in rows if r["ratio"] == "0"] == [0]
    assert [path.name for path in study.folder.iterdir()] == ["figures"]


@pytest.mark.slow
def test_activations_end_in_the_logits_of_the_run(studied):
    make(12, Study(studied.config, studied.workdir))
    rows = rows_of(studied, 12)
    assert len(rows) == 4 * 3
    assert [r["seconds"] for r in rows[:3]] == ["0.05", "0.075", "0.1"]
    folder = studied.folder / "clstm_initial-a0.5-v0.25-s0"
    read_ = read_digits(studied.config.data, 7, 3)
    examples = split_examples(read_, studied.config.data, "test", image_snr=0.25, audio_snr=1)
    inputs, labels = examples.batch([1])
    wanted = load_model(folder).predict_on_batch(inputs)["logits"][0]
    last = next(r for r in rows if r["scenario"] == "better sound" and r["step"] == "2")
    found = [float(last[f"activation_{digit}"]) for digit in range(10)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert last["label"] == str(labels[0])


@pytest.mark.slow
def test_other_examples_are_other_figures(studied):
    for figure in (11, 13):
        make(figure, Study(studied.config, studied.workdir))
    assert {rows_of(studied, f)[0]["example"] for f in (11, 13)} == {"0", "2"}


@pytest.mark.parametrize(
    ("figure", "changes", "said"),
    [
        (5, {}, "--figure is 5; one of 1, 2, 3"),
        (1, {"seeds": (0, 0)}, r"--seeds is \(0, 0\)"),
        (2, {"train_audio": (-1,)}, r"--train_audio is \(-1,\); values of 0 or more"),
        (2, {"test_image": (math.nan,)}, "--test_image is"),
        (1, {"example": 3}, "--example means nothing to figure 1"),
        (1, {"train_audio": (1,)}, "--train_audio means nothing to figure 1"),
        (3, {"test_audio": (1,)}, "--test_audio means nothing to figure 3"),
        (6, {"seeds": (1,)}, "--seeds means nothing to figure 6"),
        (11, {"seeds": (0, 1)}, "figure 11 shows one model"),
        (6, {"example": 20}, "--example is 20; 0 to 19"),
    ],
)
def test_what_a_figure_cannot_have_is_told(digits, tmp_path, figure, changes, said):
    study = Study(digits.config(variant="clstm_initial"), tmp_path, **changes)
    with pytest.raises(UsageError, match=said):
        make(figure, study)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"data__digits__audio_snr": 0.5},
            "config.data.digits.audio_snr is set, but the figures set the noise",
        ),
        ({"variant": "clstm_fc"}, "figure 1 shows all three"),
        ({"seed": 2}, "give --seeds=2"),
        ({"fusion__width": 3}, "config.fusion.width is set"),
    ],
)
def test_a_setting_that_a_figure_would_overwrite_is_refused(digits, tmp_path, changes, said):
    study = Study(digits.config(**{"variant": "clstm_initial", **changes}), tmp_path)
    with pytest.raises(UsageError, match=said):
        make(1, study)
    assert not list(tmp_path.iterdir())


def test_figures_that_compare_have_the_papers_noise():
    assert figures.FUSION_FIGURES == {
        1: (0.5, 0.25),
        7: (1, 0.5),
        8: (2, 0.25),
        9: (1, 0.25),
        10: (1, 0.125),
    }
    study = Study(None, None)
    assert len(study.train_audio) * len(study.train_image) == 16
    assert len(study.grid) == 100


def test_command_makes_a_figure_and_says_where(entries, digits, tmp_path):
    flags = [*digits.flags(), f"--workdir={tmp_path}", "--test_audio=orig,1", "--test_image=0"]
    given = ["--figure=6", "--config=configs/digits_small.py", *flags]
    done = entries.run("fusion_keras.digits", *given)
    assert done.returncode == 0, done.stderr
    assert f"Figure: {tmp_path}/tiny/figures/figure6.png" in done.stdout
    wrong = entries.run("fusion_keras.digits")
    assert (wrong.returncode, wrong.stderr.strip()) == (
        2,
        "error: --figure=N is wanted; --help lists them.",
    )


# --- Export -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_becomes_an_artifact_that_is_measured(entries, digits, variant, tmp_path, capsys):
    trained = train(digits.config(variant=variant, **NOISE), tmp_path / "run").folder
    folder = tmp_path / "artifact"
    asked = [str(trained), f"--out={folder}", "--precisions=fp16,int8,int8_static"]
    done = entries.run("export", *asked)
    assert done.returncode == 0, done.stderr
    assert f"python -m bench {folder}" in done.stdout
    meta = read(folder)
    assert meta["spec"]["architecture"] == variant
    assert set(meta["inputs"]) == {"image", "spectrogram"}
    assert all(rung["holds"] for rung in meta["ladder"])
    inputs, _ = golden(folder)
    assert {n: (x.shape[1:], x.dtype.name) for n, x in inputs.items()} == {
        "image": ((7, 7, 1), "float32"),
        "spectrogram": ((3, 201), "float32"),
    }
    assert bench_predict.main([str(folder), "--image=a.png"]) == 2
    assert "input spectrogram is not made of files here" in capsys.readouterr().err
    out = tmp_path / "results.json"
    done = entries.run("bench", folder, f"--out={out}", "--precisions=all")
    assert done.returncode == 0, done.stderr
    done = entries.run("bench.report", out, f"--out={tmp_path / 'report'}")
    assert done.returncode == 0, done.stderr
