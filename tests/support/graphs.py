"""Inputs and outputs of small graphs, and their layers by hand."""

import numpy as np

from tests.support.backbones import facts

VISIONS = {
    "mobilenet": ("tiny_mobilenet", facts(6, 16)),
    "vit": ("tiny_vit", facts(6, 12, image_scales=True)),
}


def inputs_of(model, batch=2, length=6, seed=0):
    """Random inputs that a model takes, as they come from a data set."""
    rng = np.random.default_rng(seed)
    token_ids = rng.integers(1, 1000, (batch, length)).astype("int32")
    token_ids[0, -2:] = 0
    values = {"token_ids": token_ids}
    values["image"] = rng.integers(0, 256, (batch, 32, 32, 3)).astype("uint8")
    return {x.name: values[x.name] for x in model.inputs}


def run(model, inputs):
    outputs = model(inputs, training=False)
    return {name: np.asarray(x) for name, x in outputs.items()}


def normed(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def weigh(model, seed=0, **names):
    """Set Dense layers to random weights; returns short name -> its function on numpy."""
    rng = np.random.default_rng(seed)
    functions = {}
    for short, name in names.items():
        layer = model.get_layer(name)
        kernel, bias = (rng.normal(size=v.shape) for v in layer.weights)
        layer.set_weights([kernel, bias])
        functions[short] = lambda x, kernel=kernel, bias=bias: x @ kernel + bias
    return functions
