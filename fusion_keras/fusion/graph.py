"""From a fusion spec to one Keras model.

The model has nested functional models for parts: `text_backbone`, `image_backbone` and those of
further modalities, cut behind their deepest tap, and `fusion`, the junctions and the head. What
no junction reaches is not in the graph, not in the weights file, not in the latency.
The parts make feature caching, freezing and counting a matter of naming one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

from fusion_keras.backbones.cut import cut
from fusion_keras.fusion.joins import join
from fusion_keras.fusion.spec import LAST, FusionSpec, validate
from fusion_keras.fusion.stand_in import PresentMask, StandIn
from fusion_keras.modalities import MODALITY, Modality

# The padding mask among the inputs of `fusion`.
MASK = "mask"
_register = keras.saving.register_keras_serializable(package="fusion_keras")


@_register
class ScoreAverage(layers.Layer):
    """Weighted mean of the probabilities of several logits, as log-probabilities.

    Softmax of the result is the mean itself, so it serves as logits. Weights are given,
    or learned as the softmax of one number for each input, from equal shares.
    """

    def __init__(self, weights: tuple[float, ...] = (), **kwargs):
        super().__init__(**kwargs)
        self.fixed = tuple(weights)

    def build(self, input_shape):
        if not self.fixed:
            self.share = self.add_weight(
                shape=(len(input_shape),), initializer="zeros", name="share"
            )

    def call(self, logits):
        probs = ops.softmax(ops.cast(ops.stack(logits, axis=-1), "float32"), axis=1)  # [B, C, M]
        share = ops.convert_to_tensor(self.fixed) if self.fixed else ops.softmax(self.share)
        mean = ops.sum(probs * ops.cast(share, "float32"), axis=-1)
        return ops.log(ops.maximum(mean, 1e-7))

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {**super().get_config(), "weights": self.fixed}


@dataclass(frozen=True)
class Graph:
    """A built fusion architecture: the whole, and its two halves over the same layers.

    Attributes:
        model: inputs `token_ids` int32 [B, T], padded, `image` uint8 [B, S, S, 3],
            scaled in the graph, `audio` float32 [B, F, bands], log-mel energies, and
            `tabular` float32 [B, K], as far as the spec needs them, and with stand-ins
            `present_text`, `present_image`, ... float32 [B, 1]. Outputs: a dict of `logits`
            float32 [B, C] and, with regression, `score` float32 [B, 1].
        encoders: the same inputs -> a dict of taps (and `mask`, and what is present), the
            inputs of `fusion`.
        fusion: junctions and head.
        tap_names: modality -> the taps that come of it alone, shallow first.
    """

    model: keras.Model
    encoders: keras.Model
    fusion: keras.Model
    tap_names: Mapping[str, tuple[str, ...]]

    def taps(self, modality: str | None = None) -> dict[str, keras.KerasTensor]:
        """The taps among the outputs of `encoders`, of one modality or of all: name -> tensor."""
        if modality is not None:
            return {name: self.encoders.output[name] for name in self.tap_names[modality]}
        others = {MASK, *(x.name for x in self.encoders.inputs)}
        return {n: x for n, x in self.encoders.output.items() if n not in others}

    def encoder(self, modality: str) -> keras.Model:
        """The encoder of one modality: its input -> a dict of its taps and its padding mask."""
        kind = MODALITY[modality]
        outputs = self.taps(modality)
        if kind.padded and MASK in self.encoders.output:
            outputs[MASK] = self.encoders.output[MASK]
        (x,) = (x for x in self.encoders.inputs if x.name == kind.input)
        return keras.Model({x.name: x}, outputs, name=f"{modality}_encoder")


def build(
    spec: FusionSpec,
    presets: Mapping[str, Any],
    *,
    num_classes: int,
    sequence_length: int | None = None,
    regression: bool = False,
) -> Graph:
    """Build the model that a spec describes.

    Args:
        spec: the architecture; it is validated against the backbones.
        presets: modality -> its preset, of each that a junction takes.
        num_classes: C, at least 2.
        sequence_length: T of the token ids; None leaves it open.
        regression: also predict a real-valued score.

    Raises:
        UsageError: the spec does not fit the backbones.
    """
    validate(spec, {m: preset.backbone.num_depths for m, preset in presets.items()})
    inputs, taps = {}, {}
    for name in spec.modalities:
        modality, preset = MODALITY[name], presets[name]
        x = inputs[modality.input] = modality.placeholder(preset, sequence_length)
        part = cut(preset.backbone, spec.depths(name), name=modality.part)
        fed, mask = modality.feed(x, lambda layer_name, make: make(layer_name), part, preset)
        taps |= _tapped(spec, modality, part(fed), mask)
    if spec.stand_ins:
        names = [MODALITY[m].present for m in spec.modalities]
        present = {n: keras.Input((1,), dtype="float32", name=n) for n in names}
        inputs, taps = inputs | present, taps | present
    fusion = _fusion_part(spec, taps, num_classes, regression)
    return Graph(
        model=keras.Model(inputs, fusion(taps), name="fusion_model"),
        encoders=keras.Model(inputs, taps, name="encoders"),
        fusion=fusion,
        tap_names=tap_names(spec),
    )


def rebuilt(model: keras.Model, spec: FusionSpec) -> Graph:
    """The graph of a model that was read from a file, over its own layers and weights.

    Args:
        model: as `build` made it, saved and loaded again; on any backend.
        spec: what it was built from.
    """
    inputs, taps = {x.name: x for x in model.inputs}, {}
    for name in spec.modalities:
        modality = MODALITY[name]
        part = model.get_layer(modality.part)
        fed, mask = modality.feed(inputs[modality.input], lambda n, make: model.get_layer(n), part)
        taps |= _tapped(spec, modality, part(fed), mask)
    if spec.stand_ins:
        taps |= {MODALITY[m].present: inputs[MODALITY[m].present] for m in spec.modalities}
    return Graph(
        model=model,
        encoders=keras.Model(inputs, taps, name="encoders"),
        fusion=model.get_layer("fusion"),
        tap_names=tap_names(spec),
    )


def tap_names(spec: FusionSpec) -> dict[str, tuple[str, ...]]:
    """Modality -> the names of its taps, shallow first."""
    return {m: tuple(MODALITY[m].tap(d) for d in spec.depths(m)) for m in spec.modalities}


def _reads_mask(spec: FusionSpec) -> bool:
    """Whether a junction takes text as a sequence, so must know where padding begins."""
    return any(
        junction.tokens == "sequence" or spec.pool == "mean"
        for junction in spec.junctions
        for name, depth in junction.taps
        if MODALITY[name].padded and depth != LAST
    )


def _tapped(spec: FusionSpec, modality: Modality, tensors, mask) -> dict:
    """The taps of a modality's backbone by their names, and its padding mask if it is read."""
    tensors = tensors if isinstance(tensors, (list, tuple)) else [tensors]
    depths = spec.depths(modality.name)
    taps = {modality.tap(d): x for d, x in zip(depths, tensors, strict=True)}
    return taps | ({MASK: mask} if mask is not None and _reads_mask(spec) else {})


def _fusion_part(spec, taps, num_classes, regression) -> keras.Model:
    """Junctions and head as a model of their own: the dict of `encoders` -> outputs."""
    inputs = {n: keras.Input(x.shape[1:], dtype=x.dtype, name=n) for n, x in taps.items()}
    seen = _stood_in(spec, inputs) if spec.stand_ins else inputs
    vectors = []
    for i, junction in enumerate(spec.junctions):
        tapped = {m: seen[MODALITY[m].tap(d)] for m, d in junction.depths.items()}
        vectors.append(join(junction, tapped, seen.get(MASK), spec.pool, f"junction{i}"))
    outputs = _head(spec, vectors, num_classes, regression)
    return keras.Model(inputs, outputs, name="fusion")


def _stood_in(spec: FusionSpec, inputs: dict) -> dict:
    """The taps and the mask, each with its stand-in where the modality is missing."""
    seen = {}
    for modality in (MODALITY[m] for m in spec.modalities):
        present = inputs[modality.present]
        for depth in spec.depths(modality.name):
            name = modality.tap(depth)
            seen[name] = StandIn(name=f"{name}_stand_in")(inputs[name], present)
        if modality.padded and MASK in inputs:
            seen[MASK] = PresentMask(name="present_mask")(inputs[MASK], present)
    return seen


def _head(spec, vectors, num_classes, regression) -> dict:
    if spec.decision == "score":
        logits = [_classifier(v, spec, num_classes, f"head{i}") for i, v in enumerate(vectors)]
        outputs = {"logits": ScoreAverage(spec.weights, dtype="float32", name="logits")(logits)}
    else:
        joined = layers.Concatenate(name="joined")(vectors) if len(vectors) > 1 else vectors[0]
        outputs = {"logits": _classifier(joined, spec, num_classes, "head", "logits")}
    if regression:
        joined = (
            layers.Concatenate(name="score_joined")(vectors) if len(vectors) > 1 else vectors[0]
        )
        outputs["score"] = layers.Dense(1, dtype="float32", name="score")(joined)
    return outputs


def _classifier(x, spec, num_classes, name, last=None):
    if spec.hidden:
        x = layers.Dense(spec.hidden, activation="gelu", name=f"{name}_hidden")(x)
    x = layers.Dropout(spec.dropout, name=f"{name}_dropout")(x)
    # float32 also under a bfloat16 policy: losses and probabilities need the digits.
    return layers.Dense(num_classes, dtype="float32", name=last or f"{name}_logits")(x)
