"""Weights and outputs of ONNX graphs: put in, taken away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes


def assembled(folder: Path) -> ir.Model:
    """`raw.onnx` of `export.convert` with the values of `weights.npz` as its initializers."""
    model = ir.load(folder / "raw.onnx")
    with np.load(folder / "weights.npz") as weights:
        for value in list(model.graph.inputs):
            if value.name in weights.files:
                model.graph.inputs.remove(value)
                value.const_value = ir.tensor(weights[value.name], name=value.name)
                model.graph.register_initializer(value)
    return model


def without_taps(model: ir.Model, outputs: tuple[str, ...] = ("logits", "score")) -> ir.Model:
    """A copy that gives only `outputs`, and has only what they need."""
    model = model.clone()
    for value in list(model.graph.outputs):
        if value.name not in outputs:
            model.graph.outputs.remove(value)
    passes.RemoveUnusedNodesPass()(model)
    return model
