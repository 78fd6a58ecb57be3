"""What a fusion architecture costs: parameters and multiplications of each part."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import keras
from jax import numpy as jnp
from jax.extend.core import Var, jaxprs_in_params

from fusion_keras.fusion.graph import MASK, Graph
from fusion_keras.fusion.joins import join
from fusion_keras.fusion.spec import FusionSpec, format_junction
from fusion_keras.modalities import MODALITY


@dataclass(frozen=True)
class Part:
    """One row of the description.

    Attributes:
        name: what it is.
        takes, gives: shapes without the batch.
        parameters: how many numbers are stored.
        macs: multiply-accumulates of one example; None where they are not counted apart.
    """

    name: str
    takes: str
    gives: str
    parameters: int
    macs: int | None


def count_macs(model: keras.Model, length: int = 1) -> int:
    """Multiply-accumulates of matrix products and convolutions, for one example.

    Counted on the traced graph, so what is counted is what runs; what the weights alone decide is
    worked out once, and is none of it. A depthwise convolution counts by its own size whichever way
    it is computed. Open dimensions, those of the tokens, are taken as `length`.
    """
    variables = [
        [v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables)
    ]
    inputs = keras.tree.map_structure(
        lambda x: jax.ShapeDtypeStruct(
            [1, *(d or length for d in x.shape[1:])], jnp.dtype(x.dtype)
        ),
        model.input,
    )
    traced = jax.make_jaxpr(lambda x: model.stateless_call(*variables, x)[0])(inputs)
    return _count(traced.jaxpr, traced.jaxpr.invars) + sum(
        _depthwise_macs(layer) for layer in model._flatten_layers()
    )


def _depthwise_macs(layer) -> int:
    if not isinstance(layer, keras.layers.DepthwiseConv2D):
        return 0
    return math.prod(layer.output.shape[1:]) * math.prod(layer.kernel_size)


def _count(jaxpr, inputs) -> int:
    """Of a graph whose variables `inputs` depend on the example."""
    total, varying = 0, set(inputs)
    for equation in jaxpr.eqns:
        kind = equation.primitive.name
        taken = [isinstance(x, Var) and x in varying for x in equation.invars]
        if not any(taken):
            continue
        varying.update(equation.outvars)
        # What is inside of a loop over time runs at every step.
        times = equation.params["length"] if kind == "scan" else 1
        for inner in jaxprs_in_params(equation.params):
            given = inner.invars
            if kind not in ("scan", "while", "cond") and len(given) == len(taken):
                given = [x for x, varies in zip(given, taken, strict=True) if varies]
            total += times * _count(inner, given)
        out = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        if kind == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += out * math.prod(shape[axis] for axis in contracted)
        elif kind == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            features = equation.params["dimension_numbers"].rhs_spec[0]
            depthwise = equation.params["feature_group_count"] > 1
            total += 0 if depthwise else out * math.prod(kernel) // kernel[features]
    return total


def describe(spec: FusionSpec, graph: Graph) -> list[Part]:
    """The parts of a model in the order in which data meets them, with their sum last."""
    parts = [_backbone(spec, graph, modality) for modality in spec.modalities]
    junctions = [_junction(spec, graph, i) for i in range(len(spec.junctions))]
    whole = graph.fusion
    classes = whole.output["logits"].shape[-1]
    head = Part(
        "head",
        f"{sum(int(j.gives) for j in junctions)}",
        f"{classes} classes",
        whole.count_params() - sum(j.parameters for j in junctions),
        count_macs(whole) - sum(j.macs for j in junctions),
    )
    parts += [*junctions, head]
    total = Part("all", "", "", sum(p.parameters for p in parts), sum(p.macs for p in parts))
    return [*parts, total]


def describe_layers(model: keras.Model) -> list[Part]:
    """The layers of a model that has no parts of its own, with their sum last."""
    parts = [
        Part(layer.name, "", _shape(layer.output), layer.count_params(), None)
        for layer in model.layers
    ]
    return [*parts, Part("all", "", "", model.count_params(), count_macs(model))]


def _backbone(spec, graph, modality) -> Part:
    part = graph.model.get_layer(MODALITY[modality].part)
    taps = ", ".join(str(d) for d in spec.depths(modality))
    (model_input,) = (x for x in graph.model.inputs if x.name == MODALITY[modality].input)
    length = model_input.shape[1] or 1
    shapes = " ".join(_shape(x, length) for x in part.outputs)
    return Part(
        f"{modality}, taps {taps}",
        _shape(model_input),
        shapes,
        part.count_params(),
        count_macs(part, length),
    )


def _junction(spec, graph, index) -> Part:
    junction = spec.junctions[index]
    shapes = {x.name: x for x in graph.fusion.inputs}
    needed = {m: shapes[MODALITY[m].tap(d)] for m, d in junction.depths.items()}
    inputs = {m: keras.Input(x.shape[1:], dtype=x.dtype, name=x.name) for m, x in needed.items()}
    mask = keras.Input(shapes[MASK].shape[1:], dtype="int32") if MASK in shapes else None
    alone = keras.Model(
        [*inputs.values(), *([] if mask is None else [mask])],
        join(junction, inputs, mask, spec.pool, "junction"),
    )
    blocks = f", {junction.blocks} x {junction.heads} heads" if junction.blocks else ""
    return Part(
        f"junction {index}: {format_junction(junction)}{blocks}",
        " ".join(_shape(x) for x in inputs.values()),
        str(alone.output.shape[-1]),
        alone.count_params(),
        count_macs(alone),
    )


def _shape(tensor, length: int | str = "?") -> str:
    return "x".join(str(d or length) for d in tensor.shape[1:])
