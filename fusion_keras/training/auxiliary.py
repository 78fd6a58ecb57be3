"""Heads that only teaching needs: one for each modality, on what comes of that modality alone.

In a joint model the modality that is learned sooner takes the learning from the others, whose
backbones stay weaker than in a model of their own (Du et al. 2021, Uni-Modal Teacher, arXiv
2106.11059). A head of its own gives each backbone a loss that the others cannot fulfil, in the
middle of the network as in deeply supervised nets (Lee et al. 2015, arXiv 1409.5185, section 2).

They are outputs of another model over the same layers: the run's own model, its export and its
latency know nothing of them.
"""

from __future__ import annotations

import keras
from keras import layers

from fusion_keras.data.modalities import MODALITIES
from fusion_keras.fusion.graph import MASK, Graph
from fusion_keras.fusion.joins import pool
from fusion_keras.fusion.spec import FusionSpec
from fusion_keras.modalities import MODALITY

# Modality -> the output that is its head's logits.
HEAD_OF = {modality: f"taught_{modality}" for modality in MODALITIES}


def with_heads(graph: Graph, spec: FusionSpec, classes: int) -> keras.Model:
    """A model over the layers of `graph.model`, with a linear head for each modality that learns.

    Each stands on its modality's deepest tap, pooled as the junctions pool and normalised.

    Args:
        graph: not changed.
        spec: what it was built from.
        classes: C.

    Returns:
        The inputs and outputs of `graph.model`, and of each modality whose backbone is trainable
        `taught_text`, `taught_image`, ...: logits float32 [B, C].
    """
    outputs = dict(graph.model.output)
    for modality in spec.modalities:
        if graph.model.get_layer(MODALITY[modality].part).trainable:
            name = HEAD_OF[modality]
            x = _pooled(graph, spec, modality, name)
            x = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(x)
            outputs[name] = layers.Dense(classes, dtype="float32", name=name)(x)
    inputs = {x.name: x for x in graph.model.inputs}
    return keras.Model(inputs, outputs, name="with_heads")


def _pooled(graph: Graph, spec: FusionSpec, modality: str, name: str):
    """The deepest tap of a modality as one vector [B, D]."""
    mask = graph.encoders.output.get(MASK) if MODALITY[modality].padded else None
    tap = graph.encoders.output[graph.tap_names[modality][-1]]
    return pool(tap, mask, spec.pool, name)
