"""`python -m bench` on a real artifact, as its user types it."""

import json
import multiprocessing
import shutil

import pytest

from bench import frameworks
from bench.__main__ import main
from bench.edge import artifact, worker
from bench.edge.method import Contender
from bench.studies import steps
from tests.support import fake_runner
from tests.support.shared import slow_but


def test_a_damaged_precision_is_found_by_its_outputs(tiny_artifact, tmp_path, capsys):
    """Its file is as it was exported, but was not what was exported to be."""
    from bench.edge.artifact import seal_of
    from bench.edge.files import digest

    folder = tmp_path / "swapped"
    shutil.copytree(tiny_artifact, folder)
    other = (folder / "model.int8.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(other)
    meta = json.loads((folder / "meta.json").read_text())
    meta["files"]["model.onnx"] = digest(folder / "model.onnx")
    meta["seal"] = seal_of(meta)
    (folder / "meta.json").write_text(json.dumps(meta))
    assert main([str(folder), f"--out={tmp_path / 'x.json'}"]) == 1
    said = capsys.readouterr().out
    assert "its outputs are wrong, nothing was timed" in said
    # A report of nothing is no next step.
    assert "Next:" not in said
    assert main([str(folder), f"--out={tmp_path / 'y.json'}", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["results"] == str(tmp_path / "y.json")
    (contender,) = found["contenders"]
    assert (contender["precision"], contender["latency"]["count"]) == ("fp32", 0)
    assert "its outputs are wrong" in contender["error"]


@pytest.mark.parametrize("built_in", [None, 2.5])
def test_a_worker_tells_how_long_its_engine_took_to_build(built_in, tmp_path):
    folder = fake_runner.write_artifact(tmp_path / "a", {"built_in": built_in})
    contender = Contender("a", folder, artifact.read(folder))
    ours, theirs = multiprocessing.Pipe()
    ours.send(None)
    worker.serve(contender, 0, 0, 0, fake_runner.open_runner, theirs)
    answer = ours.recv()
    assert answer["seconds"].get("engine_build") == built_in
    assert answer["seconds"].keys() >= {"load", "first_inference"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--precisions=fp8"], "has no fp8; it has fp32, fp16, int8, int8_static"),
        (["--runners=tvm"], "--runners=tvm is unknown; there are ort"),
        (["--inputs=noise"], "--inputs=noise is unknown; there are data, padded"),
        (["--batches=4"], "takes batches of 1"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(tiny_artifact, capsys, flags, said):
    assert main([str(tiny_artifact), *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(("runner", "noted"), [("ort", True), ("openvino", False)])
def test_what_an_engine_is_slow_at_is_said_before_it_is_timed(tmp_path, capsys, runner, noted):
    from bench.__main__ import _announce
    from bench.edge.method import Method

    _announce([Contender("late", tmp_path, {}, "int8_static", runner)], Method())
    assert ("note: 1 of them int8_static on ort" in capsys.readouterr().err) == noted


def test_results_that_are_there_are_not_replaced_unasked(tiny_artifact, tmp_path, capsys):
    target = tmp_path / "orin.json"
    target.write_text("an hour of work")
    assert main([str(tiny_artifact), f"--out={target}"]) == 2
    assert "another name, or --replace it" in capsys.readouterr().err
    assert target.read_text() == "an hour of work"


def test_what_is_no_artifact_is_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "is no artifact" in capsys.readouterr().err


BAD = ["--batches=0", "--threads=x", "--hz=-1", "--margin=2", "--timeout=0", "--timeout=1e9"]
BAD += ["--precisions=", "--inputs=,", "--out=."]


@pytest.mark.parametrize("flag", BAD)
def test_flags_that_make_no_sense_are_refused(tiny_artifact, capsys, flag):
    with pytest.raises(SystemExit) as ended:
        main([str(tiny_artifact), flag])
    assert ended.value.code == 2
    assert flag.split("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "said"),
    slow_but(
        [("--units=8", "--units is for C-LSTMs")],
        [
            ("--variant=nope", "Unknown variant 'nope'"),
            ("--rounds=0", "0 is no number of at least 1"),
            ("--units=0", "0 is no number of at least 1"),
            ("--units=8", "--units is for C-LSTMs"),
        ],
    ),
)
def test_a_mistake_in_the_comparison_with_pytorch_is_a_sentence(entries, flag, said):
    found = entries.run("bench.frameworks", flag, "--contenders=jax")
    assert (found.returncode, "Traceback" in found.stderr) == (2, False), found.stderr
    assert said in found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["step", "inference"])
def test_a_clstm_and_its_pytorch_are_timed_in_turns(entries, mode, tmp_path):
    sizes = ["--size=6", "--length=2", "--units=2", "--batch=3", "--rounds=1", "--turn=2"]
    flags = ["--variant=clstm_second", *sizes, "--mode", mode]
    flags += ["--contenders=jax,torch", f"--out={tmp_path / 'out.json'}"]
    found = entries.run("bench.frameworks", *flags)
    assert found.returncode == 0, found.stderr
    content = json.loads((tmp_path / "out.json").read_text())
    for name in ("jax", "torch"):
        assert [len(block) for block in content["samples"][name]] == [2]
        about = content["about"][name]
        assert about["inputs"]["image"] == "3x6x6x1 float32"
        assert about["inputs"]["spectrogram"] == "3x2x201 float32"
        assert about["memory"] >= 0
    ours, theirs = (content["about"][name]["value"] for name in ("jax", "torch"))
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert "jax / torch" in found.stdout


def test_both_frameworks_compute_in_the_precision_asked_for():
    def logits(precision):
        flags = ["--variant=audio", "--mode=inference", "--batch=2", f"--precision={precision}"]
        options = frameworks._parser().parse_args(flags)
        return [made(options, compiled=False).call() for made in (steps.on_keras, steps.on_pytorch)]

    full, half = logits("float32"), logits("bfloat16")
    assert full[0] == pytest.approx(full[1], rel=1e-4)
    for exact, rounded in zip(full, half, strict=True):
        assert 1e-5 < abs(exact - rounded) / abs(exact) < 0.05


def test_sound_and_its_pytorch_are_compared_on_the_same_batch():
    options = frameworks._parser().parse_args(["--variant=audio", "--mode=inference", "--batch=2"])
    ours, theirs = (made(options, compiled=False) for made in (steps.on_keras, steps.on_pytorch))
    assert ours.inputs == theirs.inputs == {"audio": "2x398x64 float32"}
    assert ours.call() == pytest.approx(theirs.call(), rel=1e-4)
