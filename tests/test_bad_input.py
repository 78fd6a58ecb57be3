"""Every mistake gives one sentence on stderr and exit code 2, and harms nothing.

All runs go through the entry modules themselves, as a user starts them.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

from fusion_keras import cli
from tests.support import tiny

# Text alone, at the embeddings: compiled in a second.
SHALLOW = {"fusion__junctions": "0+-:concat"}


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> tiny.Bench:
    return tiny.beside(tmp_path_factory.mktemp("bad"))


@pytest.fixture(scope="module")
def finished(bench, entries) -> Path:
    """A complete text run."""
    folder = bench.folder / "finished"
    found = entries.run("fusion_keras.train", *bench.flags(run=folder, **SHALLOW))
    assert found.returncode == 0, found.stderr
    return folder


def refuse(entries, arguments, pattern, entry="train", file_limit=0):
    """The run ends with exit code 2, and its last line on stderr is the sentence."""
    found = entries.run(f"fusion_keras.{entry}", *arguments, file_limit=file_limit)
    assert found.returncode == 2, found
    assert "Traceback" not in found.stderr
    # What stands before it is progress.
    *before, last = found.stderr.strip().splitlines()
    assert last.startswith("error: ")
    assert re.search(pattern, last), last
    assert not any(line.startswith("error: ") for line in before)
    return found


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def _first_score(lines):
    lines[4][6] = "very"


def _first_split(lines):
    lines[4][3] = "dev2"


def _no_text(lines):
    for line in lines:
        line[0] = " "


@pytest.mark.parametrize(
    ("table", "pattern"),
    [
        ({"leave_out": ["label"]}, r"label"),
        ({"leave_out": ["image"]}, r"image"),
        ({"change": _first_split}, r"'dev2'.*line 6"),
        ({"change": _first_score}, r"'very'.*line 6"),
        ({"change": _no_text}, r"unusable|no usable"),
        ({"change": list.clear}, r"no usable|no row|empty"),
    ],
    ids=["no label column", "no image column", "split", "score", "no usable rows", "empty"],
)
def test_a_bad_table_is_named_with_its_line(bench, entries, tmp_path, table, pattern):
    path = tiny.write_manifest(tmp_path, **table)
    arguments = bench.flags(variant="image", run=tmp_path / "run", data__path=path)
    refuse(entries, arguments, pattern)


def test_too_many_corrupt_images_end_the_run_and_a_higher_limit_lets_it_go_on(
    bench, entries, tmp_path
):
    path = tiny.write_manifest(tmp_path / "data")
    for row in (3, 50):
        (path.parent / f"{row}.png").write_bytes(b"no image")
    changes = {"variant": "image", "run": tmp_path / "run", "data__path": path}
    refuse(entries, bench.flags(**changes), r"2 unusable of 72.*line 5.*max_skipped")
    # Past the images: stopped by the next mistake.
    changes |= {"data__max_skipped": 0.1, "train__batch_size": 1000, "run": tmp_path / "other"}
    refuse(entries, bench.flags(**changes), r"at least one batch")


MISTAKES = {
    "no such manifest": ({"data__path": "none.csv"}, r"none\.csv"),
    "no manifest named": ({"data__path": ""}, r"data\.path"),
    "source": ({"data__source": "csv"}, r"csv.*demo, manifest, mosi"),
    "column": ({"data__manifest__text_column": "sentence"}, r"sentence"),
    "class": ({"data__manifest__classes": "('x','y')"}, r"none of x, y"),
    "fractions": (
        {"data__manifest__split_column": "", "data__split_fractions": "(1,0,0)"},
        r"fractions",
    ),
    "part": ({"data__part": "third"}, r"third.*second"),
    "depth": ({"variant": "inter", "fusion__junctions": "99+4:linear"}, r"depth 99.*0 to 2"),
    "junction": ({"variant": "inter", "fusion__junctions": "1+1:glue"}, r"glue.*linear"),
    "variant": ({"variant": "inner"}, r"'inner'; one of text, image"),
    "recipe": ({"recipe": "paperr"}, r"paperr.*paper, best"),
    "field": ({"train__epoch": 3}, r"train\.epoch is no setting\. Is it --config\.train\.epochs"),
    "section": ({"trains__epochs": 3}, r"trains\.epochs is no setting\. .*train\.epochs"),
    "type": ({"train__epochs": "x"}, r"train\.epochs=x"),
    "range": ({"train__warmup": 2}, r"warmup is 2"),
    "optimiser": ({"train__optimizer": "lion"}, r"lion.*sgd, adam, adamw"),
    "seed": ({"seed": -1}, r"seed"),
    "large seed": ({"seed": 2**40}, r"seed"),
    "dtype": ({"dtype": "float16"}, r"float16.*bfloat16"),
    "batch": ({"train__batch_size": 1000}, r"40 rows.*1000"),
    "length": ({"data__max_length": 1}, r"max_length is 1; .* takes 3 to 512"),
    "long texts": ({"data__max_length": 5000}, r"5000.*512"),
    "size": ({"variant": "image", "image__size": 7}, r"7"),
    "negative size": ({"variant": "image", "image__size": -7}, r"-7"),
    "resize": ({"variant": "image", "image__resize": "zoom"}, r"zoom"),
    "dropout": ({"fusion__dropout": 2.0}, r"dropout"),
    "text dropout": ({"text__dropout": 2.0}, r"dropout"),
    "width": ({"variant": "inter", "fusion__width": -8}, r"width"),
    "heads": ({"variant": "inter", "fusion__heads": 3}, r"heads"),
    "scale": ({"variant": "image", "augment__scale": "(2.0,1.0)"}, r"scale"),
    "preset": ({"text__preset": "tiny_bird"}, r"tiny_bird"),
    "kind": ({"text__preset": "random:tiny_vit"}, r"tiny_vit.*text"),
    "offline": ({"text__preset": "hf://nobody/nothing"}, r"hf://nobody/nothing.*cannot be reached"),
    "no regression": ({"data__manifest__score_column": "", "regression": True}, r"regression"),
}


@pytest.mark.parametrize(("changes", "pattern"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_wrong_setting_is_named(bench, entries, changes, pattern, tmp_path):
    refuse(entries, bench.flags(run=tmp_path / "run", **changes), pattern)


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["--nonsense=3"], r"'nonsense'"),
        (["train"], r"'train'.*--name=value"),
        (["--seed=x"], r"seed=x"),
        (["--config=none.py"], r"none\.py"),
        (["--config=BROKEN"], r"SyntaxError"),
        (["--config=RAISING"], r"ZeroDivisionError"),
        (["--config=LACKING"], r"get_config"),
        (["--run=.", "--config.data.path=none.csv"], r"run directory '\.'"),
        (["--run=x.partial"], r"\.partial"),
    ],
)
def test_a_wrong_command_line_is_explained(entries, tmp_path, arguments, pattern):
    files = {"BROKEN": "def get_config(:", "RAISING": "1 / 0", "LACKING": "x = 1"}
    for name, content in files.items():
        (tmp_path / f"{name}.py").write_text(content + "\n")
        arguments = [a.replace(name, str(tmp_path / f"{name}.py")) for a in arguments]
    refuse(entries, arguments, pattern)


def test_a_diverging_training_says_so_and_keeps_no_run(bench, entries, tmp_path):
    rates = {"train__learning_rate": 1e30, "train__text_rate": 1e30, "train__clip_norm": 0.0}
    arguments = bench.flags(run=tmp_path / "run", train__optimizer="sgd", **SHALLOW, **rates)
    refuse(entries, arguments, r"diverged in epoch 1.*learning_rate")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("folder", ["a file/run", "a file"])
def test_an_output_folder_that_cannot_be_is_named(bench, entries, tmp_path, folder):
    (tmp_path / "a file").write_text("mine")
    refuse(entries, bench.flags(run=tmp_path / folder), r"a file")
    assert (tmp_path / "a file").read_text() == "mine"


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs a folder that root cannot write")
def test_an_unwritable_output_folder_and_cache_are_named(bench, entries, tmp_path):
    refuse(entries, bench.flags(run="/proc/run"), r"/proc/run")
    changes = {"run": tmp_path / "run", "data__cache_dir": "/proc/cache"}
    refuse(entries, bench.flags(**changes), r"/proc/cache.*cache_dir")


# A limit on the size of files stands for a full disk: the operating system reports both as a
# failed write.
@pytest.mark.parametrize(
    ("size", "met"), [(3000, r"the cache folder"), (20000, r"checkpoint\.npz")]
)
def test_a_full_disk_ends_the_run_and_leaves_what_was_complete(
    bench, entries, finished, tmp_path, size, met
):
    before = contents(finished)
    changes = {**SHALLOW, "run": tmp_path / "run", "data__cache_dir": tmp_path / "cache"}
    refuse(
        entries,
        bench.flags(**changes),
        rf"(?=.*{met}).*File too large.*(free|Free)",
        file_limit=size,
    )
    assert not (tmp_path / "run").exists()
    assert contents(finished) == before


def test_a_finished_run_is_left_alone_and_other_settings_are_refused(bench, entries, finished):
    before = contents(finished)
    again = entries.run("fusion_keras.train", *bench.flags(run=finished, **SHALLOW))
    assert again.returncode == 0
    assert "accuracy" in again.stdout
    arguments = bench.flags(run=finished, train__epochs=3, **SHALLOW)
    refuse(entries, arguments, r"train\.epochs was 2, is 3.*--workdir")
    assert contents(finished) == before


def test_late_fusion_refuses_unfit_parents(bench, entries, finished, tmp_path):
    def late(*parents, **changes):
        return bench.flags(
            variant="late", run=tmp_path / "run", parents=",".join(map(str, parents)), **changes
        )

    refuse(entries, late(finished), r"names no image run")
    refuse(entries, late(finished, finished), r"a second one of variant 'text'")
    refuse(entries, late(tmp_path / "none", finished), r"none is not a finished run")
    refuse(entries, late(finished, finished, text__dropout=0.3), r"text\.dropout was \S+, is 0\.3")
    refuse(entries, late(finished, finished, data__max_length=9), r"data\.max_length was 12, is 9")
    score = bench.flags(variant="late_score", run=tmp_path / "run", fusion__junctions="1+1:add")
    refuse(entries, score, r"late_score.*--config\.fusion\.junctions")


def test_damaged_parents_and_checkpoints_are_named(bench, entries, finished, tmp_path):
    parents = [tmp_path / "text", tmp_path / "image"]
    for folder, variant in zip(parents, ("text", "image"), strict=True):
        shutil.copytree(finished, folder)
        description = (folder / "config.json").read_text()
        description = description.replace('"variant": "text"', f'"variant": "{variant}"')
        (folder / "config.json").write_text(description)
    model = parents[0] / "model.keras"
    model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    changes = {"variant": "late", "parents": ",".join(map(str, parents))}
    refuse(entries, bench.flags(run=tmp_path / "late", **changes), r"text/model\.keras.*damaged")

    partial = tmp_path / "resumed.partial"
    partial.mkdir()
    shutil.copy(finished / "config.json", partial)
    (partial / "checkpoint.npz").write_bytes(model.read_bytes())
    resumed = bench.flags(run=tmp_path / "resumed", **SHALLOW)
    refuse(entries, resumed, r"checkpoint\.npz cannot be read.*Remove the folder")
    (partial / "config.json").write_text('{"config": ')
    refuse(entries, resumed, r"config\.json.*damaged")


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["--variant=text"], r"Nothing to sweep over"),
        (["--variant"], r"'--variant'"),
        (["--variant=text,image", "--run=x"], r"single run"),
        (["--seed=0", "--seed=1,2"], r"--seed is given twice"),
        (["--seed=0,0"], r"'seed=0' and 'seed=0'"),
        (["--seed=0,1", "--baseline=text"], r"'text'"),
    ],
)
def test_a_wrong_sweep_is_explained(entries, tmp_path, arguments, pattern):
    # As `sweep` sees them; a training would need the rest of the settings.
    refuse(entries, [f"--workdir={tmp_path}", *arguments], pattern, entry="sweep")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 GiB")]
)
def test_full_memory_says_what_to_lower(error, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as stopped:
        cli.guarded(main)
    assert stopped.value.code == 2
    assert re.fullmatch(r"error: Out of memory: lower .*batch_size.*\n", capsys.readouterr().err)


def test_a_bug_of_ours_is_not_passed_off_as_a_mistake():
    def main():
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        cli.guarded(main)
