"""What all commands' flags have in common."""

import json
import logging
import re
from pathlib import Path

import pytest

from bench.edge import entry
from bench.edge import flags as of_bench
from fusion_keras import cli
from fusion_keras.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
NAMES = [name for names in COMMANDS.values() for name in names]
MODULES = [n if n.partition(".")[0] in ("export", "bench") else f"fusion_keras.{n}" for n in NAMES]
# What several commands define in one place.
SHARED = {
    "training_flags.define": ("fusion_keras/training_flags.py",),
    "add_growth": ("bench/studies/conducting.py",),
    "elsewhere.add_flags": ("bench/edge/elsewhere.py",),
}
# Lists whose names are not plural: of the project's first day, or a unit.
SINGULAR = {"teacher", "named", "hz", "train_audio", "train_image", "test_audio", "test_image"}
LISTS = r"flags\.words|numbers\(|some_of\(|rates|paths|folders"


def source(module: str) -> str:
    """Of a command, with what it has of others."""
    places = {"bench.predict": "bench/edge/predict.py"}
    base = ROOT / places.get(module, module.replace(".", "/"))
    file = base / "__main__.py" if base.is_dir() else base.with_suffix(".py")
    text = file.read_text()
    shared = [p for name, files in SHARED.items() if name in text for p in files]
    return text + "".join((ROOT / path).read_text() for path in shared)


def defined(text: str) -> dict[str, bool]:
    """Flag -> whether it is a list."""
    found = {n: kind == "list" for kind, n in re.findall(r'DEFINE_(\w+)\(\s*"([\w-]+)"', text)}
    call = r'add(?:_argument)?\(\s*"--([\w-]+)"((?:[^()]|\([^()]*\))*)\)'
    return found | {n: bool(re.search(LISTS, rest)) for n, rest in re.findall(call, text)}


def taught(text: str) -> set[str]:
    """The flags that a help has lines of their own for."""
    lines = [line for line in text.splitlines() if re.match(r"  (-\w, )?--\w", line)]
    flags = [re.split(r"(?<=\w)  ", line[2:])[0] for line in lines]
    return {name for part in flags for name in re.findall(r"--(\w+)\b(?!\.)", part)}


def test_flags_are_found_in_the_sources():
    assert defined(source("export"))["precisions"]
    assert defined(source("bench"))["runners"]
    assert defined(source("bench.study"))["ray"] is False
    assert {"devices", "workdir"} <= set(defined(source("fusion_keras.train")))
    assert taught("usage: x [--y]\n\n  -h, --help  of --x\n  --a=1 --b=B  c --d\n    --e") == {
        "help",
        "a",
        "b",
    }


@pytest.mark.parametrize("module", MODULES)
def test_names_have_underscores_and_lists_are_plural(module):
    for name, several in defined(source(module)).items():
        assert "-" not in name
        if several:
            assert name.endswith("s") or name in SINGULAR, name


@pytest.mark.parametrize("module", MODULES)
def test_every_command_tells_its_version_and_its_flags_as_the_table_does(entries, module):
    told = entries.run(module, "--version")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("fusion_keras ")
    shown = entries.run(module, "-h")
    assert shown.returncode == 0
    flags = taught(shown.stdout)
    assert {"help", "quiet", "verbose", "version"} <= flags
    own = set(defined(source(module))) - {"slow_by"}  # a check of the method
    if "all others" in shown.stdout:
        own -= set(defined((ROOT / "fusion_keras" / "training_flags.py").read_text()))
    assert own <= flags | set(re.findall(r"--(\w+)=", shown.stdout))
    page = (ROOT / "docs" / "commands.md").read_text()
    [row] = [line for line in page.splitlines() if line.startswith(f"| `{module}` ")]
    common = {"help", "quiet", "verbose", "version", "help_settings"}
    assert set(re.findall(r"`--(\w+)", row.rsplit("|", 2)[0])) == flags - common


def test_a_mistyped_flag_is_told_without_the_usage_and_with_what_it_may_be(capsys):
    parser = of_bench.parser("bench", "Measure.")
    parser.add_argument("--precisions")
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--precison=fp32"])
    assert ended.value.code == 2
    said = "unrecognized arguments: --precison=fp32; is it --precisions? (--help has examples)"
    assert capsys.readouterr().err == f"error: {said}\n"


@pytest.mark.parametrize("spelled", [cli.spelled, of_bench.spelled], ids=["cli", "bench"])
class TestSpelling:
    def test_hyphens_are_underscores_in_names_alone(self, spelled):
        given = ["a-b", "--max-batch=x-y", "--dry-run", "--config.data.max-length=4", "-h"]
        told = ["a-b", "--max_batch=x-y", "--dry_run", "--config.data.max_length=4", "-h"]
        assert spelled(given) == told

    def test_a_number_below_zero_and_what_follows_two_hyphens_stay(self, spelled):
        assert spelled(["-1", "--", "--a-b"]) == ["-1", "--", "--a-b"]

    def test_an_older_name_is_todays_with_a_note(self, spelled, capsys):
        assert spelled(["--batch=1", "--batch", "2"], {"batch": "batches"}) == [
            "--batches=1",
            "--batches",
            "2",
        ]
        assert "note: --batch is now --batches" in capsys.readouterr().err

    def test_what_is_no_flag_any_more_loses_its_name(self, spelled, capsys):
        older = {"runs": ""}
        assert spelled(["--runs=a,b", "--seed=1"], older) == ["a", "b", "--seed=1"]
        assert spelled(["--runs", "a"], older) == ["a"]
        assert "note: --runs is now given without its name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("export", "--run=none", "--out=x"), "none is not a finished run"),
        (("fusion_keras.port", "--run=none", "--out=x"), "none"),
        (("fusion_keras.reliance", "--runs=none"), "none is not a finished run"),
        (("fusion_keras.robustness", "none", "--precision=fp32"), "none"),
    ],
)
def test_older_spellings_work_with_a_note(entries, command, said):
    done = entries.run(*command)
    assert done.returncode == 2
    note, *_, error = done.stderr.strip().splitlines()
    assert note.startswith("note: --")
    assert said in error


def test_one_thing_at_a_time(entries):
    done = entries.run("export", "a", "b", "--out=x")
    assert done.returncode == 2
    assert "Got a and b: one run is wanted." in done.stderr


def test_help_is_short_and_the_settings_are_a_help_of_their_own(entries):
    short = entries.run("fusion_keras.train", "--help").stdout
    assert len(short.splitlines()) < 90
    assert "--config.train.epochs" not in short
    assert "--help_settings" in short
    assert "--config.train.epochs" in entries.run("fusion_keras.train", "--help-settings").stdout


def test_a_setting_may_have_hyphens(entries):
    for module in ("fusion_keras.plan", "fusion_keras.train"):
        done = entries.run(module, "--variant=text", "--config.train.batch-size=0")
        assert done.returncode == 2
        assert "batch_size is 0" in done.stderr


@pytest.fixture
def bench_log():
    """What is shown is as it was behind the test."""
    log = logging.getLogger("bench")
    before = log.level
    yield
    log.setLevel(before)


@pytest.mark.usefixtures("bench_log")
def test_with_json_or_quiet_nothing_else_is_on_stdout(capsys):
    made = of_bench.parser("bench", "", json="it")
    for given, told, progress in (([], 1, 1), (["--json"], 0, 1), (["--quiet"], 0, 0)):
        made.parse_args(given)
        entry.tell("a step")
        entry.Progress()("at it")
        said = capsys.readouterr()
        assert (said.out.count("a step"), said.err.count("at it")) == (told, progress)
    made.parse_args(["--verbose", "--json"])
    entry.tell("a step")
    entry.detail("a command")
    assert capsys.readouterr() == ("", "")


def test_as_little_and_as_much_is_refused(entries):
    for module in ("bench.report", "fusion_keras.prices"):
        done = entries.run(module, "--quiet", "--verbose")
        assert done.returncode == 2
        assert "leave one of them out" in done.stderr


def test_a_sweep_says_what_it_would_train(entries, tmp_path):
    flags = ("--config.data.demo.size=200", f"--workdir={tmp_path / 'sweep'}")
    done = entries.run("fusion_keras.sweep", "--variant=text,image", *flags, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-3:] == [
        "text",
        "image",
        "2 of 2 runs are left; none was begun.",
    ]
    assert not (tmp_path / "sweep").exists()


def test_a_figure_says_what_it_would_train(entries, tmp_path):
    flags = ("--figure=1", f"--workdir={tmp_path / 'runs'}", "--dry_run")
    done = entries.run("fusion_keras.digits", *flags, "--config.data.path=/nowhere")
    assert done.returncode == 2
    assert "/nowhere" in done.stderr


def test_a_search_says_what_it_would_try(entries, tmp_path):
    pytest.importorskip("optuna")
    folder = tmp_path / "search"
    flags = ("--config.data.demo.size=200", f"--workdir={folder}", "--budget_ms=2", "--trials=7")
    done = entries.run("fusion_keras.search", *flags, "--dry_run")
    assert done.returncode == 0, done.stderr
    assert "7 trials, text, late, inter, early first, then by tpe; at most 2 ms" in done.stdout
    assert "taps.text" in done.stdout
    assert not folder.exists()


def test_a_file_that_is_looked_at_answers_in_json(entries, tiny_artifact):
    done = entries.run("export.doctor", tiny_artifact / "model.onnx", "--json")
    found = json.loads(done.stdout)
    assert (found["findings"], found["onnxruntime_alone"]) == ([], False)
    assert found["operators"]["MatMul"] > 0


def test_an_answer_in_json(entries, tiny_artifact):
    done = entries.run("bench.predict", tiny_artifact, "--text=a good day", "--json")
    answer = json.loads(done.stdout)
    assert answer["label"] in answer["probabilities"]
    assert entries.run("bench.predict", tiny_artifact, "--jsonl", "--json").returncode == 2


def test_reliance_in_json(entries, tiny_run):
    done = entries.run("fusion_keras.reliance", tiny_run, "--repeats=1", "--json")
    found = json.loads(done.stdout)
    assert found["split"] == "test"
    assert 0 <= found["accuracy"] <= 1
    assert {"accuracy", "difference", "low", "high"} <= set(found["text"])
