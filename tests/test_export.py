"""From a trained run to an artifact and an answer, each step the command that a user types."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from rich.console import Console

from bench.edge import artifact as bench_artifact
from bench.edge.artifact import golden, read
from bench.edge.predict import main as predict
from bench.edge.runners.ort import OnnxRuntime
from export import ladder
from export.doctor import invalid
from export.report import report
from fusion_keras.exported import run_onnx


@pytest.fixture
def bench(tiny):
    return tiny


@pytest.fixture
def run(tiny_run):
    return tiny_run


@pytest.fixture
def artifact(tiny_artifact):
    return tiny_artifact


def test_artifact_holds_everything_and_says_what_each_step_changed(artifact, run):
    meta = read(artifact)
    names = ["fp32", "fp16", "int8", "int8_static"]
    assert list(meta["models"]) == names
    assert [rung["name"] for rung in meta["ladder"]] == ["keras", "saved_model", *names]
    assert all(rung["holds"] for rung in meta["ladder"])
    assert not any(invalid(artifact / model["file"]) for model in meta["models"].values())
    assert meta["allow_loss"] is None
    assert meta["notes"] == [
        "6 tokens: no validation row is as short, so nothing was compared there"
    ]
    assert meta["models"]["int8"]["change_interval"] == pytest.approx([-0.194, 0.194], abs=5e-4)
    files = {"tokenizer.json", "golden.npz", "saved_model/saved_model.pb", "test.csv"}
    assert files | {"queries.npz", "queries/texts.json", "queries/15.png"} < set(meta["files"])
    assert meta["lengths"] == [6, 12]
    assert sum(cost["flops"] for cost in meta["costs"]) > 1e5
    trained = json.loads((run / "metrics.json").read_text())["splits"]["test"]["metrics"]
    assert meta["models"]["fp32"]["metrics"]["accuracy"] == pytest.approx(
        trained["accuracy"]["value"]
    )
    described = bench_artifact.described(artifact, meta)
    right = np.array(described["test"]["predicted"]["int8"]) == described["test"]["labels"]
    assert right.mean() == pytest.approx(meta["models"]["int8"]["metrics"]["accuracy"])
    assert set(described["test"]["groups"]) == {"g7", "g8", "g16", "g17"}
    assert described["backbones"] == {"text": "text", "image": "image"}
    assert len(bench_artifact.queries(artifact)["image"]) == 16
    inputs, outputs = golden(artifact)
    with np.load(run / "golden.npz") as before:
        np.testing.assert_array_equal(inputs["image"], before["input_image"])
        np.testing.assert_allclose(outputs["logits"], before["output_logits"], rtol=1e-5)


@pytest.mark.parametrize("precision", ["int8", "int8_static"])
def test_no_two_weights_share_a_zero_point(artifact, precision):
    # Else ONNX Runtime could not sum exactly without VNNI, and would not say so.
    graph = onnx.load(artifact / f"model.{precision}.onnx").graph
    vectors = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.INT8 and t.dims}
    uses = Counter(name for node in graph.node for name in node.input if name in vectors)
    assert len(uses) > 10
    assert set(uses.values()) == {1}
    made = [*(t.name for t in graph.initializer), *(o for node in graph.node for o in node.output)]
    assert len(made) == len(set(made))


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8_static"])
def test_sixteen_rows_tell_a_broken_precision_from_a_sound_one(artifact, tmp_path, precision):
    queries = bench_artifact.queries(artifact)
    expected = run_onnx(artifact / "model.onnx", queries)["logits"]
    model = onnx.load(artifact / f"model.{precision}.onnx")
    sound = run_onnx(artifact / f"model.{precision}.onnx", queries)["logits"]
    rung = ladder.compare(precision, sound, "fp32", expected, precision.split("_")[0])
    assert rung.holds
    assert ladder.notes(rung) == []
    assert rung.noise < 0.5 * rung.tolerance.noise
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim > 1 and array.dtype in (np.float16, np.int8, np.uint8):
            array = rng.permutation(array.ravel()).reshape(array.shape)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, tmp_path / "broken.onnx")
    broken = run_onnx(tmp_path / "broken.onnx", queries)["logits"]
    rung = ladder.compare(precision, broken, "fp32", expected, precision.split("_")[0])
    assert not rung.holds
    assert not rung.near_ties


def test_the_report_shows_intervals_notes_and_what_the_user_allows(artifact):
    meta = {**read(artifact), "notes": ["int8: something."], "allow_loss": 2.5}
    console = Console(width=120, record=True, file=io.StringIO())
    for part in report(artifact, meta):
        console.print(part)
    text = console.export_text()
    assert "+0.0 / 6.2" in text
    assert "[-19.4, +19.4]" in text
    assert "the loss allowed (--allow_loss=2.5)" in text
    assert "note: int8: something.\nArtifact: " in text


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_predict_answers_with_a_class_and_times(artifact, bench, capsys, precision):
    image = bench.folder / "data" / "1.png"
    text = "a good day, number 1"
    assert (
        predict([str(artifact), "--text", text, f"--image={image}", f"--precision={precision}"])
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] in ("negative", "positive")
    assert [line.split("ms")[1].strip() for line in lines if " ms " in line][-1] == "inference"


def test_predict_takes_one_modality_where_training_withheld_the_other(artifact, capsys):
    assert predict([str(artifact), "--text", "a good day"]) == 0
    assert predict([str(artifact)]) == 2
    assert "wanted" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["-bad", "-h", "--so bad", "-5", "-", "--imagery", "-i=x y"])
def test_predict_takes_a_sentence_that_begins_with_a_dash(artifact, capsys, text):
    assert predict([str(artifact), "--text", text, "--precision", "fp32"]) == 0
    answer = [line for line in capsys.readouterr().out.splitlines() if " ms " not in line]
    assert predict([str(artifact), f"--text={text}"]) == 0
    again = [line for line in capsys.readouterr().out.splitlines() if " ms " not in line]
    assert answer == again
    with pytest.raises(SystemExit):
        predict([str(artifact), "--text", "--precision=fp32"])


def test_predict_tells_that_a_sentence_is_cut(artifact, capsys):
    assert predict([str(artifact), "--text", "good " * 12]) == 0
    printed = capsys.readouterr()
    assert "note: the sentence is 14 tokens long and the model takes 12: its last 2" in printed.err
    assert printed.out.splitlines()[0] in ("negative", "positive")
    assert predict([str(artifact), "--text", "good " * 10]) == 0
    assert capsys.readouterr().err == ""


def test_predict_joins_the_cells_of_several_columns(artifact, tmp_path, capsys):
    folder = shutil.copytree(artifact, tmp_path / "columns")
    meta = json.loads((folder / "meta.json").read_text())
    columns = {"columns": ["title", "body", "kind"], "join": " ", "names": False, "missing": []}
    meta["inputs"]["token_ids"] |= columns
    meta["seal"] = bench_artifact.seal_of(meta)
    (folder / "meta.json").write_text(json.dumps(meta))

    def answer(*arguments):
        assert predict(list(map(str, arguments))) == 0
        return [x for x in capsys.readouterr().out.splitlines() if " ms " not in x]

    joined = answer(artifact, "--text", "-sad dull day")
    assert (
        answer(folder, "--text", "body=dull", "--text", "title=-sad", "--text=kind=day") == joined
    )
    assert answer(folder, "--text", "title=bright", "--text", "kind=day") != joined
    assert predict([str(folder), "--text", "a good day"]) == 2
    assert "begins with none of them: give each as --text NAME=VALUE" in capsys.readouterr().err
    assert predict([str(artifact), "--text", "a", "--text", "b"]) == 2
    assert "--text came 2 times" in capsys.readouterr().err


def test_predict_tells_what_the_vocabulary_does_not_know(artifact, capsys):
    assert predict([str(artifact), "--text", "good, 今天"]) == 0
    assert "note: 3 of the sentence's 4 tokens are unknown" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_predict_refuses_answers_that_are_not_the_exports(artifact, capsys, monkeypatch, precision):
    right = OnnxRuntime._infer

    def saturating(runner, feed):
        """As on a CPU that cuts off sums: large numbers end at a bound."""
        return {name: np.minimum(x, x.mean()) for name, x in right(runner, feed).items()}

    monkeypatch.setattr(OnnxRuntime, "_infer", saturating)
    assert predict([str(artifact), "--text", "a good day", f"--precision={precision}"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"error: {precision} answers wrong on this machine: logits differ" in printed.err
    assert ("VNNI" in printed.err) == (precision == "int8")


@pytest.mark.slow
def test_two_at_a_time(entries, run, bench, tmp_path, capsys):
    folder = tmp_path / "two"
    flags = ("--batch=2", "--precisions=int8_static", "--allow_loss=2.5")
    done = entries.run("export", str(run), f"--out={folder}", *flags)
    assert done.returncode == 0, done.stderr
    assert read(folder)["allow_loss"] == 2.5
    assert read(folder)["models"]["int8_static"]["allowed_loss"] == 0.025
    assert read(folder)["shapes"] == {"batch": 2, "length": 12}
    image = bench.folder / "data" / "1.png"
    assert predict([str(folder), "--text", "a good day", f"--image={image}"]) == 0
    assert capsys.readouterr().out.splitlines()[0] in ("negative", "positive")


def test_short_sentences_give_the_same_answer_at_their_own_length(artifact, capsys):
    inputs, _ = golden(artifact)
    short = inputs["token_ids"].copy()
    short[:, 5] = short[:, 2]
    short[:, 6:] = 0
    full = run_onnx(artifact / "model.onnx", {**inputs, "token_ids": short})
    cut = run_onnx(artifact / "model.onnx", {**inputs, "token_ids": short[:, :6]})
    np.testing.assert_allclose(cut["logits"], full["logits"], atol=1e-4)


@pytest.mark.slow
def test_an_export_killed_at_work_leaves_the_old_artifact_whole(run, tiny_artifact, tmp_path):
    artifact = shutil.copytree(tiny_artifact, tmp_path / "artifact")
    begun = subprocess.Popen(
        [sys.executable, "-m", "export", str(run), f"--out={artifact}"],
        stdout=subprocess.DEVNULL,
        process_group=0,
    )
    partial = artifact.with_name(".artifact.exporting")
    while not (partial / "work" / "inputs.npz").is_file():
        assert begun.poll() is None
        time.sleep(0.05)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    assert list(read(artifact)["models"]) == ["fp32", "fp16", "int8", "int8_static"]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".artifact.exporting", "artifact"], "the next export removes it"


@pytest.mark.slow
def test_an_interrupted_export_leaves_nothing_behind(run, tmp_path):
    # A shell starts what runs in its background with interrupts switched off.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    # A group of its own, as a terminal gives it: Ctrl-C goes to the processes it started, too.
    begun = subprocess.Popen(
        [sys.executable, "-m", "export", str(run), f"--out={tmp_path / 'artifact'}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    signal.signal(signal.SIGINT, before)
    while not list(tmp_path.glob(".artifact.exporting")):
        time.sleep(0.05)
    os.killpg(begun.pid, signal.SIGINT)
    _, said = begun.communicate(timeout=60)
    assert begun.returncode == 130, said
    assert "Interrupted. What was exported before is as it was." in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--out=x"], "RUN and --out=ARTIFACT are wanted"),
        (["none", "--out=x"], "not a finished run"),
        (["--precisions=fp8"], "fp8"),
        (["--buckets=2"], "3 to 12"),
        (["--buckets=many"], "numbers"),
        (["--samples=0"], "--samples is 0"),
    ],
)
def test_bad_flags_are_one_sentence(entries, run, tmp_path, flags, said):
    given = [str(run), f"--out={tmp_path / 'artifact'}"]
    given = [g for g in given if not any(f.startswith(g.split("=")[0]) for f in flags)]
    if flags in (["--out=x"], ["none", "--out=x"]):
        given = []
    done = entries.run("export", *given, *flags)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr


def test_what_is_not_installed_is_named_with_the_command_that_brings_it():
    code = (
        "import runpy, sys; sys.modules['onnxruntime'] = None; sys.argv = ['export'];"
        "runpy.run_module('export', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "onnxruntime" in done.stderr
    assert 'pip install -e ".[export,cpu]"' in done.stderr
