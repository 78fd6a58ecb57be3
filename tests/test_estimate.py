"""The fit of the Orin follows from the committed data; estimates are called estimates."""

import copy
import json

import numpy as np
import pytest

from bench.calibrate import main as calibrate_main
from bench.edge import device
from bench.estimate import main as estimate_main
from bench.roofline import calibrate, estimate, floor
from export.artifact import building, seal
from tests.support.floors import PROFILE, row

DATA = calibrate.load()
ENGINES = ("ort-cuda", "tensorrt")


@pytest.fixture(scope="module")
def fitted():
    return calibrate.calibrate(DATA)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_committed_profile_is_what_the_data_gives(fitted, engine):
    committed = device.read(estimate.DEVICES / f"agx_orin-{engine}.json")
    again = json.loads(json.dumps(fitted[engine]))
    assert again["fit"].pop("left_out") == [
        pytest.approx(line) for line in committed["fit"].pop("left_out")
    ]
    for name in ("depth_left_out", "backbone_left_out"):
        assert again["fit"].pop(name) == [pytest.approx(x) for x in committed["fit"].pop(name)]
    for name in ("by_length", "launch"):
        assert again["fit"].pop(name) == pytest.approx(committed["fit"].pop(name))
    assert again.pop("fit") == pytest.approx(committed.pop("fit"))
    assert again.pop("matrix_gflops") == pytest.approx(committed.pop("matrix_gflops"))
    assert again == committed


def test_all_thirteen_published_latencies_are_left_out_once(fitted):
    # Willis and Bakos 2025, tables 4 and 5 and section 4.2.1
    wanted = {
        "ort-cuda": [21.6, 18.6, 13.5, 11.4, 3.0],
        "tensorrt": [13.6909, 18.7897, 9.42474, 13.1855, 7.32538, 10.951, 0.98, 6.23],
    }
    for engine in ENGINES:
        lines = fitted[engine]["fit"]["left_out"]
        assert [line["published"] for line in lines] == wanted[engine]
        for line in lines:
            assert line["error"] == pytest.approx(line["predicted"] / line["published"] - 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_left_out_latency_is_met_within_20_percent_and_better_than_by_depth(fitted, engine):
    fit = fitted[engine]["fit"]
    assert fit["mean_error"] == pytest.approx(np.mean([abs(x["error"]) for x in fit["left_out"]]))
    assert fit["mean_error"] <= 0.20
    assert fit["mean_error"] < min(fit["depth_mean_error"], fit["backbone_mean_error"])


@pytest.mark.parametrize(("engine", "most"), [("ort-cuda", 5300), ("tensorrt", 21500)])
def test_no_rate_is_beyond_the_datasheet(fitted, engine, most):
    profile = fitted[engine]
    assert 0 < profile["convolution_gflops"] <= profile["matrix_gflops"]["fp32"] <= most
    assert profile["bandwidth_gbs"] == 204.8
    assert profile["launch_us"] == 0


def test_a_left_out_latency_has_no_part_in_its_own_prediction(fitted):
    changed = copy.deepcopy(DATA)
    (vit,) = [p for p in changed["published"] if p["model"] == "ViT"]
    vit["milliseconds"] *= 1.02
    found = calibrate.calibrate(changed)["tensorrt"]["fit"]["left_out"]
    before = fitted["tensorrt"]["fit"]["left_out"]
    pairs = {a["model"]: (a, b) for a, b in zip(found, before, strict=True)}
    a, b = pairs.pop("ViT")
    assert a["predicted"] == b["predicted"]
    assert any(a["predicted"] != b["predicted"] for a, b in pairs.values())


def test_rates_that_made_the_latencies_are_found_again():
    truth = calibrate.profile_of(DATA, "tensorrt", 6.0, 1.5)
    made = copy.deepcopy(DATA)
    for point in made["published"]:
        point["milliseconds"] = calibrate.predicted(DATA, point, 256, truth)
    for profile in calibrate.calibrate(made).values():
        assert profile["fit"]["tokens"] == 256
        assert profile["matrix_gflops"]["fp32"] == pytest.approx(6000, rel=0.02)
        assert profile["convolution_gflops"] == pytest.approx(1500, rel=0.02)
        assert profile["fit"]["mean_error"] < 0.02


def test_the_costs_are_those_of_the_published_models():
    # ViT-B/16 at 224 px: 197 tokens, 12 layers of 12 x 768^2 weights, attention, 196 patches.
    (vit,) = [p for p in DATA["published"] if p["model"] == "ViT"]
    rows = calibrate.rows_of(DATA, vit, 384)
    products = sum(r["flops"] * r["count"] for r in rows if floor.kind(r) == "matrix")
    patches = sum(r["flops"] * r["count"] for r in rows if r["operator"] == "Conv")
    layer = 2 * 197 * 12 * 768**2 + 2 * 2 * 197**2 * 768
    assert products == pytest.approx(12 * layer, rel=1e-3)
    assert patches == 2 * 196 * 768 * 768
    # BERT-base: the same layers over 384 tokens.
    (bert,) = [p for p in DATA["published"] if p["model"] == "BERT"]
    rows = calibrate.rows_of(DATA, bert, 384)
    layer = 2 * 384 * 12 * 768**2 + 2 * 2 * 384**2 * 768
    assert sum(r["flops"] * r["count"] for r in rows) == pytest.approx(12 * layer, rel=5e-3)
    # MobileNetV2 1.4: 582 million multiply-adds in the authors' table of checkpoints.
    mobile = next(p for p in DATA["published"] if p["model"] == "MobileNetV2")
    rows = calibrate.rows_of(DATA, mobile, 384)
    assert sum(r["flops"] * r["count"] for r in rows) == pytest.approx(2 * 582e6, rel=0.02)


def test_launches_are_added_to_a_measured_profiles_nodes():
    rows = [row("MatMul", 6000, 400, 300), row("Reshape", 0, 0), row("Add", 9, 400)]
    # 60 + 40 ns of the nodes, 1 us for each of the two that do something
    found = estimate.estimate(rows, PROFILE, "fp32")
    assert found == pytest.approx({"milliseconds": 2.1e-3, "low": 2.1e-3, "high": 2.31e-3})


def test_the_range_is_that_of_the_left_out_errors_and_of_launches():
    fit = {
        "left_out": [{"error": -0.2}, {"error": 0.25}],
        "launch": {"launch_us": 0.0, "tflops": 10},
    }
    gains = {"fp32": 1000, "fp16": 2000}
    profile = {**PROFILE, "kind": "fitted", "matrix_gflops": gains, "launch_us": 0.0, "fit": fit}
    rows = [row("MatMul", 10**9, 400, 300)]  # 1 ms
    wanted = {"milliseconds": 1.0, "low": 0.8, "high": 1.25}
    assert estimate.estimate(rows, profile, "fp32") == pytest.approx(wanted)
    # fp16 may gain nothing.
    wanted = {"milliseconds": 0.5, "low": 0.4, "high": 1.25}
    assert estimate.estimate(rows, profile, "fp16") == pytest.approx(wanted)
    fit["launch"]["launch_us"] = 3000.0  # one node, and 0.1 ms at 10 TFLOP/s
    assert estimate.estimate(rows, profile, "fp32")["high"] == pytest.approx(3.1)


@pytest.fixture
def folder(tmp_path):
    with building(tmp_path / "artifact") as partial:
        (partial / "test.csv").write_text("id,label,fp32\na,1,0\n")
        seal(
            partial,
            {
                "models": {"fp32": {"nodes": 1, "metrics": {"accuracy": 0.0}}},
                "variant": "late",
                "seed": 0,
                "spec": {},
                "backbones": {},
                "classes": ["a", "b"],
                "dataset": {"name": "none"},
                "lengths": [64],
                "inputs": ["token_ids"],
                "shapes": {"batch": 1, "length": 64},
                "costs": [row("MatMul", 10**9, 10**6, 10**5)],
            },
        )
    return tmp_path / "artifact"


def test_the_command_calls_an_estimate_an_estimate(folder, tmp_path, capsys):
    out = tmp_path / "estimate.json"
    assert estimate_main([str(folder), "--engine=tensorrt", f"--out={out}"]) == 0
    assert "estimate, not measured" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["format"] == "fusion_keras estimate 1"
    assert found["device"] == "Jetson AGX Orin"
    assert "384 tokens" in found["assumed"]
    assert "left-out" in found["error"]
    (entry,) = found["estimates"]
    assert entry["low"] < entry["milliseconds"] < entry["high"]
    rate = device.read(estimate.DEVICES / "agx_orin-tensorrt.json")["matrix_gflops"]["fp32"]
    assert entry["milliseconds"] == pytest.approx(1e9 / rate / 1e6)
    assert entry["artifact"]["variant"] == "late"


def test_an_estimate_in_json(folder, capsys):
    assert estimate_main([str(folder), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["estimates"]
    assert entry["low"] < entry["milliseconds"] < entry["high"]


def test_a_profile_of_any_device_is_taken(folder, tmp_path, capsys):
    device.write(tmp_path / "mine.json", PROFILE)
    assert estimate_main([str(folder), f"--device={tmp_path / 'mine.json'}"]) == 0
    assert "by hand, ort: estimate, not measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device=toaster"], "--device=agx_orin"),
        (["--engine=ort-cuda", "--precision=int8"], "no rate for int8"),
        (["--device=none.json"], "python -m bench.device"),
    ],
)
def test_what_cannot_be_estimated_is_said_in_a_sentence(folder, capsys, options, said):
    assert estimate_main([str(folder), *options]) == 2
    assert said in capsys.readouterr().err


def test_the_calibration_prints_every_left_out_error(capsys):
    assert calibrate_main([]) == 0
    said = capsys.readouterr().out
    for point in DATA["published"]:
        assert point["model"] in said
