"""Joins: the ways in which a junction turns one tap per modality into one vector.

Builders take named taps and give a KerasTensor [B, D]. Only `keras` and `keras.ops`
are used, so JAX trains and TensorFlow exports the same graph.
"""

from __future__ import annotations

import keras
from keras import layers, ops

from fusion_keras.backbones.encoder import EncoderLayer
from fusion_keras.fusion.spec import Junction
from fusion_keras.modalities import MODALITY
from fusion_keras.modalities.base import project

_register = keras.saving.register_keras_serializable(package="fusion_keras")


# --- Small layers ---------------------------------------------------------------------------


@_register
class MaskedMean(layers.Layer):
    """Mean over the tokens whose mask is 1: ([B, T, D], [B, T]) -> [B, D]."""

    def call(self, x, mask):
        weight = ops.expand_dims(ops.cast(mask, x.dtype), -1)  # [B, T, 1]
        return ops.sum(x * weight, axis=1) / ops.maximum(ops.sum(weight, axis=1), 1)


@_register
class FirstToken(layers.Layer):
    """[B, T, D] -> [B, D], the class token."""

    def call(self, x):
        return x[:, 0]


@_register
class KeyMask(layers.Layer):
    """int32 [B, T], and `extra` tokens that are always there: int32 [B, T + extra]."""

    def __init__(self, extra: int, **kwargs):
        super().__init__(**kwargs)
        self.extra = extra

    def call(self, mask):
        return ops.pad(mask, [[0, 0], [0, self.extra]], constant_values=1)

    def get_config(self):
        return {**super().get_config(), "extra": self.extra}


@_register
class TokenSlice(layers.Layer):
    """[B, N, D] -> [B, M, D], the tokens from `start` to `stop` as Python slices them."""

    def __init__(self, start: int, stop: int | None, **kwargs):
        super().__init__(**kwargs)
        self.start, self.stop = start, stop

    def call(self, x):
        return x[:, self.start : self.stop]

    def get_config(self):
        return {**super().get_config(), "start": self.start, "stop": self.stop}


@_register
class GatedSum(layers.Layer):
    """z * a + (1 - z) * b, the last step of a gated multimodal unit; all [B, D]."""

    def call(self, gate, a, b):
        return gate * a + (1 - gate) * b


# --- Taps to vectors and to tokens ------------------------------------------------------------


def pool(tap, mask, how: str, name: str):
    """A tap as one vector [B, D]: [B, D] as it is, [B, T, D] pooled, a map averaged."""
    if len(tap.shape) == 2:
        return tap
    if len(tap.shape) == 4:
        return layers.GlobalAveragePooling2D(name=f"{name}_mean")(tap)
    if how == "cls":
        return FirstToken(name=f"{name}_cls")(tap)
    if mask is None:
        return layers.GlobalAveragePooling1D(name=f"{name}_mean")(tap)
    return MaskedMean(name=f"{name}_mean")(tap, mask)


def _mask_of(modality: str, mask):
    """The mask for a modality's own tokens."""
    return mask if MODALITY[modality].padded else None


def _tokens(taps: dict, junction: Junction, name: str) -> dict:
    """Each modality's tap as tokens [B, N, width]."""
    return {
        m: MODALITY[m].tokens(x, junction.width, junction.grid, f"{name}_{m}")
        for m, x in taps.items()
    }


# --- Joins --------------------------------------------------------------------------------------


def _concat(vectors, junction, name):
    tensors = list(vectors.values())
    return layers.Concatenate(name=name)(tensors) if len(tensors) > 1 else tensors[0]


def _linear(vectors, junction, name):
    normed = [
        layers.LayerNormalization(epsilon=1e-6, name=f"{name}_{m}_norm")(x)
        for m, x in vectors.items()
    ]
    x = layers.Concatenate(name=f"{name}_concat")(normed) if len(normed) > 1 else normed[0]
    return layers.Dense(junction.width, name=name)(x)


def _add(vectors, junction, name):
    parts = [project(x, junction.width, f"{name}_{m}") for m, x in vectors.items()]
    return layers.Add(name=name)(parts) if len(parts) > 1 else parts[0]


def _gate(vectors, junction, name):
    """Gated multimodal unit (Arevalo et al. 2017, arXiv 1702.01992, section 3).

    Of two modalities one gate mixes them; of more each has its own, and they are added.
    """
    parts = [project(x, junction.width, f"{name}_{m}") for m, x in vectors.items()]
    parts = [
        layers.Activation("tanh", name=f"{name}_{m}_tanh")(x)
        for m, x in zip(vectors, parts, strict=True)
    ]
    if len(parts) == 1:
        return parts[0]
    every = layers.Concatenate(name=f"{name}_concat")(list(parts))

    def gate(name):
        return layers.Dense(junction.width, activation="sigmoid", name=f"{name}_gate")(every)

    if len(parts) == 2:
        return GatedSum(name=name)(gate(name), *parts)
    gated = [
        layers.Multiply(name=f"{name}_{m}_gated")([gate(f"{name}_{m}"), x])
        for m, x in zip(vectors, parts, strict=True)
    ]
    return layers.Add(name=name)(gated)


def _block(x, mask, junction: Junction, name: str):
    """Pre-norm self-attention block with an MLP twice as wide: [B, N, width] -> the same."""
    return EncoderLayer(
        2 * junction.width,
        junction.heads,
        activation="gelu",
        layer_norm_epsilon=1e-6,
        normalize_first=True,
        name=name,
    )(x, padding_mask=mask)


def _cross_block(x, context, mask, junction: Junction, name: str):
    """Pre-norm block in which x [B, N, width] attends to `context` [B, M, width]."""
    width = junction.width
    query = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm1")(x)
    key = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm_context")(context)
    attended = layers.MultiHeadAttention(
        junction.heads, width // junction.heads, name=f"{name}_attention"
    )(query, key, attention_mask=mask)
    x = layers.Add(name=f"{name}_add1")([x, attended])
    y = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm2")(x)
    y = layers.Dense(2 * width, activation="gelu", name=f"{name}_mlp1")(y)
    y = layers.Dense(width, name=f"{name}_mlp2")(y)
    return layers.Add(name=f"{name}_add2")([x, y])


def _pooled_tokens(vectors, junction, name) -> dict:
    """One token [B, 1, width] for each modality's vector."""
    return {
        m: layers.Reshape((1, junction.width), name=f"{name}_{m}_token")(
            project(x, junction.width, f"{name}_{m}")
        )
        for m, x in vectors.items()
    }


def _attention_pooled(vectors, junction, name):
    """Self-attention over one token per modality."""
    tokens = list(_pooled_tokens(vectors, junction, name).values())
    x = (
        layers.Concatenate(axis=1, name=f"{name}_sequence")(tokens)
        if len(tokens) > 1
        else tokens[0]
    )
    for i in range(junction.blocks):
        x = _block(x, None, junction, f"{name}_block{i}")
    x = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(x)
    return layers.Flatten(name=name)(x)


def _split_mean(x, counts: dict[str, int | None], mask, name: str):
    """Mean over each modality's own tokens, side by side: [B, N, D] -> [B, M * D].

    What is padded stands first and may have any length; the counts behind it are fixed.
    """
    if len(counts) == 1:
        return pool(x, mask, "mean", name)
    parts, behind = {}, list(counts.values())
    for i, m in enumerate(counts):
        start = -sum(behind[i:]) if i else 0
        stop = -sum(behind[i + 1 :]) or None
        parts[m] = TokenSlice(start, stop, name=f"{name}_{m}_part")(x)
    return _means(parts, mask, name)


def _means(tokens: dict, mask, name: str):
    """Mean over each modality's tokens, padding left out, side by side."""
    means = [pool(x, _mask_of(m, mask), "mean", f"{name}_{m}_out") for m, x in tokens.items()]
    return layers.Concatenate(name=name)(means)


def _attention_sequence(taps, mask, junction, name):
    """Self-attention over the tokens of all modalities together, see `_tokens`."""
    parts = _tokens(taps, junction, name)
    counts = {m: x.shape[1] for m, x in parts.items()}
    tensors = list(parts.values())
    x = (
        layers.Concatenate(axis=1, name=f"{name}_sequence")(tensors)
        if len(tensors) > 1
        else tensors[0]
    )
    keys = None
    if mask is not None:
        keys = KeyMask(_behind_padded(counts), name=f"{name}_mask")(mask)
    for i in range(junction.blocks):
        x = _block(x, keys, junction, f"{name}_block{i}")
    x = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(x)
    return _split_mean(x, counts, mask, name)


def _cross_pooled(vectors, junction, name):
    """Cross-attention with one token per modality."""
    return _cross(_pooled_tokens(vectors, junction, name), None, junction, name)


def _cross_sequence(taps, mask, junction, name):
    """Cross-attention between the tokens of all modalities, see `_tokens`."""
    parts = _tokens(taps, junction, name)
    return _cross(parts, mask, junction, name)


def _cross(tokens, mask, junction, name):
    """Each modality's tokens attend to all others' together, block by block, then are averaged."""
    counts = {m: x.shape[1] for m, x in tokens.items()}
    keys = {}
    if mask is not None:
        keys = {m: _keys(mask, counts, m, name) for m in counts if not MODALITY[m].padded}
    for i in range(junction.blocks):
        tokens = {
            m: _cross_block(
                x, _context(tokens, m, f"{name}_{m}_context{i}"), keys.get(m), junction,
                f"{name}_{m}_block{i}",
            )
            for m, x in tokens.items()
        }  # fmt: skip
    tokens = {
        m: layers.LayerNormalization(epsilon=1e-6, name=f"{name}_{m}_last_norm")(x)
        for m, x in tokens.items()
    }
    return _means(tokens, mask, name)


def _context(tokens: dict, modality: str, name: str):
    """What a modality attends to: the tokens of all others, text first."""
    others = [x for m, x in tokens.items() if m != modality]
    return layers.Concatenate(axis=1, name=name)(others) if len(others) > 1 else others[0]


def _keys(mask, counts: dict, modality: str, name: str):
    """[B, 1, M]: which of the tokens that a modality attends to are real."""
    third = _behind_padded({m: n for m, n in counts.items() if m != modality})
    if third:
        mask = KeyMask(third, name=f"{name}_{modality}_keys")(mask)
    return layers.Reshape((1, -1), name=f"{name}_{modality}_mask")(mask)


def _behind_padded(counts: dict) -> int:
    """Tokens of all modalities whose number is fixed."""
    return sum(count for m, count in counts.items() if not MODALITY[m].padded)


VECTOR_JOINS = {
    "concat": _concat,
    "linear": _linear,
    "add": _add,
    "gate": _gate,
    "attention": _attention_pooled,
    "cross": _cross_pooled,
}
SEQUENCE_JOINS = {"attention": _attention_sequence, "cross": _cross_sequence}


def join(junction: Junction, taps: dict, mask, how_pooled: str, name: str):
    """Build one junction.

    Args:
        junction: what to build.
        taps: modality -> KerasTensor: [B, D], [B, T, D] or [B, h, w, C].
        mask: int32 [B, T], 1 for the real tokens of what is padded, text; None where the model
            has none. A junction without text makes no use of it.
        how_pooled: "mean" or "cls", how a sequence becomes a vector.
        name: prefix of every layer made.

    Returns:
        KerasTensor [B, D'].
    """
    # Another junction's text must not mask the image tokens of this one.
    mask = mask if any(MODALITY[m].padded for m in taps) else None
    if junction.tokens == "sequence":
        return SEQUENCE_JOINS[junction.join](taps, mask, junction, name)
    vectors = {m: pool(x, _mask_of(m, mask), how_pooled, f"{name}_{m}") for m, x in taps.items()}
    return VECTOR_JOINS[junction.join](vectors, junction, name)
