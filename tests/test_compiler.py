"""NVIDIA's compiler: what it takes of exports, and what it says of what it does not take."""

import sys

import onnx.parser
import pytest

from bench.edge import artifact
from export import compiler, doctor
from fusion_keras.errors import UsageError

GRAPH = """
<ir_version: 10, opset_import: ["" : 20, "mine" : 1]>
graph (float[1,2] x) => (float[1,2] logits) {
  y = Add (x, x)
  [head] logits = mine.Frob (y)
}
"""


@pytest.fixture
def planted(tmp_path):
    onnx.save(onnx.parser.parse_model(GRAPH), tmp_path / "planted.onnx")
    return tmp_path / "planted.onnx"


@pytest.fixture
def rtx():
    pytest.importorskip("tensorrt_rtx", reason="the extra tensorrt-rtx is not installed")


def test_an_export_is_compiled_at_each_portable_precision(rtx, tiny_artifact):
    compiled = artifact.read(tiny_artifact)["compiled"]

    assert list(compiled) == ["fp32", "fp16", "int8_static"]
    assert all(x["target"] == "SM86" and x["bytes"] > 0 for x in compiled.values())


def test_a_planted_operator_is_refused_by_its_name(rtx, planted):
    with pytest.raises(compiler.RefusedError, match=r"tensorrt_rtx .* refuses .*Frob \(head\)"):
        compiler.compiled([planted])


def test_the_first_of_several_that_is_refused_is_told(rtx, tiny_artifact, planted):
    with pytest.raises(compiler.RefusedError, match=r"planted\.onnx"):
        compiler.compiled([tiny_artifact / "model.onnx", planted], [6, 12])


def test_an_open_axis_without_lengths_is_compiled_for_one(rtx, tiny_artifact):
    (answer,) = compiler.compiled([tiny_artifact / "model.onnx"], [9])

    assert answer["bytes"] > 0


def test_a_compiler_that_crashes_is_a_sentence(planted, monkeypatch, tmp_path):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -SEGV $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    with pytest.raises(compiler.RefusedError, match=r"without an answer .*\(signal 11\)"):
        compiler.compiled([planted])


def test_a_compiler_that_crashes_behind_its_last_answer_has_answered(
    planted, monkeypatch, tmp_path
):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho '{\"seconds\": 1}'\nkill -SEGV $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert compiler.compiled([planted]) == [{"seconds": 1}]


def test_the_doctor_asks_the_compiler(rtx, planted, tiny_artifact):
    (finding,) = doctor.refused(planted)

    assert finding.fatal
    assert "Frob head" in finding.where[0]
    assert doctor.refused(tiny_artifact / "model.fp16.onnx") == []
    _, said = doctor.report(tiny_artifact / "model.fp16.onnx", compiling=True)
    assert said[-1].endswith("stumble over, and NVIDIA's compiler takes it.")


def test_the_command_ends_with_the_node_that_the_compiler_refuses(rtx, entries, tmp_path):
    # Of the standard, and in no engine of NVIDIA's.
    graph = GRAPH.replace("mine.Frob", "Det").replace("float[1,2] x", "float[1,2,2] x")
    graph = graph.replace("float[1,2] logits", "float[1] logits")
    onnx.save(onnx.parser.parse_model(graph), tmp_path / "det.onnx")
    done = entries.run("export.doctor", "--compile=tensorrt", tmp_path / "det.onnx")
    assert done.returncode == 1
    said = " ".join(done.stdout.replace("│", " ").split())
    assert "NVIDIA's compiler" in said
    assert "..." not in said  # its words are whole
    with pytest.raises(compiler.RefusedError, match=r"Det \(head\): UNSUPPORTED_NODE"):
        compiler.compiled([tmp_path / "det.onnx"])


def test_without_the_compiler_the_doctor_says_where_it_comes_from(planted, monkeypatch):
    monkeypatch.setattr(compiler, "installed", lambda: False)

    with pytest.raises(UsageError, match="tensorrt-rtx"):
        doctor.refused(planted)
