"""What the report says a teacher gave: who stands beside a taught model, and controls' names."""

import shutil

import pytest

from bench.report import runs, taught
from tests.support.reports import cells, reported, write_run

TEACHER = {"pairs": 2, "share": 0.5, "unlabelled": ""}
DISTIL = {"epochs": 4, "patience": 2, "label_smoothing": 0.0}
SHORT = {"counts": {"train": 100}, "name": "demo"}


def train(folder, recipe, wrong, seed=0, variant="early", **changes):
    """A run of 100 training rows; `train`, `about`: settings of it."""
    config = {"recipe": recipe, "train": DISTIL | changes.pop("train", {})}
    config["teacher"] = TEACHER | {"runs": [], **changes.pop("teacher", {})}
    about = {"dataset": SHORT, **changes.pop("about", {})}
    about |= {"config": config | {"data": {}, "text": {"preset": "b"}, "image": {"preset": "m"}}}
    spec = {"join": "attention", "blocks": 4, "group_size": 1, "rows": 40}
    return write_run(folder, variant, seed, range(wrong), about=about, **spec, **changes)


def teach(folder, run, wrong=4, recipe="distil", sha256="0", **changes):
    """A run that a teacher's answers to 200 further rows taught."""
    changes["teacher"] = {"runs": [str(run)], **changes.get("teacher", {})}
    about = {"teachers": {str(run): sha256}, "extra_rows": 200} | changes.pop("about", {})
    return train(folder, recipe, wrong, variant="early taught", about=about, **changes)


def section(text):
    return text.split("## What the teacher gave")[1].split("\n## ")[0]


def rows(text, title="demo: early taught, 1 teacher"):
    """Row -> its cells, of the section's table of a taught model."""
    lines = section(text).split(f"**{title}**")[1].split("\n\n")[1].splitlines()
    names = [line.strip("|").split(" | ")[0].strip() for line in lines[2:]]
    return {name: cells(text, title, name)[0] for name in names}


@pytest.fixture
def place(tmp_path):
    """A taught run of each of two seeds, their teachers and themselves alone, in `runs`."""
    for seed in (0, 1):
        name = f"s{seed}"
        late = train(tmp_path / "runs" / f"late-{name}", "best", 2, seed, variant="late")
        train(tmp_path / "runs" / f"early-{name}", "best", 10, seed)
        teach(tmp_path / "runs" / f"taught-{name}", late, seed=seed)
    return tmp_path / "runs"


def test_each_is_compared_with_the_taught_one_row_by_row(tmp_path, place):
    train(place / "long", "distil", 8, train={"epochs": 12})
    train(place / "smoothed", "distil", 6, train={"epochs": 12, "label_smoothing": 0.1})
    text = reported(tmp_path, f"--runs={place}")
    found = rows(text)
    assert list(found) == [
        "the teacher, late",
        "early, alone",
        "early, as long without the teacher",
        "early, as long without the teacher, label smoothing 0.1",
        "early taught",
    ]
    # Of 40 rows 4 are answered wrongly by the taught one, 2, 10, 8 and 6 by the others.
    gains = [row["taught - it, points"].split(" ")[0] for row in found.values()]
    assert gains == ["-5.0", "+15.0", "+10.0", "+5.0", ""]
    assert found["early, alone"]["test accuracy, %"] == "75.0 ± 0.0 (2 seeds)"
    long = found["early, as long without the teacher"]
    assert long["taught - it, points"].endswith("] (seed 0)")
    # Two lines of history; a teacher answers 200 rows beside the 100.
    assert long["passes × rows"] == "2 × 100"
    assert found["early taught"]["passes × rows"] == "2 × 300"
    assert "Not among the runs" not in section(text)


def test_a_control_is_no_row_of_its_variant(tmp_path, place):
    train(place / "long", "distil", 8, train={"epochs": 12})
    text = reported(tmp_path, f"--runs={place}")
    title = "demo: accuracy by PyTorch and by us"
    (alone,) = cells(text, title, "Early Fusion (M)")
    assert alone["ours, %"] == "75.0 ± 0.0 (2 seeds)"
    (control,) = cells(text, title, "early, as long without the teacher")
    assert control["ours, %"] == "80.0 (1 seed)"


def test_what_is_missing_is_said_with_its_flags(tmp_path, place):
    shutil.rmtree(place / "late-s1")
    shutil.rmtree(place / "early-s0")
    shutil.rmtree(place / "early-s1")
    (said,) = [
        line
        for line in section(reported(tmp_path, f"--runs={place}")).splitlines()
        if line.startswith("Not among the runs: ")
    ]
    assert f"the teacher {place / 'late-s1'}, to be added to --runs" in said
    assert "early, alone (--variant=early with an ordinary --recipe)" in said
    # A pass of the taught one is over three times as many rows.
    assert "with --config.train.epochs=12 --config.train.patience=6)" in said
    assert "(the same and --config.train.label_smoothing=0.1)" in said


def test_alone_for_as_many_rows_is_the_control_too(tmp_path):
    late = train(tmp_path / "runs" / "late", "demo", 2, variant="late")
    train(tmp_path / "runs" / "early", "demo", 10)
    folder = teach(tmp_path / "runs" / "taught", late, recipe="demo", teacher={"pairs": 0})
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"extra_rows": 200', '"extra_rows": 0'))
    text = reported(tmp_path, f"--runs={tmp_path / 'runs'}")
    assert list(rows(text)) == ["the teacher, late", "early, alone", "early taught"]
    (said,) = [line for line in section(text).splitlines() if line.startswith("Not among")]
    assert "label smoothing" in said.split(";")[0]


def test_of_any_recipe_the_longer_one_is_the_control(tmp_path):
    late = train(tmp_path / "runs" / "late", "demo", 2, variant="late")
    train(tmp_path / "runs" / "early", "demo", 10)
    train(tmp_path / "runs" / "long", "demo", 8, train={"epochs": 12})
    teach(tmp_path / "runs" / "taught", late, recipe="demo")
    names = list(rows(reported(tmp_path, f"--runs={tmp_path / 'runs'}")))
    assert names[1:3] == ["early, alone", "early, as long without the teacher"]


def test_a_control_that_sees_fewer_rows_is_not_called_as_long(tmp_path, place):
    train(place / "distil", "distil", 8)
    assert "early, without the teacher" in rows(reported(tmp_path, f"--runs={place}"))


def test_a_student_without_a_taught_one_has_its_name_and_no_section(tmp_path):
    train(tmp_path / "runs" / "a", "distil", 8)
    train(tmp_path / "runs" / "b", "best", 10)
    text = reported(tmp_path, f"--runs={tmp_path / 'runs'}")
    assert "What the teacher gave" not in text
    assert (
        len(cells(text, "demo: accuracy by PyTorch and by us", "early, without the teacher")) == 1
    )


def test_a_teacher_that_was_moved_is_known_by_its_model(tmp_path):
    sha256 = "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"
    late = train(tmp_path / "runs" / "late", "best", 2, variant="late")
    (late / "model.keras").write_text("alice")
    teach(tmp_path / "runs" / "taught", tmp_path / "gone", sha256=sha256)
    assert "the teacher, late" in rows(reported(tmp_path, f"--runs={tmp_path / 'runs'}"))


def test_a_teacher_that_was_trained_anew_since_taught_nobody(tmp_path):
    late = train(tmp_path / "runs" / "late", "best", 2, variant="late")
    (late / "model.keras").write_text("another")
    teach(tmp_path / "runs" / "taught", late, sha256="0" * 64)
    text = reported(tmp_path, f"--runs={tmp_path / 'runs'}")
    assert "the teacher, late" not in rows(text)
    assert f"the teacher {late}, to be added to --runs" in text


def test_models_that_other_teachers_taught_are_no_seeds_of_one(tmp_path, place):
    for seed, teacher in enumerate(("late, best: b, m", "text, best: b")):
        by = {"taught_by": [teacher], "unlabelled_sha256": "5"}
        table = {"unlabelled": f"{seed}.csv"}
        teach(place / f"by{seed}", place / "late-s0", 4, seed=seed, about=by, teacher=table)
    text = reported(tmp_path, f"--runs={place}")
    for teacher in ("late, best: b, m", "text, best: b"):
        assert f"teacher.models=['{teacher}']" in text


def test_two_ways_of_teaching_have_tables_that_can_be_told_apart(tmp_path, place):
    teach(place / "alike", place / "late-s0", 6, teacher={"pairs": 5})
    teach(place / "more", place / "late-s0", 5, teacher={"unlabelled": "sentences.csv"})
    text = reported(tmp_path, f"--runs={place}")
    few, many = (f"demo: early taught, 1 teacher, teacher.pairs={pairs}" for pairs in (2, 5))
    assert rows(text, few)["early taught"]["test accuracy, %"] == "90.0 ± 0.0 (2 seeds)"
    assert rows(text, many)["early taught"]["test accuracy, %"] == "85.0 (1 seed)"
    unlabelled = rows(text, "demo: early taught, 1 teacher, unlabelled rows")
    assert unlabelled["early taught"]["test accuracy, %"] == "87.5 (1 seed)"


def test_a_setting_that_is_off_is_that_of_runs_from_before_there_was_one(tmp_path, place):
    late = train(tmp_path / "runs" / "late-s2", "best", 2, 2, variant="late")
    teach(place / "later", late, seed=2, teacher={"edits": 0.0})
    teach(place / "changed", late, 6, seed=2, teacher={"edits": 0.3})
    text = reported(tmp_path, f"--runs={place}")
    found = rows(text, "demo: early taught, 1 teacher, teacher.edits=0.0")
    assert found["early taught"]["test accuracy, %"] == "90.0 ± 0.0 (3 seeds)"
    changed = rows(text, "demo: early taught, 1 teacher, teacher.edits=0.3")
    assert changed["early taught"]["test accuracy, %"] == "85.0 (1 seed)"


def test_metrics_are_averaged_where_every_seed_has_them(tmp_path):
    for seed, auroc in enumerate((0.8, 0.9)):
        found = {"auroc": {"value": auroc}} | {"nll": {"value": 0.5 if seed else None}}
        metrics = {"splits": {"test": {"metrics": found}}}
        teach(tmp_path / "runs" / f"{seed}", "gone", seed=seed, metrics=metrics)
    row = rows(reported(tmp_path, f"--runs={tmp_path / 'runs'}"))["early taught"]
    assert (row["test AUROC"], row["test NLL"]) == ("0.850", "")


def test_without_measurements_the_answer_is_of_the_teacher(place):
    (said,) = taught.lead(taught.named(runs.paired(runs.read_all([place]))))
    assert said.startswith("demo: early taught, 1 teacher: accuracy 90.0 ± 0.0 (2 seeds) %; ")
    assert "against early, alone: +15.0 [" in said
