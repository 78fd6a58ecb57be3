"""Floors worked out by hand, and what ONNX Runtime's profiler says beside them."""

import json

import numpy as np
import onnx_ir as ir
import pytest

from bench.edge import device, micrograph, results
from bench.floor import main as floor_main
from bench.roofline import floor, layers
from export.artifact import building, seal
from export.cost import costs
from tests.support.floors import PROFILE, row


@pytest.mark.parametrize(
    ("entry", "precision", "nanoseconds"),
    [
        (row("MatMul", 6000, 400, 300), "fp32", 60),  # 60 of FLOPs, 40 of bytes
        (row("MatMul", 3000, 400, 300), "fp32", 40),
        (row("Gemm", 3000, 400, 300), "fp16", 30),  # half the bytes, 20
        (row("MatMul", 6000, 400, 300), "int8", 17.5),  # 15 of FLOPs, 100 + 75 bytes
        (row("MatMul", 6000, 400, 0), "int8", 60),  # of two activations: stays fp32
        (row("Conv", 6000, 400, 100), "fp32", 120),  # 20 FLOPs a byte
        (row("Conv", 900, 500, 100), "fp32", 180),  # 2.25 FLOPs a byte: depthwise
        (row("Conv", 6000, 400, 100), "int8", 120),
        (row("Add", 10**6, 400), "fp32", 40),  # bytes alone
    ],
)
def test_a_node_takes_the_longer_of_its_flops_and_its_bytes(entry, precision, nanoseconds):
    assert floor.node_ms(entry, PROFILE, precision) == pytest.approx(nanoseconds / 1e6)


def test_what_passes_between_nodes_moves_at_the_speed_of_the_cache():
    cached = {**PROFILE, "cache_gbs": 100}
    assert floor.node_ms(row("Add", 1, 400, 100), cached, "fp32") == pytest.approx(13e-6)


def test_convolutions_gain_with_fp16_what_products_gain():
    faster = {**PROFILE, "matrix_gflops": {"fp32": 100, "fp16": 300}}
    assert floor.node_ms(row("Conv", 6000, 400, 100), faster, "fp16") == pytest.approx(40e-6)


def test_the_bounds_of_a_whole_model_take_no_node_by_itself():
    rows = [row("MatMul", 6000, 400, 300), row("MatMul", 1000, 400, 100), row("Add", 9, 400)]
    assert floor.model_ms(rows, PROFILE, "fp32") == pytest.approx(140e-6)
    assert floor.bounds_ms(rows, PROFILE, "fp32") == pytest.approx((70e-6, 40e-6))


def test_depthwise_convolutions_are_known_by_what_they_cost():
    content = (micrograph.depthwise(64, 28, 2), micrograph.pointwise(16, 96, 28, 2))
    kinds = [{floor.kind(r) for r in costs(ir.from_proto(_with_shapes(made)))} for made in content]
    assert kinds == [{"depthwise"}, {"convolution"}]


def _with_shapes(content):
    import onnx

    return onnx.shape_inference.infer_shapes(onnx.load_from_string(content))


def test_a_node_without_a_place_counts_with_the_one_before_it():
    names = ["padding_mask/NotEqual", "text_backbone_1/x", "node_Gemm_1", "image_scaling/mul"]
    names += ["node_Conv_2", "fusion_1/junction0/concat", "fusion_1/logits_1/MatMul", "node_Add_3"]
    assert layers.parts(names) == [
        *["text backbone"] * 3,
        *["image backbone"] * 2,
        "fusion",
        *["head"] * 2,
    ]


def test_runs_of_the_warm_up_do_not_count():
    events = [
        {"cat": "Session", "name": "model_run", "dur": 9},
        *(
            {"cat": "Node", "name": f"{n}_kernel_time", "dur": dur, "args": {"op_name": "Add"}}
            for n, dur in (("a", 900), ("b", 700), ("a", 10), ("b", 2), ("a", 30), ("b", 4))
        ),
        {"cat": "Node", "name": "a_fence_before", "dur": 5, "args": {"op_name": "Add"}},
    ]
    assert layers.kernels(events, 1) == [
        {"name": "a", "operator": "Add", "ms": pytest.approx(0.02)},
        {"name": "b", "operator": "Add", "ms": pytest.approx(0.003)},
    ]


@pytest.fixture
def folder(tmp_path):
    """An artifact of two products, and a profile beside it."""
    device.write(tmp_path / "device.json", PROFILE)
    content = micrograph.products(4, 2)
    with building(tmp_path / "artifact") as partial:
        (partial / "model.onnx").write_bytes(content)
        np.savez(partial / "golden.npz", input_x=np.ones((8, 768), np.float32))
        seal(
            partial,
            {
                "models": {"fp32": {"file": "model.onnx"}},
                "lengths": [],
                "inputs": ["x"],
                "shapes": {"batch": 4, "length": None},
                "costs": costs(ir.from_proto(_with_shapes(content))),
            },
        )
    return tmp_path / "artifact"


def run(folder, *options):
    return floor_main([str(folder), f"--device={folder.parent / 'device.json'}", *options])


def test_the_command_prints_the_floor_and_where_the_time_goes(folder, capsys):
    assert run(folder, "--layers") == 0
    said = capsys.readouterr().out
    # Twice 4 x 768 x 3072 products; 4 x (768 + 3072) values and 768 x 3072 weights, 4 bytes each
    memory = 2 * 4 * (4 * (768 + 3072) + 768 * 3072) / 10 / 1e6
    assert f"node by node          {memory:9.3f} ms at least" in said
    assert f"whole model, FLOPs    {2 * 2 * 4 * 768 * 3072 / 100 / 1e6:9.3f} ms" in said
    measured = said.split("by operator")[1].split("slowest")[0]
    assert "MatMul" in measured
    assert "100.0%" in measured


def test_the_floor_in_json(folder, capsys):
    assert run(folder, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["nodes_ms"] >= max(found["flops_ms"], found["weights_ms"])
    assert found["measured_p50_ms"] == {}
    assert run(folder, "--json", "--layers") == 2


def measured(folder, target, fingerprint=None, **changes) -> float:
    """A file of results with one contender at half the floor's speed; returns its ms."""
    meta = json.loads((folder / "meta.json").read_text())
    ms = 2 * floor.model_ms(meta["costs"], PROFILE, "fp32")
    contender = {
        "name": "a fp32",
        "artifact": {"seal": meta["seal"]},
        "precision": "fp32",
        "runner": "ort",
        "batch": 1,
        "hz": 0.0,
        "slow_by": 0.0,
        "inputs": "data",
        "complete": True,
        "latency": {"p50": ms},
    }
    content = {"fingerprint": fingerprint or PROFILE["fingerprint"]}
    results.write(target, {**content, "contenders": [{**contender, **changes}]})
    return ms


def test_a_measurement_is_given_as_a_share_of_the_floor(folder, tmp_path, capsys):
    ms = measured(folder, tmp_path / "r.json")
    assert run(folder, f"--measured={tmp_path / 'r.json'}") == 0
    assert f"a fp32: measured {ms:.3f} ms (p50), 50% of it is the floor" in capsys.readouterr().out


def test_a_floor_above_the_measurement_speaks_against_the_profile(folder, tmp_path, capsys):
    measured(folder, tmp_path / "r.json", latency={"p50": 1e-6})
    assert run(folder, f"--measured={tmp_path / 'r.json'}") == 0
    assert "slower when its profile was made" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change", [{"batch": 8}, {"runner": "tensorrt"}, {"hz": 5.0}, {"precision": "int8"}]
)
def test_a_measurement_of_something_else_has_another_floor(folder, tmp_path, capsys, change):
    measured(folder, tmp_path / "r.json", **change)
    assert run(folder, f"--measured={tmp_path / 'r.json'}") == 2
    assert "no measurement of this artifact with precision fp32" in capsys.readouterr().err


def test_a_measurement_of_another_machine_has_another_floor(folder, tmp_path, capsys):
    measured(folder, tmp_path / "r.json", fingerprint={"cpu": "Orin"})
    assert run(folder, f"--measured={tmp_path / 'r.json'}") == 2
    assert "on another machine than the profile" in capsys.readouterr().err


def test_a_profile_that_lacks_something_is_a_sentence(folder, capsys):
    (folder.parent / "device.json").write_text(json.dumps({"format": device.FORMAT}))
    assert run(folder) == 2
    assert "lacks device, engine" in capsys.readouterr().err


def test_a_missing_profile_ends_in_a_sentence(folder, tmp_path, capsys):
    assert floor_main([str(folder), f"--device={tmp_path / 'none.json'}"]) == 2
    assert "python -m bench.device" in capsys.readouterr().err
