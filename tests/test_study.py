"""The study's steps: what is planned, what is done before, what a failure says."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.studies.binding import same_study
from bench.studies.conducting import study
from bench.studies.study import Step, StudyError, export_step, of_runs, steps
from bench.study import _parser, main
from fusion_keras.jobs import Share, shares


def plan(tmp_path, *flags):
    return steps(_parser().parse_args([f"--workdir={tmp_path}", *flags]), ["--config.x=1"])


def test_a_dry_run_checks_the_trainings_and_leaves_nothing(tmp_path, capsys):
    flags = ["--variants=text,image", f"--workdir={tmp_path / 'study'}", "--dry_run"]
    wrong = ["--config.data.source=manifest", "--config.data.path=/nowhere.csv"]
    assert main([*flags, *wrong]) == 2
    assert "/nowhere.csv" in capsys.readouterr().err
    assert main([*flags, "--config.data.demo.size=200"]) == 0
    said = capsys.readouterr().out
    assert "[2/7] train text-s0" in said
    assert "7 of 7 steps are left; nothing was begun." in said
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("teaching", "said"),
    [
        ("--config.teacher.pears=1", "--config.teacher.pears is no setting. Is it"),
        ("--config.teacher.unlabelled=none.csv", "names none.csv, which is no file"),
    ],
)
def test_what_only_taught_trainings_are_told_is_checked_first(teaching, said, tmp_path, capsys):
    place = tmp_path / "study"
    assert main(["--teacher=late", f"--teaching={teaching}", f"--workdir={place}"]) == 2
    assert said in capsys.readouterr().err
    assert not place.exists()


def test_taught_trainings_are_checked_first_as_far_as_they_need_no_teacher(tmp_path):
    flags = ("--variants=late,early", "--teacher=late")
    more = "--teaching=--recipe=best --config.teacher.pairs=1"
    first, *others = plan(tmp_path, *flags, more)
    assert first.command[-3:] == ["--seed=0", "--config.x=1", "--recipe=best"]
    [again] = [step for step in others if step.kind == "check"]
    assert "--config.teacher.pairs=1" in again.command()


def test_a_folder_of_another_study_says_what_differs(tmp_path):
    same_study(tmp_path, ["--config.a=1", "--config.b=1"])
    (tmp_path / "runs" / "text-s0.partial").mkdir(parents=True)
    with pytest.raises(StudyError, match=r"a study with --config[.]b=1, got --config[.]b=2: re"):
        same_study(tmp_path, ["--config.a=1", "--config.b=2"])


def test_unimodal_variants_are_trained_first_and_all_are_exported(tmp_path):
    planned = plan(tmp_path, "--variants=late,text,image", "--seeds=0,1")
    said = [f"{s.kind} {s.name}" for s in planned]
    runs = ["text-s0", "image-s0", "late-s0", "text-s1", "image-s1", "late-s1"]
    assert said[:7] == ["check all", *(f"train {name}" for name in runs)]
    assert said[7:] == [*(f"export {name}" for name in runs), "measure all", "report all"]
    assert "--config.x=1" in planned[1].command
    assert f"--run={tmp_path / 'runs' / 'late-s1'}" in planned[6].command


def test_all_trainings_are_checked_before_the_first_and_none_again(tmp_path):
    first, *_ = plan(tmp_path, "--variants=late,text", "--seeds=0")
    given = first.command[first.command.index("fusion_keras.plan") + 1 :]
    text, late = ([f"--variant={v}", "--seed=0", "--config.x=1"] for v in ("text", "late"))
    assert given == [*text, "--", *late]
    assert not first.done()
    (tmp_path / "runs" / "text-s0").mkdir(parents=True)
    (tmp_path / "runs" / "text-s0" / "metrics.json").touch()
    first, *_ = plan(tmp_path, "--variants=late,text", "--seeds=0")
    assert first.command[-3:] == late
    assert not first.done()


def test_one_seed_is_measured_and_all_are_reported(tmp_path):
    *_, measured, reported = plan(tmp_path, "--variants=text", "--seeds=0,1", "--budget_ms=7")
    folders = [str(tmp_path / "artifacts" / f"text-s{seed}") for seed in (0, 1)]
    assert folders[0] in measured.command
    assert folders[1] not in measured.command
    assert {*folders, "--budget_ms=7.0"} < set(reported.command)


def test_what_an_export_may_lose_is_handed_on(tmp_path):
    planned = plan(tmp_path, "--variants=text,late", "--allow_loss=2.5")
    assert all(s.command[-1] == "--allow_loss=2.5" for s in planned if s.kind == "export")
    planned = plan(tmp_path, "--variants=text")
    assert not any("--allow_loss" in flag for s in planned for flag in s.command)


def test_joint_variants_are_taught_by_the_teachers_of_all_seeds(tmp_path):
    flags = (
        "--variants=text,late,early",
        "--seeds=0,1",
        "--teacher=late",
        "--teaching=--recipe=distil",
    )
    planned = plan(tmp_path, *flags)
    said = [f"{s.kind} {s.name}" for s in planned]
    assert said[7:10] == ["check taught", "train early-taught-s0", "train early-taught-s1"]
    late = ",".join(str(tmp_path / "runs" / f"late-s{seed}") for seed in (0, 1))
    assert planned[8].command[-5:-1] == [
        "--seed=0",
        "--config.x=1",
        "--recipe=distil",
        f"--teacher={late}",
    ]
    measured = next(s for s in planned if s.kind == "measure")
    assert str(tmp_path / "artifacts" / "early-taught-s0") in measured.command
    assert str(tmp_path / "artifacts" / "early-taught-s1") not in measured.command
    assert str(tmp_path / "artifacts" / "early-taught-s1") in planned[-1].command


def test_a_teacher_that_is_not_trained_is_refused(tmp_path, capsys):
    assert main([f"--workdir={tmp_path}", "--variants=text,early", "--teacher=late"]) == 2
    assert "not among --variants: add it" in capsys.readouterr().err
    assert main([f"--workdir={tmp_path}", "--controls"]) == 2
    assert "--controls is given, and no --teacher" in capsys.readouterr().err
    late = [f"--workdir={tmp_path}", "--teacher=late"]
    assert main([*late, "--teaching=--recipe=distil --seed=3"]) == 2
    assert "--seed=3 is no flag" in capsys.readouterr().err
    assert main([*late, "--config.data.label_kind=multi"]) == 2
    assert "which no teacher can answer with" in capsys.readouterr().err


def finished(folder, extra_rows, **train):
    folder.mkdir(parents=True)
    about = {"config": {"train": {"epochs": 4, "patience": 0, "label_smoothing": 0.0} | train}}
    about["config"]["teacher"] = {"pairs": int(extra_rows > 0)}
    about |= {"dataset": {"counts": {"train": 100}}, "extra_rows": extra_rows}
    (folder / "config.json").write_text(json.dumps(about))


def controlled(tmp_path, teaching, *more):
    """Name -> step, of a study with controls."""
    flags = ["--variants=text,late,early", "--teacher=late", f"--teaching={teaching}", *more]
    return {step.name: step for step in plan(tmp_path, *flags, "--controls")}


def test_controls_are_the_taught_training_for_as_many_rows_without_its_teacher(tmp_path):
    teaching = "--recipe=distil --config.teacher.pairs=1 --config.train.epochs=3"
    steps_of = controlled(tmp_path, teaching)
    finished(tmp_path / "runs" / "early-taught-s0", 150, epochs=3, patience=4)
    same = ["--variant=early", "--seed=0", "--config.x=1", "--recipe=distil"]
    # 100 rows and 150 further ones: 3 passes are 7.5 over the own rows alone.
    longer = ["--config.train.epochs=8", "--config.train.patience=10"]
    for name, more in (("untaught", []), ("smoothed", ["--config.train.label_smoothing=0.1"])):
        control = steps_of[f"early-{name}-s0"]
        assert not control.done()
        folder = tmp_path / "runs" / f"early-{name}-s0"
        assert control.command()[3:] == [*same, *longer, *more, f"--run={folder}"]


def test_controls_are_trained_after_the_taught_and_go_to_the_report_alone(tmp_path):
    flags = ["--variants=text,late,early", "--teacher=late", "--controls", "--seeds=0,1"]
    planned = plan(tmp_path, *flags)
    trained = [s.name for s in planned if s.kind in ("train", "control")]
    kinds = ("untaught", "smoothed")
    assert trained[-6:-4] == ["early-taught-s0", "early-taught-s1"]
    assert trained[-4:] == [f"early-{kind}-s{seed}" for seed in (0, 1) for kind in kinds]
    exported = [s.name for s in planned if s.kind == "export"]
    assert exported == trained[:-4]
    assert f"--runs={tmp_path / 'runs'}" in planned[-1].command


def test_a_model_alone_that_is_as_long_is_not_trained_again(tmp_path):
    finished(tmp_path / "runs" / "early-taught-s0", 0)
    # A flag may say what is so anyway.
    steps_of = controlled(tmp_path, "--config.teacher.pairs=0 --config.train.epochs=4")
    assert not steps_of["early-untaught-s0"].done()
    finished(tmp_path / "runs" / "early-s0", 0)
    assert steps_of["early-untaught-s0"].done()
    assert not steps_of["early-smoothed-s0"].done()


@pytest.mark.parametrize("other", [{"extra_rows": 100}, {"extra_rows": 0, "epochs": 8}])
def test_a_model_alone_of_other_settings_or_rows_is_no_control(tmp_path, other):
    steps_of = controlled(tmp_path, "--config.teacher.pairs=0")
    finished(tmp_path / "runs" / "early-s0", 0)
    finished(tmp_path / "runs" / "early-taught-s0", **other)
    assert not steps_of["early-untaught-s0"].done()


def test_the_report_has_the_runs_only_where_there_is_a_teacher(tmp_path):
    flags = ["--variants=text,late,early"]
    taught, alone = plan(tmp_path, *flags, "--teacher=late"), plan(tmp_path, *flags)
    assert f"--runs={tmp_path / 'runs'}" in taught[-1].command
    assert not any(str(part).startswith("--runs") for part in alone[-1].command)
    assert not any("untaught" in step.name for step in taught)


def test_a_command_may_depend_on_the_steps_before(tmp_path):
    file = tmp_path / "made"
    code = f"open({str(file)!r}, 'a').write('x')"
    late = dataclasses.replace(
        step(tmp_path, ""), command=lambda: [sys.executable, "-c", code * len(file.read_text())]
    )
    study([step(tmp_path, code), late], quiet, quiet, shares(1))
    assert file.read_text() == "xx"


def quiet(line):
    pass


def step(tmp_path, code, done=False):
    command = [sys.executable, "-c", code]
    return Step("export", "x", command, tmp_path / "logs" / "x.log", lambda: done)


def test_what_is_done_is_not_done_again(tmp_path):
    file = tmp_path / "made"
    code = f"open({str(file)!r}, 'a').write('x')"
    said = []
    study([step(tmp_path, code, done=True), step(tmp_path, code)], said.append, quiet, shares(1))
    assert file.read_text() == "x"
    assert said[0] == "[1/2] export x: done before"
    assert said[1].startswith("[2/2] export x: ")


def test_a_step_that_fails_ends_the_study_with_its_sentence(tmp_path):
    code = "import sys; print('error: no such run.'); print('bye'); sys.exit(2)"
    with pytest.raises(StudyError, match=r"export x failed \(no such run\.\).*x\.log"):
        study([step(tmp_path, code)], quiet, quiet, shares(1))


@pytest.mark.parametrize(("kind", "goes_on"), [("check", False), ("train", True)])
def test_a_study_goes_on_from_all_but_its_first_check(kind, goes_on, tmp_path):
    with pytest.raises(StudyError) as told:
        study([named(tmp_path, kind, "all", "1 / 0")], quiet, quiet, shares(1))
    assert str(told.value).endswith("goes on from here.") == goes_on


def named(tmp_path, kind, name, code):
    command = [sys.executable, "-c", code]
    return Step(kind, name, command, tmp_path / f"{kind}-{name}.log", lambda: False)


def test_steps_side_by_side_wait_for_those_before_them(tmp_path):
    # Each notes when it began and ended.
    def noting(name):
        lines = ["import time; a = time.time(); time.sleep(1)"]
        return "; ".join(
            [*lines, f"open({str(tmp_path / name)!r}, 'w').write(f'{{a}} {{time.time()}}')"]
        )

    wanted = [("train", "late-s0"), ("train", "text-s0"), ("train", "image-s0"), ("measure", "all")]
    planned = [named(tmp_path, k, n, noting(n)) for k, n in wanted]
    said = []

    study(planned, said.append, quiet, shares(2))

    began, ended = {}, {}
    for _, name in wanted:
        began[name], ended[name] = map(float, (tmp_path / name).read_text().split())
    assert began["image-s0"] < ended["text-s0"]
    assert max(ended["text-s0"], ended["image-s0"]) < began["late-s0"]
    assert ended["late-s0"] < began["all"]
    assert len(said) == 4


def test_what_runs_alone_has_the_whole_machine(tmp_path):
    file = tmp_path / "cores"
    code = f"import os; open({str(file)!r}, 'w').write(str(len(os.sched_getaffinity(0))))"
    few, whole = Share(shares(1)[0].cores[:1]), shares(1)
    study([named(tmp_path, "measure", "all", code)], quiet, quiet, [few, few], (), whole)
    assert int(file.read_text()) == len(whole[0].cores)
    study([named(tmp_path, "export", "a", code)], quiet, quiet, [few, few], (), whole)
    assert int(file.read_text()) == 1


def test_an_export_with_another_bar_is_not_done(tmp_path, tiny_run, tiny_artifact):
    asked = (tmp_path, tiny_run, tiny_artifact, ["fp16", "int8", "int8_static"], [6])
    assert export_step(*asked).done()
    assert not export_step(*asked, allow_loss=0.25).done()


def test_runs_without_a_seed_in_their_names_are_models_of_their_own(tmp_path):
    names = {"late-small": True, "late-sharp": True, "image-tiny-s0": False, "image-tiny-s1": False}
    for name, text in names.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text("{}")
        inputs = {"token_ids": {}} if text else {"image": {}}
        (tmp_path / name / "config.json").write_text(json.dumps({"inputs": inputs}))
    folders = ",".join(str(tmp_path / name) for name in names)
    options, _ = _parser().parse_known_args(
        [f"--workdir={tmp_path / 'w'}", f"--runs={folders}", "--buckets=16"]
    )
    planned = of_runs(options)
    (measure,) = (step for step in planned if step.kind == "measure")
    measured = [part.name for part in map(Path, measure.command) if part.parent.name == "artifacts"]
    assert measured == ["late-small", "late-sharp", "image-tiny-s0"]
    told = {s.name: "--buckets=16" in s.command for s in planned if s.kind == "export"}
    assert told == names


def test_what_runs_beside_a_step_that_fails_is_ended(tmp_path):
    file = tmp_path / "long"
    long = f"import time; time.sleep(30); open({str(file)!r}, 'w')"
    planned = [named(tmp_path, "export", "a", long), named(tmp_path, "export", "b", "1 / 0")]

    with pytest.raises(StudyError, match=r"export b failed \(ZeroDivisionError"):
        study(planned, quiet, quiet, shares(2))

    assert not file.exists()


def test_a_step_may_end_with_what_is_fine(tmp_path):
    made = dataclasses.replace(step(tmp_path, "import sys; sys.exit(1)"), fine=(0, 1))
    study([made], quiet, quiet, shares(1))


@pytest.mark.parametrize(
    "flag",
    [
        "--precisions=int4",
        "--variants=both",
        "--seeds=x",
        "--budget_ms=-3",
        "--buckets=2",
        "--allow_loss=x",
    ],
)
def test_a_typo_is_found_before_any_training(tmp_path, capsys, flag):
    with pytest.raises(SystemExit) as ended:
        main([f"--workdir={tmp_path}", flag])
    assert ended.value.code == 2
    assert flag.split("=")[0] in capsys.readouterr().err


def test_a_damaged_note_of_the_study_is_a_sentence(tmp_path):
    (tmp_path / "study.json").write_text("[")
    with pytest.raises(StudyError, match="damaged"):
        same_study(tmp_path, [])


def test_two_studies_do_not_share_a_folder(tmp_path):
    same_study(tmp_path / "a", ["--config.x=1"])
    (tmp_path / "a" / "pytorch" / "text-s0").mkdir(parents=True)
    same_study(tmp_path / "a", ["--config.x=1"])
    with pytest.raises(StudyError, match="--workdir another name"):
        same_study(tmp_path / "a", ["--config.x=2"])


def test_flags_that_nothing_was_begun_with_can_be_corrected(tmp_path):
    same_study(tmp_path, ["--config.data.path=wrong.csv"])
    same_study(tmp_path, ["--config.x=1"], ["--teacher=late", "--config.teacher.share=5"])
    (tmp_path / "runs" / "late-s0").mkdir(parents=True)
    same_study(tmp_path, ["--config.x=1"], ["--teacher=late", "--config.teacher.share=.5"])
    with pytest.raises(StudyError, match=r"with --config\.x=1, got --config\.x=2"):
        same_study(tmp_path, ["--config.x=2"], ["--teacher=late"])


def test_a_teacher_of_nobody_is_refused(tmp_path, capsys):
    assert main([f"--workdir={tmp_path}", "--variants=text,late", "--teacher=late"]) == 2
    assert "no other joint one that could learn from it" in capsys.readouterr().err


def test_seeds_that_would_change_the_teacher_are_refused_at_once(tmp_path, capsys):
    same_study(tmp_path, [], ["--teacher=late", "--seeds=0"])
    (tmp_path / "runs" / "early-taught-s0").mkdir(parents=True)
    assert main([f"--workdir={tmp_path}", "--teacher=late", "--seeds=0,1"]) == 2
    assert "--seeds=0, got --seeds=0,1" in capsys.readouterr().err


def test_what_the_last_step_needs_is_asked_for_before_the_first(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bench.studies.conducting.LATER", ("json", "no_such_package"))
    assert main([f"--workdir={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert 'error: no_such_package not installed: pip install -e ".[export,bench,cpu]"' in said


def test_an_unknown_flag_is_named(tmp_path, capsys):
    assert main([f"--workdir={tmp_path}", "--seed=1"]) == 2
    assert "--seed=1 is no flag" in capsys.readouterr().err


def test_help_teaches(entries):
    said = entries.run("bench.study", "--help").stdout
    assert "--budget_ms" in said


@pytest.mark.slow
def test_one_command_leads_from_data_to_a_report_and_goes_on_where_it_stopped(tiny, tmp_path):
    flags = [flag for flag in tiny.flags() if flag.startswith("--config")]
    command = [sys.executable, "-m", "bench.study", f"--workdir={tmp_path}"]
    command += ["--variants=text,image,late", *flags]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert "done before" not in first.stdout
    assert (tmp_path / "report.html").is_file()
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert second.stdout.count("done before") == 5, "the check, three exports, the measurement"
    assert "late-s0 int8" in (tmp_path / "report.md").read_text()


def test_a_study_with_controls_says_what_it_would_do_before_there_is_a_run(tmp_path, capsys):
    flags = ["--variants=late,early", "--teacher=late", "--controls", "--dry_run"]
    more = ["--teaching=--config.teacher.pairs=1", "--config.data.demo.size=200"]
    assert main([*flags, *more, f"--workdir={tmp_path / 'study'}"]) == 0
    assert "control early-untaught-s0" in capsys.readouterr().out


def test_a_study_measures_with_the_runners_that_it_is_given(tmp_path):
    [measured] = [s for s in plan(tmp_path, "--runners=ort,openvino") if s.kind == "measure"]
    assert "--runners=ort,openvino" in measured.command
    [measured] = [s for s in plan(tmp_path) if s.kind == "measure"]
    assert "--runners=ort" in measured.command
