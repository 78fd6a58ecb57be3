"""Every architecture, through TensorFlow and tf2onnx, to a portable graph of equal outputs."""

import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from export import doctor, ladder, stages, weights
from fusion_keras.backbones.presets import load_image, load_text
from fusion_keras.config import get_config
from fusion_keras.exported import run_onnx
from fusion_keras.fusion.graph import build
from fusion_keras.fusion.spec import to_dict
from fusion_keras.fusion.variants import make_spec
from tests.support.backbones import facts
from tests.support.graphs import VISIONS, inputs_of, run
from tests.support.tiny import OF_TEXT_AND_IMAGES as VARIANTS

LENGTH, ROWS = 12, 3
FIXED = stages.Shapes(batch=1, length=LENGTH)
# name -> (variant, vision, junctions, shapes of the exported graph)
CASES = {
    "inter-mobilenet": ("inter", "mobilenet", "", FIXED),
    "early-vit": ("early", "vit", "", FIXED),
    "late_score-mobilenet": ("late_score", "mobilenet", "", FIXED),
    "inter-any-length": ("inter", "mobilenet", "", stages.Shapes(batch=1, length=None)),
    "late-all-open": ("late", "vit", "", stages.Shapes(batch=None, length=None)),
    "early-all-open": ("early", "mobilenet", "", stages.Shapes(batch=None, length=None)),
    "inter-two-at-a-time": ("inter", "mobilenet", "", stages.Shapes(batch=2, length=LENGTH)),
    "joins": ("inter", "vit", "2+2:gate,3+3:add,4+4:cross", FIXED),
}
CASES |= {
    f"{variant}-{vision}": (variant, vision, "", FIXED)
    for variant in VARIANTS
    for vision in VISIONS
}
# Other families of images, each of whose rules some variant must need.
OTHERS = {
    "resnet": ("tiny_resnet", facts(6, 8)),
    "efficientnet": ("tiny_efficientnet", facts(6, 16)),
    "mobilenet_v3": ("tiny_mobilenet_v3", facts(6, 11)),
    "convnext": ("tiny_convnext", facts(6, 8)),
    "convnext_v2": ("tiny_convnext_v2", facts(6, 8)),
}
CASES |= {f"inter-{vision}": ("inter", vision, "", FIXED) for vision in OTHERS}
QUICK = ["joins"]
SLOW = [name for name in CASES if name not in QUICK]
CONVERT = """
import json, sys
from pathlib import Path
import numpy as np
from export import convert
from fusion_keras.fusion.architectures import FUSION
for folder in map(Path, sys.argv[1:]):
    spec = json.loads((folder / "config.json").read_text())["spec"]
    graph = FUSION.rebuilt(convert.load_model(folder), FUSION.from_dict(spec))
    shapes = json.loads((folder / "shapes.json").read_text())
    signature = convert.signature_of(shapes, dict(np.load(folder / "inputs.npz")))
    convert.to_onnx(graph, signature, folder)
"""


def prepared(root, cases):
    """A folder for each case with a model of random weights, inputs and JAX's outputs."""
    text = load_text("tiny_bert")
    for name, (variant, vision, junctions, shapes) in cases.items():
        preset, depths = (VISIONS | OTHERS)[vision]
        folder = root / name
        folder.mkdir()
        fusion = get_config().fusion
        fusion.update({"width": 32, "junctions": junctions})
        spec = make_spec(variant, fusion, depths)
        model = build(spec, {"text": text, "image": load_image(preset)}, num_classes=3).model
        rng = np.random.default_rng(0)
        # What is 0 or 1 at the start would hide a rule that drops it.
        for variable in model.weights:
            if variable.dtype == "float32":
                variable.assign_add(0.1 * rng.random(variable.shape))
        model.save(folder / "model.keras")
        (folder / "config.json").write_text(json.dumps({"spec": to_dict(spec)}))
        inputs = inputs_of(model, batch=ROWS, length=LENGTH)
        np.savez(folder / "inputs.npz", **inputs)
        np.savez(folder / "reference.npz", **run(model, inputs))
        (folder / "shapes.json").write_text(json.dumps(shapes.of(inputs)))


def converted(convert, root, cases):
    """The folders with `raw.onnx` and `weights.npz` as well."""
    prepared(root, {name: CASES[name] for name in cases})
    done = convert.run("-c", CONVERT, *(root / name for name in cases))
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.fixture(scope="module")
def quick(convert, tmp_path_factory):
    return converted(convert, tmp_path_factory.mktemp("quick"), QUICK)


@pytest.fixture(scope="module")
def slow(convert, tmp_path_factory):
    return converted(convert, tmp_path_factory.mktemp("slow"), SLOW)


def check(folder):
    model, fired = stages.rewrite(folder)
    ir.save(weights.without_taps(model), folder / "model.onnx")
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    outputs = run_onnx(folder / "model.onnx", dict(np.load(folder / "inputs.npz")))
    wanted = np.load(folder / "reference.npz")["logits"]
    rung = ladder.compare("onnx", outputs["logits"], "jax", wanted, "float32")
    assert rung.holds, rung
    assert doctor.examine(ir.load(folder / "model.onnx")) == []
    return fired


@pytest.mark.parametrize("name", QUICK)
def test_portable_graph_gives_what_jax_gives(quick, name):
    check(quick / name)


@pytest.mark.large
@pytest.mark.slow
def test_every_rule_is_of_use_to_some_architecture(quick, slow):
    fired = [check((quick if name in QUICK else slow) / name) for name in CASES]
    unused = [rule for rule in fired[0] if not any(counts[rule] for counts in fired)]
    assert not unused


@pytest.mark.large
@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_portable_graph_of_every_other_variant(slow, name):
    check(slow / name)
