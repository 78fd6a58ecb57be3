"""The graph of a model with stand-ins, one of its modalities left out for good.

Its backbone goes, and its inputs: what stands behind the taps sees the stand-ins alone. An
artifact of it is smaller and faster than one that is told of the missing input at every query.
"""

from __future__ import annotations

import keras
from keras import ops

from export.request import kept
from fusion_keras.fusion.graph import Graph
from fusion_keras.fusion.spec import FusionSpec
from fusion_keras.modalities import MODALITY


class _Constant(keras.layers.Layer):
    """The same number in every place of [B, *shape], for the B of its input."""

    def __init__(self, shape: tuple[int, ...], value: float, dtype: str, **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.shape, self.value = shape, value

    def call(self, like):
        size = (ops.shape(like)[0], *self.shape)
        return ops.full(size, self.value, dtype=self.compute_dtype)

    def compute_output_spec(self, like):
        return keras.KerasTensor((None, *self.shape), dtype=self.compute_dtype)


def without(graph: Graph, spec: FusionSpec, modality: str) -> Graph:
    """The same model, with the same layers and weights, that never has a modality.

    Args:
        graph: of a model with stand-ins.
        spec: what it was built from.
        modality: one of the spec's.
    """
    names = kept((x.name for x in graph.model.inputs), modality)
    inputs = {x.name: x for x in graph.encoders.inputs if x.name in names}
    gone = set(graph.encoder(modality).output)
    presence = {MODALITY[m].present for m in spec.modalities} - inputs.keys()
    taps = {n: x for n, x in graph.encoders.output.items() if n not in gone | presence}
    like = next(iter(inputs.values()))
    values = dict(taps)
    for x in graph.fusion.inputs:
        if x.name not in values:
            # A missing sentence is one token long.
            shape = tuple(size or 1 for size in x.shape[1:])
            other = x.name in presence - {MODALITY[modality].present}
            values[x.name] = _Constant(shape, float(other), x.dtype, name=f"no_{x.name}")(like)
    return Graph(
        model=keras.Model(inputs, graph.fusion(values), name="fusion_model"),
        encoders=keras.Model(inputs, taps, name="encoders"),
        fusion=graph.fusion,
        tap_names={m: names for m, names in graph.tap_names.items() if m != modality},
    )
