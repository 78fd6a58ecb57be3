"""What only teaching needs, of each modality alone: a head, and a projection of its tap.

In a joint model the modality that is learned sooner takes the learning from the others, whose
backbones stay weaker than in a model of their own (Du et al. 2021, Uni-Modal Teacher, arXiv
2106.11059). A head of its own gives each backbone a loss that the others cannot fulfil, in the
middle of the network as in deeply supervised nets (Lee et al. 2015, arXiv 1409.5185, section 2).

A student's tap can be compared with a teacher's, through a linear layer, for their widths differ
(Romero et al. 2015, FitNets, arXiv 1412.6550, section 2.2; Jiao et al. 2020, TinyBERT, arXiv
1909.10351, section 3).

They are outputs of another model over the same layers: the run's own model, its export and its
latency know nothing of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
from keras import layers

from fusion_keras.data.modalities import MODALITIES, TAP_OF
from fusion_keras.fusion.graph import MASK, Graph
from fusion_keras.fusion.joins import pool
from fusion_keras.fusion.spec import FusionSpec
from fusion_keras.modalities import MODALITY

# Modality -> the output that is its head's logits.
HEAD_OF = {modality: f"taught_{modality}" for modality in MODALITIES}


def with_outputs(
    graph: Graph, spec: FusionSpec, classes: int, widths: Mapping[str, int]
) -> keras.Model:
    """A model over the layers of `graph.model`, with further outputs of each modality that learns.

    They come of the modality's deepest tap, pooled as the junctions pool and normalised.

    Args:
        graph: not changed.
        spec: what it was built from.
        classes: C, of the heads; 0 for no heads.
        widths: modality -> D, of the teacher's taps to be compared with.

    Returns:
        The inputs and outputs of `graph.model`, and of each modality whose backbone is trainable
        `taught_text`, `taught_image`, ...: logits float32 [B, C], and `tap_text`, ...: float32
        [B, D].
    """
    outputs = dict(graph.model.output)
    for modality in spec.modalities:
        if not graph.model.get_layer(MODALITY[modality].part).trainable:
            continue
        wide = {HEAD_OF[modality]: classes, TAP_OF[modality]: widths.get(modality, 0)}
        for name, width in wide.items():
            if width:
                x = _pooled(graph, spec, modality, name)
                x = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(x)
                outputs[name] = layers.Dense(width, dtype="float32", name=name)(x)
    inputs = {x.name: x for x in graph.model.inputs}
    return keras.Model(inputs, outputs, name="with_outputs")


def pooled_taps(graph: Graph, spec: FusionSpec) -> keras.Model:
    """The inputs of `graph.model` -> modality -> its deepest tap, pooled, float [B, D]."""
    inputs = {x.name: x for x in graph.model.inputs}
    outputs = {m: _pooled(graph, spec, m, f"{m}_pooled") for m in spec.modalities}
    return keras.Model(inputs, outputs, name="pooled_taps")


def _pooled(graph: Graph, spec: FusionSpec, modality: str, name: str):
    """The deepest tap of a modality as one vector [B, D]."""
    mask = graph.encoders.output.get(MASK) if MODALITY[modality].padded else None
    tap = graph.encoders.output[graph.tap_names[modality][-1]]
    return pool(tap, mask, spec.pool, name)
