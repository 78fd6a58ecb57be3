"""The paper's tables in one command: what is planned, what is compared, and a rehearsal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import paper as entry
from bench.report import agreement, comparison, runs
from bench.report.__main__ import main as report
from bench.report.front import Interval, Model
from bench.report.gather import ReportError
from bench.studies import conducting, paper
from fusion_keras.data.splits import STANDARD_MOSI_COUNTS, STANDARD_MOSI_FOLDS
from fusion_keras.data.video import middle_frame
from tests.support import reports
from tests.support.mosi_layout import FRAMES, write_clip, write_layout
from tests.support.reports import artifact, cells, contender, measured, reported, write_run

# --- What is planned --------------------------------------------------------------------------


@pytest.fixture
def given(tmp_path):
    """A label file, and the flags that name clips and a folder."""
    (tmp_path / "Raw").mkdir()
    (tmp_path / "label.csv").write_text("video_id,clip_id,text,label\n")
    places = {"raw_dir": tmp_path / "Raw", "workdir": tmp_path / "paper"}
    return [str(tmp_path / "label.csv"), *(f"--{name}={place}" for name, place in places.items())]


def plan(flags, *handed_on):
    return paper.steps(entry._parser().parse_args(flags), list(handed_on))


def said(planned):
    return [f"{step.kind} {step.name}" for step in planned]


def test_text_is_trained_once_and_each_vision_model_has_seven_trainings(given):
    planned = said(plan([*given, "--seeds=3"]))
    one = ["image-{}", "late-{}", "inter-{}", "early-{}"]
    one += [f"early-{{}}-{n}-blocks" for n in (2, 6, 8)]
    names = ["text", *(name.format(v) for v in ("mobilenet", "vit") for name in one)]
    assert planned[0] == "check all"
    assert planned[1:16] == [f"train {name}-s3" for name in names]
    assert planned[16:31] == [f"export {name}-s3" for name in names]
    assert planned[31:] == ["measure all", "report all"]


def test_every_seed_is_trained_and_the_first_is_exported_and_measured(given):
    planned = plan([*given, "--seeds=1,0", "--visions=vit", "--blocks=2"])
    kinds = [step.kind for step in planned]
    assert kinds == ["check"] + ["train"] * 12 + ["export"] * 6 + ["measure", "report"]
    assert [s.name[-3:] for s in planned if s.kind == "train"] == ["-s1"] * 6 + ["-s0"] * 6
    assert all(s.name.endswith("-s1") for s in planned if s.kind == "export")
    assert sum("artifacts" in part for part in planned[-2].command) == 6


def test_the_commands_say_which_model(given, tmp_path):
    planned = plan([*given, "--seeds=0", "--mobilenet=DIR"], "--config.data.name=x")
    by_name = {step.name: step.command for step in planned if step.kind == "train"}
    vit = by_name["early-vit-6-blocks-s0"]
    assert vit[1:3] == ["-m", "fusion_keras.train"]
    # absl wants the file of the config before any setting of it.
    assert vit[3] == "--config=configs/mosi.py"
    assert set(vit[4:]) == {
        "--recipe=paper",
        "--variant=early",
        "--config.fusion.blocks=6",
        "--config.image.preset=vit_base",
        f"--config.data.path={tmp_path / 'label.csv'}",
        f"--config.data.mosi.raw_dir={tmp_path / 'Raw'}",
        "--config.data.name=x",
        "--seed=0",
        f"--run={tmp_path / 'paper' / 'runs' / 'early-vit-6-blocks-s0'}",
    }
    assert "--config.image.preset=DIR" in by_name["late-mobilenet-s0"]
    assert not any("blocks" in flag for flag in by_name["early-mobilenet-s0"])


def test_the_reference_is_trained_with_the_same_flags_and_measured_beside_its_twin(given, tmp_path):
    flags = [*given, "--seeds=0", "--visions=vit", "--blocks=2", "--frameworks=ours,pytorch"]
    planned = plan(flags)
    ours, theirs = planned[1:3]
    assert said([ours, theirs]) == ["train text-s0", "pytorch text-s0"]
    assert set(theirs.command[:-1]) - set(ours.command[:-1]) == {"--framework=pytorch"}
    assert theirs.command[-1] == f"--run={tmp_path / 'paper' / 'pytorch' / 'text-s0'}"
    beside = [step for step in planned if step.kind == "measure"][1:]
    assert len(beside) == 6
    assert {"--runners=ort,torch", ours.command[-1]} < set(beside[0].command)
    places = [tmp_path / "paper" / name for name in ("runs", "pytorch")]
    assert f"--runs={places[0]},{places[1]}" in planned[-1].command


def test_the_reference_alone_is_neither_exported_nor_measured(given):
    planned = plan([*given, "--seeds=0", "--visions=vit", "--framework=pytorch"])
    assert {step.kind for step in planned} == {"check", "pytorch", "report"}


def test_a_complete_run_is_done_and_a_partial_one_is_not(given, tmp_path):
    first, second = plan([*given, "--seeds=0"])[1:3]
    for name in ("text-s0", "image-mobilenet-s0.partial"):
        folder = tmp_path / "paper" / "runs" / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text("{}")
    assert (first.done(), second.done()) == (True, False)


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--config=none.py", "--config=none.py is no file"),
        ("--raw_dir=none", "--raw_dir=none is no folder"),
        ("--seed=1", "--seed=1 is no flag"),
        ("--blocks=2,4", "--blocks has 4, which early has anyway"),
        ("--config.image.preset=x", "use --mobilenet or --vit"),
        ("--config.fusion.blocks=2", "use --blocks"),
    ],
)
def test_a_mistake_is_a_sentence_before_any_training(given, tmp_path, capsys, flag, sentence):
    assert entry.main([*given, flag]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert sentence in error
    assert not (tmp_path / "paper" / "logs").exists()


def test_a_label_file_is_wanted(given, capsys):
    assert entry.main(["none.csv", *given[1:]]) == 2
    assert "none.csv is no file" in capsys.readouterr().err


def test_a_dry_run_says_the_steps_and_leaves_nothing(given, tmp_path, capsys, monkeypatch):
    checked = []
    # Its plan wants presets of the hub.
    monkeypatch.setattr(conducting, "_check", lambda planned: checked.append(planned[0].name))
    assert entry.main([*given, "--seeds=0", "--visions=vit", "--blocks=2", "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert "[2/15] train text-s0" in said
    assert "15 of 15 steps are left; nothing was begun." in said
    assert checked == ["all"]
    assert not (tmp_path / "paper").exists()


def test_images_are_wanted(given, capsys):
    assert entry.main([flag for flag in given if not flag.startswith("--raw_dir")]) == 2
    assert "no images are given" in capsys.readouterr().err


def test_a_label_file_that_changed_is_another_study(given, tmp_path, capsys, monkeypatch):
    taken = []
    monkeypatch.setattr(conducting, "conduct", lambda options, plan: taken.append(plan()))
    assert entry.main(given) == 0
    assert entry.main([*given, "--seeds=0,7", "--profile=full"]) == 0
    assert len(taken) == 2
    (tmp_path / "paper" / "pytorch" / "text-s0.partial").mkdir(parents=True)
    (tmp_path / "label.csv").write_text("other\n")
    assert entry.main(given) == 2
    assert "--workdir another name" in capsys.readouterr().err


def test_help_teaches(entries):
    shown = entries.run("bench.paper", "--help").stdout
    assert "--frameworks" in shown
    assert "WORKDIR/results" in shown


# --- Runs and the table -----------------------------------------------------------------------

PUBLISHED = "CMU-MOSI: accuracy as published, by PyTorch and by us"
ACCURACY = "{}: accuracy by PyTorch and by us"
COSTS = "{}: what it costs"


def test_seeds_are_averaged_and_paired_with_those_of_pytorch(tmp_path):
    # Ours 90, 80 %; PyTorch 80, 80 %, both on the same seeds: 5 points on average.
    write_run(tmp_path / "ours" / "a", seed=0, wrong=range(2))
    write_run(tmp_path / "ours" / "b", seed=1, wrong=range(4))
    for seed in (0, 1):
        torch = {"seed": seed, "wrong": range(4), "framework": "pytorch"}
        write_run(tmp_path / "torch" / str(seed), **torch)
    text = reported(tmp_path, f"--runs={tmp_path / 'ours'},{tmp_path / 'torch'}")
    (row,) = cells(text, ACCURACY.format("demo"), "Late Fusion (M)")
    assert row["PyTorch, %"] == "80.0 ± 0.0 (2 seeds)"
    # The standard deviation of 90 and 80 is 10 / sqrt 2.
    assert row["ours, %"] == "85.0 ± 7.1 (2 seeds)"
    assert row["backbones"] == "bert_base + mobilenet_v2_1.4"
    assert (row["recipe"], row["test rows"]) == ("paper", "20")
    mean, low, high = map(float, row["ours - PyTorch, points"].translate(_BARE).split())
    assert (mean, low) == (5.0, 0.0)
    assert row["equivalent within, points"] == f"{high:.1f}"
    # One group of ten differs, in one seed of two: drawn k times, and that seed in m places of
    # two, it gives 5 k m points. k is binomial (10, 1/10), m (2, 1/2): P(k m > 4) is 0.018 and
    # P(k m >= 4) 0.072, so that 97.5 % lie at or below 20 points.
    assert high == pytest.approx(20, abs=0.01)


_BARE = str.maketrans("", "", "[,]")


def test_one_seed_has_no_spread_and_other_seeds_are_not_paired(tmp_path):
    write_run(tmp_path / "runs" / "a", seed=0)
    write_run(tmp_path / "runs" / "b", seed=1, framework="pytorch", wrong=[0])
    text = reported(tmp_path, f"--runs={tmp_path / 'runs'}")
    (row,) = cells(text, ACCURACY.format("demo"), "Late Fusion (M)")
    assert (row["ours, %"], row["PyTorch, %"]) == ("100.0 (1 seed)", "95.0 (1 seed)")
    assert row["ours - PyTorch, points"] == "no seed in common"
    assert row["equivalent within, points"] == ""


def test_the_same_answers_are_equivalent_within_the_rule_of_three(tmp_path):
    for framework in ("keras", "pytorch"):
        write_run(tmp_path / "runs" / framework, wrong=[1, 5], framework=framework)
    text = reported(tmp_path, f"--runs={tmp_path / 'runs'}")
    (row,) = cells(text, ACCURACY.format("demo"), "Late Fusion (M)")
    # None of ten groups differs.
    assert row["ours - PyTorch, points"] == "+0.0 [-30.0, +30.0]"
    assert row["equivalent within, points"] == "30.0"


def test_nothing_published_stands_beside_other_data(tmp_path):
    write_run(tmp_path / "runs" / "fer", name="mosi_fer")
    # The name alone does not make a subset of other videos CMU-MOSI.
    write_run(tmp_path / "runs" / "some", name="mosi")
    text = reported(tmp_path, f"--runs={tmp_path / 'runs'}")
    assert PUBLISHED not in text
    assert "84.25" not in text
    for dataset in ("mosi_fer", "mosi, not the standard test split"):
        (row,) = cells(text, ACCURACY.format(dataset), "Late Fusion (M)")
        assert row["ours, %"] == "100.0 (1 seed)"
        assert not any("published (" in head for head in row)


def test_every_published_accuracy_has_its_row_beside_a_run_on_mosi(tmp_path):
    write_run(tmp_path / "run", variant="text", name="mosi", videos=mosi_videos())
    text = reported(tmp_path, f"--runs={tmp_path / 'run'}")
    head = "published (arXiv 2511.21889), CMU-MOSI, tables 2 and 3, %"
    found = {r.name: cells(text, PUBLISHED, r.name)[0] for r in agreement.ROWS}
    assert {name: row[head] for name, row in found.items()} == {
        "MobileNetV2": "43.22",
        "ViT": "50.17",
        "BERT": "80.20",
        "Late Fusion (M)": "84.25",
        "Late Fusion (V)": "83.62",
        "Inter. Fusion (M)": "72.40",
        "Inter. Fusion (V)": "69.90",
        "Early Fusion (M)": "67.89",
        "Early Fusion (V)": "66.59",
        "Early Fusion, 2 blocks (M)": "62.37",
        "Early Fusion, 6 blocks (M)": "61.38",
        "Early Fusion, 8 blocks (M)": "69.09",
        **{f"Early Fusion, {n} blocks (V)": "" for n in (2, 6, 8)},
    }


def mosi_videos():
    """686 test rows in the 31 standard videos."""
    videos = sorted(STANDARD_MOSI_FOLDS["test"])
    return [videos[i % len(videos)] for i in range(STANDARD_MOSI_COUNTS["test"])]


def test_runs_on_the_standard_test_videos_fill_the_rows_of_mosi(tmp_path):
    early = {"variant": "early", "name": "mosi", "videos": mosi_videos(), "join": "attention"}
    write_run(tmp_path / "runs" / "m4", blocks=4, wrong=range(220), **early)
    write_run(tmp_path / "runs" / "m8", blocks=8, wrong=range(686), **early)
    # Of one row in a hundred the clip may be unusable; of more it is another test set.
    vit = {**early, "backbones": {"image": "/vault/ViT-base/"}}
    write_run(tmp_path / "runs" / "v4", blocks=4, **{**vit, "videos": mosi_videos()[:680]})
    write_run(tmp_path / "runs" / "v2", blocks=2, **{**vit, "videos": mosi_videos()[:679]})
    text = reported(tmp_path, f"--runs={tmp_path / 'runs'}")

    def row(name, title=PUBLISHED):
        return cells(text, title, name)[0]

    assert row("Early Fusion (M)")["ours, %"] == "67.9 (1 seed)"
    assert row("Early Fusion (M)")["published within it"] == "yes"
    # All wrong or all right, of 31 videos: 3 / 31 are in doubt by the rule of three.
    eight = row("Early Fusion, 8 blocks (M)")
    assert eight["published within it"] == "no, 59.41 points above the interval"
    assert row("Early Fusion (V)")["published within it"] == "no, 23.73 points below the interval"
    assert row("Early Fusion, 2 blocks (V)")["ours, %"] == ""
    other = row("Early Fusion, 2 blocks (V)", ACCURACY.format("mosi, not the standard test split"))
    assert other["test rows"] == "679"


def test_costs_come_from_runs_artifacts_and_measurements(tmp_path):
    folder = write_run(tmp_path / "runs" / "a")
    parent = folder / "parents" / "text"
    write_run(parent, "text")
    (parent / "history.csv").write_text("epoch,seconds\n1,70\n")
    about = json.loads((folder / "config.json").read_text())
    same = {"spec": about["spec"], "backbones": reports.BACKBONES}
    of = artifact("late", 80, **same)
    timed = [contender("late", 10, of), contender("torch", 20, of, runner="torch")]
    paced = contender("paced", 99, of, hz=5)
    text = reported(
        tmp_path,
        measured(tmp_path / "a.json", *timed, paced),
        f"--runs={tmp_path / 'runs'}",
    )
    (row,) = cells(text, COSTS.format("demo"), "Late Fusion (M)")
    assert row["parameters, million"] == "123.45"
    assert row["training, ours, s"] == "20 + 70"
    assert row["training, PyTorch, s"] == ""
    assert row["p50, ms: ort, fp32, 2 threads, A &lt;CPU>"] == "9.00 [8.50, 9.50]"
    assert row["p50, ms: torch, fp32, 2 threads, A &lt;CPU>"] == "18.0 [17.0, 19.0]"
    assert "99" not in " ".join(row.values())
    # The run inside the run is no row of its own.
    assert not cells(text, ACCURACY.format("demo"), "BERT")


def test_macs_are_of_the_artifact_that_was_exported_of_the_run(tmp_path):
    write_run(tmp_path / "run")
    (pair,) = runs.paired(runs.read_all([tmp_path / "run"]))
    mine = {**pair[runs.OURS].model.artifact, "macs": 1_234_500_000}
    other = {**mine, "variant": "inter", "macs": 1}
    tables = comparison.parts([pair], [], [other, mine], {})
    assert tables[-1].rows[0][tables[-1].heads.index("MACs, million")] == "1,234.5"


def test_partial_runs_are_passed_over_and_a_place_without_any_is_a_sentence(tmp_path, capsys):
    write_run(tmp_path / "runs" / "a.partial")
    assert report([f"--runs={tmp_path / 'runs'}", f"--out={tmp_path / 'r'}"]) == 2
    assert f"error: {tmp_path / 'runs'} holds no finished run" in capsys.readouterr().err


def test_the_same_seed_twice_is_refused_and_the_same_folder_twice_is_not(tmp_path):
    first = write_run(tmp_path / "a")
    assert len(runs.read_all([first, tmp_path])) == 1
    second = write_run(tmp_path / "b")
    with pytest.raises(ReportError, match=rf"{first} and {second} are both seed 0"):
        runs.paired(runs.read_all([tmp_path]))


def test_another_recipe_is_another_model(tmp_path):
    write_run(tmp_path / "a")
    second = write_run(tmp_path / "b")
    about = json.loads((second / "config.json").read_text())
    about["config"]["recipe"] = "best"
    (second / "config.json").write_text(json.dumps(about))
    assert len(runs.paired(runs.read_all([tmp_path]))) == 2


def test_seeds_trained_before_the_data_had_sections_are_of_the_same_model(tmp_path):
    # How a file is read is no setting that older runs had; its rows are compared.
    before = {"max_length": 64, "text_column": "text", "raw_dir": "Raw", "demo_size": 50}
    today = {
        "max_length": 64,
        "manifest": {"text_column": "text", "missing": ["nan"], "encoding": "gbk"},
        "mosi": {"raw_dir": "elsewhere"},
        "demo": {"size": 50},
    }
    for seed, data in enumerate((before, today)):
        folder = write_run(tmp_path / str(seed), seed=seed)
        about = json.loads((folder / "config.json").read_text())
        about["config"]["data"] = data
        (folder / "config.json").write_text(json.dumps(about))
    assert len(runs.paired(runs.read_all([tmp_path]))) == 1


@pytest.mark.parametrize("name", ["config.json", "predictions.csv"])
def test_a_run_that_is_cut_short_is_a_sentence(tmp_path, name):
    path = write_run(tmp_path / "run") / name
    path.write_text(path.read_text()[:25])
    with pytest.raises(ReportError, match="is not laid out as a run is"):
        runs.read_all([tmp_path])


# --- Agreement with the paper -----------------------------------------------------------------


def agreeing():
    """An interval of two points around each published accuracy."""
    values = {row.name: float(row.accuracy) / 100 for row in agreement.ROWS if row.accuracy}
    return {name: Interval(x, x - 0.02, x + 0.02) for name, x in values.items()}


def test_published_accuracies_within_our_intervals_leave_no_gap():
    assert len(agreeing()) == 12
    assert agreement.gaps(agreeing()) == []


def test_every_gap_is_named_with_both_numbers():
    found = agreeing()
    found["BERT"] = Interval(0.70, 0.68, 0.72)
    found["Inter. Fusion (V)"] = Interval(0.75, 0.73, 0.77)
    del found["Early Fusion, 8 blocks (M)"]
    assert agreement.gaps(found) == [
        "BERT: published 80.20 %, ours 70.0 [68.0, 72.0] %, 8.20 points above the interval",
        "Inter. Fusion (V): published 69.90 %, ours 75.0 [73.0, 77.0] %, 3.10 points below the "
        "interval",
        "Early Fusion, 8 blocks (M): published 69.09 %, ours not measured",
    ]


def test_an_accuracy_on_the_edge_of_the_interval_is_within():
    found = agreeing() | {"BERT": Interval(0.81, 0.802, 0.82)}
    assert agreement.gaps(found) == []


def test_only_runs_on_mosi_are_compared_with_the_paper(tmp_path):
    write_run(tmp_path / "fer", "text", name="mosi_fer")
    write_run(tmp_path / "mosi", "text", name="mosi", videos=mosi_videos(), wrong=range(137))
    found = agreement.accuracies(runs.paired(runs.read_all([tmp_path])))
    assert found.keys() == {"BERT"}
    assert found["BERT"].mean == pytest.approx(549 / 686)


def test_two_models_of_one_row_are_not_chosen_from(tmp_path):
    for name, preset in (("a", "bert_base"), ("b", "minilm")):
        mosi = {"name": "mosi", "videos": mosi_videos(), "backbones": {"text": preset}}
        write_run(tmp_path / name, "text", **mosi)
    with pytest.raises(ReportError, match="two models are BERT"):
        agreement.accuracies(runs.paired(runs.read_all([tmp_path])))


# --- CMU-MOSI's layout, rehearsed -------------------------------------------------------------


def test_the_middle_frame_of_a_clip_is_the_face(data_root, tmp_path):
    path = sorted((data_root / "mosi_fer" / "frames").glob("*.jpg"))[0]
    face = np.asarray(Image.open(path).convert("RGB"))
    write_clip(tmp_path / "clip.mp4", face)
    found = middle_frame(tmp_path / "clip.mp4").astype(int)
    assert found.shape == face.shape
    assert FRAMES % 2 == 1
    # The frames around it are its negative.
    assert np.abs(found - face).mean() < 3


@pytest.mark.large
@pytest.mark.slow
def test_one_command_leads_from_clips_to_the_tables_and_goes_on_where_it_stopped(
    data_root, tmp_path
):
    label = write_layout(data_root / "mosi_fer" / "manifest.csv", tmp_path / "data", 36)
    command = [sys.executable, "-m", "bench.paper", str(label)]
    command += [f"--raw_dir={label.parent / 'Raw'}", f"--workdir={tmp_path / 'paper'}"]
    command += ["--seeds=0", "--vision=mobilenet", "--blocks=2", "--frameworks=ours,pytorch"]
    command += ["--mobilenet=random:tiny_mobilenet", "--config.text.preset=random:tiny_bert"]
    command += [f"--config.{name}" for name in TINY]
    command += [f"--config.data.cache_dir={tmp_path / 'cache'}"]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert "done before" not in first.stdout
    assert "copy to_orin/bench and" in first.stdout
    text = (tmp_path / "paper" / "report.md").read_text().replace("\\", "")
    names = ["MobileNetV2", "BERT", "Late Fusion (M)", "Inter. Fusion (M)", "Early Fusion (M)"]
    for name in [*names, "Early Fusion, 2 blocks (M)"]:
        (row,) = cells(text, ACCURACY.format("mosi_fer"), name)
        assert all(row.values()), f"{name} lacks {[h for h, cell in row.items() if not cell]}"
        (row,) = cells(text, COSTS.format("mosi_fer"), name)
        assert all(cell for head, cell in row.items() if "fp16" not in head), row
        (row,) = cells(text, PUBLISHED, name)
        assert row["ours, %"] == row["PyTorch, %"] == ""
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert second.stdout.count("done before") == 1 + 6 + 6 + 6 + 1 + 6


TINY = [
    "data.name=mosi_fer",
    "image.size=32",
    "train.batch_size=8",
    "train.epochs=1",
    "parent.epochs=1",
]


@pytest.mark.mosi
def test_the_published_accuracies_lie_within_our_intervals(tmp_path):
    """Tables 2 and 3, on the real CMU-MOSI; days of training where no runs are given."""
    data, place = (os.environ.get(f"FUSION_KERAS_MOSI{end}") for end in ("", "_RUNS"))
    if not data:
        pytest.skip(
            "set FUSION_KERAS_MOSI to a folder with CMU-MOSI's label.csv and Raw/, and "
            "FUSION_KERAS_MOSI_RUNS to the --workdir of `python -m bench.paper` on it: a finished "
            "one is taken as it is, else it is trained there, for days"
        )
    place = Path(place) if place else tmp_path / "paper"
    if not (place / "report.md").is_file():
        flags = [f"{data}/label.csv", f"--raw_dir={data}/Raw", f"--workdir={place}"]
        subprocess.run([sys.executable, "-m", "bench.paper", *flags], check=True)
    gaps = agreement.gaps(agreement.accuracies(runs.paired(runs.read_all([place / "runs"]))))
    assert not gaps, "The paper and we part:\n" + "\n".join(gaps)


def test_a_model_is_scored_by_the_rows_that_it_answers_rightly(tmp_path):
    write_run(tmp_path / "run", wrong=[0, 1, 2])
    (pair,) = runs.paired(runs.read_all([tmp_path]))
    assert isinstance(pair[runs.OURS].model, Model)
    assert pair[runs.OURS].model.accuracy.mean == pytest.approx(17 / 20)
    assert pair[runs.OURS].model.units == 10
