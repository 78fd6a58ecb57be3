"""Every architecture, through TensorFlow and tf2onnx, to a portable graph of equal outputs."""

import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from export import ladder, stages, weights
from fusion_keras.backbones.presets import load_image, load_text
from fusion_keras.config import get_config
from fusion_keras.fusion.graph import build
from fusion_keras.fusion.spec import to_dict
from fusion_keras.fusion.variants import VARIANTS, make_spec
from tests.test_graph import VISIONS, inputs_of, run

LENGTH, ROWS = 12, 3
# name -> (variant, vision, junctions, length of the exported graph)
CASES = {
    f"{variant}-{vision}": (variant, vision, "", LENGTH)
    for variant in VARIANTS
    for vision in VISIONS
} | {
    "inter-any-length": ("inter", "mobilenet", "", None),
    "joins": ("inter", "vit", "2+2:gate,3+3:add,4+4:cross", LENGTH),
}
CONVERT = """
import sys
from pathlib import Path
from export.convert import main
for name in sys.argv[1:]:
    main(Path(name), Path(name))
"""


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A folder for each case with `raw.onnx`, weights, inputs and JAX's outputs."""
    root = tmp_path_factory.mktemp("export")
    text = load_text("tiny_bert")
    for name, (variant, vision, junctions, length) in CASES.items():
        preset, depths = VISIONS[vision]
        folder = root / name
        folder.mkdir()
        fusion = get_config().fusion
        fusion.update({"width": 32, "junctions": junctions})
        spec = make_spec(variant, fusion, depths)
        model = build(spec, text, load_image(preset), num_classes=3).model
        rng = np.random.default_rng(0)
        # What is 0 or 1 at the start would hide a rule that drops it.
        model.set_weights(
            [
                w + (0.1 * rng.random(w.shape)).astype(w.dtype) if w.dtype == "float32" else w
                for w in model.get_weights()
            ]
        )
        model.save(folder / "model.keras")
        (folder / "config.json").write_text(json.dumps({"spec": to_dict(spec)}))
        inputs = inputs_of(model, batch=ROWS, length=LENGTH)
        np.savez(folder / "inputs.npz", **inputs)
        np.savez(folder / "reference.npz", **run(model, inputs))
        shapes = stages.Shapes(length=length).of(inputs)
        (folder / "shapes.json").write_text(json.dumps(shapes))
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, *(root / name for name in CASES)],
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.mark.parametrize("name", CASES)
def test_portable_graph_gives_what_jax_gives(converted, name):
    folder = converted / name
    model, _ = stages.rewrite(folder)
    ir.save(weights.without_taps(model), folder / "model.onnx")
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    outputs = stages.run_onnx(folder / "model.onnx", dict(np.load(folder / "inputs.npz")))
    wanted = np.load(folder / "reference.npz")["logits"]
    rung = ladder.compare("onnx", outputs["logits"], "jax", wanted, "float32")
    assert rung.holds, rung
    left = Counter(node.op_type for node in onnx.load(folder / "model.onnx").graph.node)
    assert not {"Erf", "Sqrt", "Reciprocal", "Less", "Loop", "If"} & set(left), left
