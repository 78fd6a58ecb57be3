"""What the doctor finds, and that each remedy it names is one that the exporter has."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest

from export import doctor, pipeline, rewrites
from export.checks import fusions
from export.cost import costs, of_longest
from export.doctor import invalid
from fusion_keras.errors import UsageError
from tests.support.onnx_graphs import GRAPHS, parse

ATTENTION = """
    t = Transpose <perm = [0, 2, 1]> (x)
    q = MatMul (x, t)
    s = Mul (q, eighth)
    {mask}
    p = Softmax <axis = -1> (m)
    y = MatMul (p, x)
"""
SICK = {
    "LayerNormalization in pieces": GRAPHS["layer_norm"][0],
    "GELU in pieces": GRAPHS["gelu"][0],
    "attention in a form": ATTENTION.format(mask="m = Clip (s, zero, six)"),
    "normalisation behind convolutions": GRAPHS["batch_norm_scale"][0],
    "shapes computed at run time": """
    s = Shape (x)
    a = Expand (half, s)
    t = Shape (a)
    y = Expand (one, t)
""",
    "transposes between convolutions": """
    c = Conv (image, kernel)
    t = Transpose <perm = [0, 2, 3, 1]> (c)
    r = Relu (t)
    u = Transpose <perm = [0, 3, 1, 2]> (r)
    y = Conv (u, narrow)
""",
    "operators that TensorRT lacks": "y = Det (square)",
    "uint8 inputs that do more": "g = Slice (photo, first, end, axes, steps)\n"
    " y = Cast <to = 1> (g)",
    "DequantizeLinear of int32": "d = DequantizeLinear (ids, half)\n y = Abs (d)",
    "inputs of int64": "i = Cast <to = 1> (wide)\n y = Add (i, half)",
    "weights stored twice": "a = MatMul (x, matrix)\n y = MatMul (a, copy)",
    "operators of TensorFlow's runtime": "y = StatefulPartitionedCall (x)",
}
# The same graphs after the remedy.
CURED = {
    "LayerNormalization in pieces": "y = LayerNormalization <axis = -1> (x, bias, bias2)",
    "GELU in pieces": "y = Gelu (x)",
    "attention in a form": ATTENTION.format(mask="m = Add (s, zero)"),
    "normalisation behind convolutions": "y = Conv (image, kernel, scale)",
    "shapes computed at run time": "r = Reshape (x, rows)\n y = Add (r, half)",
    "transposes between convolutions": """
    c = Conv (image, kernel)
    r = Relu (c)
    y = Conv (r, narrow)
""",
    "uint8 inputs that do more": "f = Cast <to = 1> (photo)\n"
    " y = Slice (f, first, end, axes, steps)",
    "inputs of int64": "i = Cast <to = 1> (ids)\n y = Add (i, half)",
    "weights stored twice": "a = MatMul (x, matrix)\n y = MatMul (a, matrix)",
}


def model_of(nodes: str) -> ir.Model:
    model = parse(nodes)
    kinds = {"wide": onnx.TensorProto.INT64, "photo": onnx.TensorProto.UINT8}
    for name, sizes in {"square": (2, 2), "wide": (1, 6), "photo": (4, 4, 3)}.items():
        if name in nodes:
            kind = kinds.get(name, onnx.TensorProto.FLOAT)
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, sizes))
    values = {"narrow": ([3], (1, 3, 1, 1)), "copy": (None, (8, 8))}
    for name, (_, shape) in values.items():
        if name in nodes:
            tensor = next((t for t in model.graph.initializer if t.name == "matrix"), None)
            copy = onnx.TensorProto()
            if name == "copy":
                copy.CopyFrom(tensor)
                copy.name = name
            else:
                copy = onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, shape, [1.0] * 3)
            model.graph.initializer.append(copy)
    return ir.serde.deserialize_model(model)


@pytest.mark.parametrize("what", SICK)
def test_doctor_names_it(monkeypatch, what):
    monkeypatch.setattr(fusions, "_LARGE", 64)
    found = doctor.examine(model_of(SICK[what]))
    assert [f.what for f in found if f.what.startswith(what)], found
    assert all(f.where and f.remedy for f in found)


@pytest.mark.parametrize("what", CURED)
def test_a_remedy_leads_to_no_other_finding(monkeypatch, what):
    monkeypatch.setattr(fusions, "_LARGE", 64)
    assert doctor.examine(model_of(CURED[what])) == []


@pytest.mark.parametrize(
    "nodes",
    [
        # RMSNorm, which takes no mean away.
        """
    dd = Mul (x, x)
    var = ReduceMean <keepdims = 1> (dd, last)
    ve = Add (var, epsilon)
    s = Sqrt (ve)
    r = Div (x, s)
    y = Mul (r, gamma)
""",
        # A map of positions behind a convolution, and one whose output has another reader.
        "c = Conv (image, kernel)\n y = Mul (c, per_pixel)",
        "c = Conv (image, kernel)\n m = Mul (c, half)\n y = Add (m, c)",
    ],
)
def test_doctor_leaves_alone_what_only_looks_alike(nodes):
    assert doctor.examine(model_of(nodes)) == []


def test_weights_that_are_listed_as_inputs_are_none():
    text = """<ir_version: 3, opset_import: ["" : 17]>
    graph (float[2, 8] x, int64[2] rows) => (float[4, 4] y) <int64[2] rows = {4, 4}> {
        y = Reshape (x, rows)
    }"""
    assert doctor.examine(ir.serde.deserialize_model(onnx.parser.parse_model(text))) == []


@pytest.mark.parametrize("name", ["layer_norm", "gelu", "batch_norm_scale", "batch_norm_shift"])
def test_the_rewrites_cure_what_the_doctor_finds(name):
    model = model_of(GRAPHS[name][0])
    assert doctor.examine(model)
    rewrites.portable(model)
    assert doctor.examine(model) == []


@pytest.mark.parametrize("node", ["y = my.ops.Frob (x)", "y = ai.onnx.ml.Scaler (x)"])
def test_doctor_names_operators_of_other_domains(node):
    head = '<ir_version: 10, opset_import: ["" : 20, "my.ops" : 1, "ai.onnx.ml" : 3]>'
    text = f"{head} graph (float[1] x) => (float[1] y) {{ {node} }}"
    (found,) = doctor.examine(ir.serde.deserialize_model(onnx.parser.parse_model(text)))
    assert found.what == "operators that TensorRT lacks"
    assert found.where == (f"{node.split('.')[-1].split()[0]} y",)


@pytest.mark.parametrize(
    "nodes",
    [
        "y = MatMul (x, kernel)",
        "a = Add (x, b)\n b = Add (x, a)\n y = Relu (b)",
        "y = Gemm (x)",
        "y = Add (x, nowhere)",
        "y = Reluu (x)",
    ],
)
def test_doctor_refuses_what_no_engine_takes(nodes, tmp_path):
    onnx.save(parse(nodes), tmp_path / "model.onnx")
    (finding,) = invalid(tmp_path / "model.onnx")
    assert finding.fatal
    with pytest.raises(Exception, match=r"."):
        onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    onnx.save(parse("y = Relu (x)"), tmp_path / "model.onnx")
    assert invalid(tmp_path / "model.onnx") == []


def test_doctor_looks_into_branches_and_functions():
    text = """
    <ir_version: 10, opset_import: ["" : 20, "local" : 1]>
    graph (bool c, float[1] x) => (float[1] y) {
      f = local.half (x)
      y = If (c) <then_branch = g () => (float[1] a) { a = Det (f) },
                  else_branch = h () => (float[1] b) { b = Abs (f) }>
    }
    <domain: "local", opset_import: ["" : 20]> half (v) => (w) { w = StatefulPartitionedCall (v) }
    """
    found = doctor.examine(ir.serde.deserialize_model(onnx.parser.parse_model(text)))
    assert [f.what.split(",")[0] for f in found] == [
        "operators of TensorFlow's runtime",
        "operators that TensorRT lacks",
    ]
    assert found[1].where == ("Det a",)


def test_doctor_as_a_command(entries, tmp_path):
    def run(path):
        done = entries.run("export.doctor", path)
        return done.returncode, done.stdout + done.stderr

    healthy = tmp_path / "healthy.onnx"
    onnx.save(parse("y = Relu (x)"), healthy)
    code, said = run(healthy)
    assert code == 0
    assert "Nothing found" in said
    sick = tmp_path / "sick.onnx"
    onnx.save(parse(GRAPHS["gelu"][0]), sick)
    code, said = run(sick)
    assert code == 1
    assert "Gelu (opset 20)" in said
    brackets = parse(GRAPHS["gelu"][0])
    brackets.graph.node[3].name = "a[/b]c"
    onnx.save(brackets, tmp_path / "x[v2].onnx")
    code, said = run(tmp_path / "x[v2].onnx")
    assert code == 1
    assert "x[v2].onnx" in said.replace("\n", "")
    assert "a[/b]c" in said
    (tmp_path / "empty.onnx").write_bytes(b"")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(sick.read_bytes()[:-20])
    for path in (cut, tmp_path / "none.onnx", tmp_path / "empty.onnx"):
        code, said = run(path)
        assert code == 2
        assert said.startswith("error: ")
        assert path.name in said.replace("\n", "")
    code, said = run(tmp_path)
    assert code == 2
    assert "is a folder: give its cut.onnx, empty.onnx" in " ".join(said.split())


def saved_outside(folder, name="weights"):
    """A model whose weights, 1 to 64, stand in a file of their own beside it."""
    folder.mkdir()
    model = parse("y = MatMul (x, matrix)")
    weights = onnx.numpy_helper.from_array(np.arange(1, 65, dtype=np.float32).reshape(8, 8))
    weights.name = "matrix"
    model.graph.initializer[0].CopyFrom(weights)
    onnx.save(
        model,
        folder / "model.onnx",
        save_as_external_data=True,
        location=name,
        size_threshold=0,
    )
    return folder


def test_links_are_followed_to_a_model_and_to_its_weights(tmp_path, monkeypatch):
    blobs, cache, alone, hard = (tmp_path / n for n in ("blobs", "cache", "alone", "hard"))
    saved_outside(blobs)
    for folder in (cache, alone, hard):
        folder.mkdir()
    # As a cache of models has it: files under other names, linked under their own.
    (blobs / "weights").rename(blobs / "5f3a")
    (cache / "model.onnx").symlink_to("../blobs/model.onnx")
    (cache / "weights").symlink_to("../blobs/5f3a")
    (hard / "model.onnx").hardlink_to(blobs / "model.onnx")
    (hard / "weights").hardlink_to(blobs / "5f3a")
    monkeypatch.chdir(tmp_path)
    for path in (Path("cache/model.onnx"), cache / "model.onnx", hard / "model.onnx"):
        assert doctor.load(path).graph.initializers["matrix"].const_value.numpy().sum() == 2080
        assert doctor.report(path)[0]
    # Only the model is a link: its weights stand beside what it leads to.
    (blobs / "5f3a").rename(blobs / "weights")
    (alone / "model.onnx").symlink_to(blobs / "model.onnx")
    assert doctor.report(alone / "model.onnx")[0]
    (blobs / "weights").unlink()
    with pytest.raises(UsageError, match=r"alone/weights is not there"):
        doctor.report(alone / "model.onnx")


def test_weights_outside_of_the_models_folder_stay_refused(tmp_path):
    (tmp_path / "weights").write_bytes(bytes(256))
    saved_outside(tmp_path / "model")
    path = tmp_path / "model" / "model.onnx"
    path.write_bytes(path.read_bytes().replace(b"weights", b"../wei1"))
    (tmp_path / "weights").rename(tmp_path / "wei1")
    with pytest.raises(UsageError, match="outside"):
        doctor.report(path)


def test_costs_are_those_worked_out_by_hand():
    gemm = parse("r = Reshape (x, rows)\n y = Gemm (r, matrix, bias)")
    reshape, product = costs(ir.serde.deserialize_model(gemm))
    assert (reshape["flops"], reshape["bytes"]) == (0, 0)
    assert product["flops"] == 2 * 6 * 8 * 8
    assert product["bytes"] == 4 * (6 * 8 + 8 * 8 + 8 + 6 * 8)
    assert product["weights"] == 4 * (8 * 8 + 8)
    (conv,) = costs(ir.serde.deserialize_model(parse("y = Conv (image, kernel)")))
    # 4 x 5 x 6 through 3 kernels of 4 x 3 x 3 gives 3 x 3 x 4.
    assert conv["flops"] == 2 * (3 * 3 * 4) * (4 * 3 * 3)
    assert conv["bytes"] == 4 * (4 * 5 * 6 + 3 * 4 * 3 * 3 + 3 * 3 * 4)
    (gather,) = costs(ir.serde.deserialize_model(parse("y = Gather <axis = 0> (table, ids)")))
    assert gather["bytes"] == 4 * (6 + 2 * 6 * 8)
    assert (reshape["weights"], gather["weights"]) == (0, 0)


def test_costs_of_open_axes_are_those_of_the_longest_sentence(tmp_path):
    text = """
    <ir_version: 9, opset_import: ["" : 20]>
    open (int64[batch, length] token_ids) => (float[batch, length, 3] y)
    <float[7, 4] table = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                          0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
     float[4, 3] matrix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}>
    { x = Gather <axis = 0> (table, token_ids)
      y = MatMul (x, matrix) }
    """
    path = tmp_path / "open.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    gather, product = of_longest(path, 5)
    assert gather["bytes"] == 8 * 5 + 2 * 4 * 5 * 4
    assert product["flops"] == 2 * 5 * 4 * 3
    assert (product["bytes"], product["weights"]) == (4 * (5 * 4 + 4 * 3 + 5 * 3), 4 * 4 * 3)


@pytest.mark.parametrize("nodes", ["y = Det (square)", "y = StatefulPartitionedCall (x)"])
def test_what_engines_lack_is_never_exported(nodes):
    with pytest.raises(UsageError, match=r"The graph has operators .*\((Det )?y\)"):
        pipeline.check_portable(model_of(nodes))
