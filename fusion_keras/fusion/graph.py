"""From a fusion spec to one Keras model.

The model has nested functional models for parts: `text_backbone`, `image_backbone` and
`audio_backbone`, cut behind their deepest tap, and `fusion`, the junctions and the head. What
no junction reaches is not in the graph, not in the weights file, not in the latency.
The parts make feature caching, freezing and counting a matter of naming one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import layers, ops

from fusion_keras.backbones.cut import cut
from fusion_keras.backbones.presets import AudioPreset, ImagePreset, TextPreset
from fusion_keras.data.modalities import PRESENT
from fusion_keras.fusion.joins import PaddingMask, SegmentIds, join
from fusion_keras.fusion.spec import LAST, Depth, FusionSpec, validate
from fusion_keras.fusion.stand_in import PresentMask, StandIn

_register = keras.saving.register_keras_serializable(package="fusion_keras")


@_register
class ScoreAverage(layers.Layer):
    """Weighted mean of the probabilities of several logits, as log-probabilities.

    Softmax of the result is the mean itself, so it serves as logits. Weights are given,
    or learned as the softmax of one number for each input, from equal shares.
    """

    def __init__(self, weights: tuple[float, ...] = (), **kwargs):
        super().__init__(**kwargs)
        self.given = tuple(weights)

    def build(self, input_shape):
        if not self.given:
            self.share = self.add_weight(
                shape=(len(input_shape),), initializer="zeros", name="share"
            )

    def call(self, logits):
        probs = ops.softmax(ops.cast(ops.stack(logits, axis=-1), "float32"), axis=1)  # [B, C, M]
        share = ops.convert_to_tensor(self.given) if self.given else ops.softmax(self.share)
        mean = ops.sum(probs * ops.cast(share, "float32"), axis=-1)
        return ops.log(ops.maximum(mean, 1e-7))

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {**super().get_config(), "weights": self.given}


def part_name(modality: str) -> str:
    """The name of a modality's backbone inside the model."""
    return f"{modality}_backbone"


def tap_name(modality: str, depth: Depth) -> str:
    """The name of a tap wherever it is an input or an output, e.g. `text_4`."""
    return f"{modality}_{depth}"


@dataclass(frozen=True)
class Graph:
    """A built fusion architecture: the whole, and its two halves over the same layers.

    Attributes:
        model: inputs `token_ids` int32 [B, T], 0 is padding, `image` uint8 [B, S, S, 3],
            scaled in the graph, and `audio` float32 [B, F, 64], log-mel energies in [0, 1], as
            far as the spec needs them, and with stand-ins `present_text`, `present_image`,
            `present_audio` float32 [B, 1]. Outputs: a dict of `logits` float32 [B, C] and, with
            regression, `score` float32 [B, 1].
        encoders: the same inputs -> a dict of taps (and `mask`, and what is present), the
            inputs of `fusion`.
        fusion: junctions and head.
    """

    model: keras.Model
    encoders: keras.Model
    fusion: keras.Model


def build(
    spec: FusionSpec,
    text: TextPreset | None,
    image: ImagePreset | None,
    audio: AudioPreset | None = None,
    *,
    num_classes: int,
    sequence_length: int | None = None,
    regression: bool = False,
) -> Graph:
    """Build the model that a spec describes.

    Args:
        spec: the architecture; it is validated against the backbones.
        text: the text backbone, needed if a junction takes text.
        image: the image backbone with its scaling, needed if a junction takes images.
        audio: the audio backbone, needed if a junction takes sound.
        num_classes: C, at least 2.
        sequence_length: T of the token ids; None leaves it open.
        regression: also predict a real-valued score.

    Raises:
        UsageError: the spec does not fit the backbones.
    """
    presets = {"text": text, "image": image, "audio": audio}
    validate(spec, {m: p.backbone.num_depths for m, p in presets.items() if p})
    inputs, taps, mask = {}, {}, None
    if "text" in spec.modalities:
        inputs["token_ids"], mask, found = _text_part(spec, text, sequence_length)
        taps.update(found)
    if "image" in spec.modalities:
        inputs["image"], found = _image_part(spec, image)
        taps.update(found)
    if "audio" in spec.modalities:
        inputs["audio"], found = _audio_part(spec, audio)
        taps.update(found)
    if _reads_mask(spec):
        taps["mask"] = mask
    if spec.stand_ins:
        names = [PRESENT[m] for m in spec.modalities]
        there = {n: keras.Input((1,), dtype="float32", name=n) for n in names}
        inputs, taps = inputs | there, taps | there
    fusion = _fusion_part(spec, taps, num_classes, regression)
    return Graph(
        model=keras.Model(inputs, fusion(taps), name="fusion_model"),
        encoders=keras.Model(inputs, taps, name="encoders"),
        fusion=fusion,
    )


def rebuilt(model: keras.Model, spec: FusionSpec) -> Graph:
    """The graph of a model that was read from a file, over its own layers and weights.

    Args:
        model: as `build` made it, saved and loaded again; on any backend.
        spec: what it was built from.
    """
    inputs = {x.name: x for x in model.inputs}
    taps, mask = {}, None
    if "text" in spec.modalities:
        token_ids = inputs["token_ids"]
        mask = model.get_layer("padding_mask")(token_ids)
        segments = model.get_layer("segment_ids")(token_ids)
        tapped = model.get_layer(part_name("text"))(
            {"token_ids": token_ids, "segment_ids": segments, "padding_mask": mask}
        )
        taps.update(_named("text", spec.depths("text"), tapped))
    if "image" in spec.modalities:
        x = model.get_layer("image_scaling")(inputs["image"])
        tapped = model.get_layer(part_name("image"))(x)
        taps.update(_named("image", spec.depths("image"), tapped))
    if "audio" in spec.modalities:
        tapped = model.get_layer(part_name("audio"))(inputs["audio"])
        taps.update(_named("audio", spec.depths("audio"), tapped))
    if _reads_mask(spec):
        taps["mask"] = mask
    if spec.stand_ins:
        taps |= {PRESENT[m]: inputs[PRESENT[m]] for m in spec.modalities}
    fusion = model.get_layer("fusion")
    return Graph(
        model=keras.Model(inputs, fusion(taps), name="fusion_model"),
        encoders=keras.Model(inputs, taps, name="encoders"),
        fusion=fusion,
    )


def _reads_mask(spec: FusionSpec) -> bool:
    """Whether a junction takes text as a sequence, so must know where padding begins."""
    sequences = [j for j in spec.junctions if j.text is not None and j.text != LAST]
    return any(j.tokens == "sequence" or spec.pool == "mean" for j in sequences)


def _text_part(spec, preset: TextPreset, sequence_length):
    token_ids = keras.Input((sequence_length,), dtype="int32", name="token_ids")
    mask = PaddingMask(name="padding_mask")(token_ids)
    segments = SegmentIds(name="segment_ids")(token_ids)
    depths = spec.depths("text")
    tapped = cut(preset.backbone, depths, name=part_name("text"))(
        {"token_ids": token_ids, "segment_ids": segments, "padding_mask": mask}
    )
    return token_ids, mask, _named("text", depths, tapped)


def _image_part(spec, preset: ImagePreset):
    shape = preset.backbone.input.shape[1:]
    image = keras.Input(shape, dtype="uint8", name="image")
    x = layers.Rescaling(preset.scale, preset.offset, name="image_scaling")(image)
    depths = spec.depths("image")
    tapped = cut(preset.backbone, depths, name=part_name("image"))(x)
    return image, _named("image", depths, tapped)


def _audio_part(spec, preset: AudioPreset):
    audio = keras.Input(preset.backbone.input.shape[1:], dtype="float32", name="audio")
    depths = spec.depths("audio")
    tapped = cut(preset.backbone, depths, name=part_name("audio"))(audio)
    return audio, _named("audio", depths, tapped)


def _named(modality, depths, tensors):
    tensors = tensors if isinstance(tensors, (list, tuple)) else [tensors]
    return {tap_name(modality, d): x for d, x in zip(depths, tensors, strict=True)}


def _fusion_part(spec, taps, num_classes, regression) -> keras.Model:
    """Junctions and head as a model of their own: the dict of `encoders` -> outputs."""
    inputs = {n: keras.Input(x.shape[1:], dtype=x.dtype, name=n) for n, x in taps.items()}
    seen = _stood_in(spec, inputs) if spec.stand_ins else inputs
    vectors = []
    for i, junction in enumerate(spec.junctions):
        mine = {m: seen[tap_name(m, d)] for m, d in junction.depths.items()}
        vectors.append(join(junction, mine, seen.get("mask"), spec.pool, f"junction{i}"))
    outputs = _head(spec, vectors, num_classes, regression)
    return keras.Model(inputs, outputs, name="fusion")


def _stood_in(spec: FusionSpec, inputs: dict) -> dict:
    """The taps and the mask, each with its stand-in where the modality is missing."""
    seen = {}
    for modality in spec.modalities:
        present = inputs[PRESENT[modality]]
        for depth in spec.depths(modality):
            name = tap_name(modality, depth)
            seen[name] = StandIn(name=f"{name}_stand_in")(inputs[name], present)
        if modality == "text" and "mask" in inputs:
            seen["mask"] = PresentMask(name="present_mask")(inputs["mask"], present)
    return seen


def taps_of(encoders: keras.Model) -> dict:
    """The taps among the outputs of `Graph.encoders`: name -> tensor."""
    given = {x.name for x in encoders.inputs}
    return {n: x for n, x in encoders.output.items() if n != "mask" and n not in given}


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
