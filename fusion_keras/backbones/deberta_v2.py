"""DeBERTa-v3 (He, Gao and Chen 2021), whose architecture Hugging Face calls deberta-v2.

BERT without places of tokens: its attention looks at how far apart two tokens are (He, Liu, Gao
and Chen 2020, section 3.1). A score is the sum of three products, of query and key, of the query
and a vector of the distance, and of the key and another: both are learned vectors, of one row for
each near distance and each range of far ones, behind the layer's own projections of query and key.

Of a token's products with the vectors of all distances it wants one for each token, the next token
those one distance further. As the vectors stand in the order of their distances, a reshape brings
them below each other, and nothing is gathered (`_shifted`). An exported graph has the projected
vectors as weights.
"""

import keras
import numpy as np
from keras import layers, ops

from fusion_keras.backbones.encoder import EncoderLayer, heads_of
from fusion_keras.backbones.text_encoder import FIELDS, TextEncoder
from fusion_keras.errors import UsageError

# As `text_encoder.FIELDS`.
_FIELDS = {
    **FIELDS,
    "vocab_size": ("vocabulary_size", 128100),
    "num_hidden_layers": ("num_layers", 24),
    "num_attention_heads": ("num_heads", 24),
    "hidden_size": ("hidden_dim", 1536),
    "intermediate_size": ("intermediate_dim", 6144),
    "type_vocab_size": ("num_segments", 0),
    "layer_norm_eps": ("layer_norm_eps", 1e-7),
    "position_buckets": ("position_buckets", -1),
    "max_relative_positions": ("max_relative_positions", -1),
    "position_biased_input": ("embeds_positions", True),
}
# What config.json says of every DeBERTa-v3.
_ATTENTION = {
    "relative_attention": True,
    "share_att_key": True,
    "pos_att_type": ["c2p", "p2c"],
    "norm_rel_ebd": "layer_norm",
}
_register = keras.saving.register_keras_serializable(package="fusion_keras")


def rows_of(distances: np.ndarray, buckets: int, farthest: int) -> np.ndarray:
    """The row of each distance's vector, of 2 * `buckets`, or of 2 * `farthest` without buckets.

    Args:
        distances: int, query's place less key's.
        buckets: half of them have a distance each, the others ranges whose ends grow by a factor;
            not above 0: every distance has a row.
        farthest: from where on all of a side share their last row.
    """
    if buckets <= 0:
        return np.clip(distances + farthest, 0, 2 * farthest - 1)
    middle = buckets // 2
    far = np.maximum(np.abs(distances), middle)
    steps = np.log(far / middle) / np.log((farthest - 1) / middle) * (middle - 1)
    ranges = np.sign(distances) * (np.ceil(steps) + middle)
    placed = np.where(np.abs(distances) <= middle, distances, ranges).astype(int)
    return np.clip(placed + buckets, 0, 2 * buckets - 1)


def _refuse_other(config: dict) -> None:
    """Raises UsageError for a config.json of another attention or of further layers."""
    asked = config.get("pos_att_type") or []
    asked = asked.lower().split("|") if isinstance(asked, str) else asked
    found = {
        "relative_attention": config.get("relative_attention", False),
        "share_att_key": config.get("share_att_key", False),
        "pos_att_type": sorted(kind.strip() for kind in asked),
        "norm_rel_ebd": config.get("norm_rel_ebd", "none"),
        # DeBERTa-v2's convolution behind the first layer.
        "conv_kernel_size": config.get("conv_kernel_size") or 0,
        "embedding_size": config.get("embedding_size") or config.get("hidden_size"),
    }
    wanted = {**_ATTENTION, "conv_kernel_size": 0, "embedding_size": config.get("hidden_size")}
    for name, value in found.items():
        if value != wanted[name]:
            raise UsageError(
                f"got {name} {value!r} in a config.json of deberta-v2, wanted {wanted[name]!r}, as "
                "DeBERTa-v3 has it; choose a checkpoint of DeBERTa-v3."
            )


@_register
class Distances(layers.Layer):
    """Tokens [B, T, D] -> a vector of each distance from T down to -T, [2 * T + 1, D].

    longest: T at most, and taken for T where that is open.
    buckets, farthest: as for `rows_of`.
    """

    def __init__(self, longest: int, buckets: int, farthest: int, **kwargs):
        super().__init__(**kwargs)
        self.longest, self.buckets, self.farthest = longest, buckets, farthest

    def build(self, shape):
        """Makes the vectors; shape: (B, T, D)."""
        rows = 2 * (self.buckets if self.buckets > 0 else self.farthest)
        drawn = keras.initializers.TruncatedNormal(stddev=0.02)
        self.embeddings = self.add_weight((rows, shape[-1]), drawn, name="embeddings")

    def call(self, inputs):
        """Returns the vectors."""
        length = inputs.shape[1] or self.longest
        rows = rows_of(np.arange(length, -length - 1, -1), self.buckets, self.farthest)
        return ops.take(ops.convert_to_tensor(self.embeddings), rows.astype("int32"), axis=0)

    def compute_output_spec(self, inputs):
        """The shape and dtype that `call` gives."""
        length = inputs.shape[1]
        rows = None if length is None else 2 * length + 1
        return keras.KerasTensor((rows, inputs.shape[2]), self.compute_dtype)

    def get_config(self):
        """Returns the arguments of the constructor."""
        own = {"longest": self.longest, "buckets": self.buckets, "farthest": self.farthest}
        return {**super().get_config(), **own}


@_register
class DisentangledLayer(EncoderLayer):
    """An encoder layer called with `distances`, what `Distances` gives, normalised."""

    def _scores(self, query, key, padding_mask, training, distances=None, alone=False):
        vectors = self._self_attention_dropout(distances, training=training)
        # Of the mask, which all layers have: an exported graph of open length then asks once.
        attention, length = self._self_attention_layer, ops.shape(padding_mask)[1]
        count = distances.shape[0]
        scale = (3 * query.shape[-1]) ** -0.5
        of_keys, of_queries = (
            heads_of(dense, vectors, (1, count))  # [1, H, count, d]
            for dense in (attention.key_dense, attention.query_dense)
        )
        query, of_queries = query * scale, of_queries * scale
        if alone:
            # Of the first token, whose distances to the others are 0 and less.
            of_keys, of_queries = (_cut(x, count // 2, length) for x in (of_keys, of_queries))
            scores = ops.matmul(query, _turned(key + of_keys))
            return scores + ops.sum(key * of_queries, axis=-1)[:, :, None, :]
        of_keys, of_queries = (
            _cut(x, count // 2 - length, 2 * length + 1)
            for x in (of_keys, ops.flip(of_queries, axis=2))
        )
        scores = ops.matmul(query, _turned(key))
        scores = scores + _shifted(ops.matmul(query, _turned(of_keys)), length)
        return scores + _turned(_shifted(ops.matmul(key, _turned(of_queries)), length))


def _turned(x):
    """[B, H, N, M] -> [B, H, M, N]."""
    return ops.transpose(x, (0, 1, 3, 2))


def _cut(x, first, count):
    """Of vectors [1, H, N, d] those from `first` on, [1, H, count, d]."""
    return ops.slice(x, (0, 0, first, 0), (1, x.shape[1], count, x.shape[3]))


def _shifted(x, length):
    """Products [B, H, T, 2 * T + 1] with distances T to -T -> those with 0 to 1 - T of the first
    token, 1 to 2 - T of the second, and so on, [B, H, T, T].

    Token i's begin at place T - i of its row, (2 * i + 1) * T of all: written in rows of T, they
    are every other row.
    """
    rows = ops.reshape(x, (-1, x.shape[1], 2 * length + 1, length))
    return rows[:, :, 1::2]


@_register
class DebertaV2Backbone(TextEncoder):
    """DeBERTa-v3. Its classifiers read the last layer's [CLS], behind a layer of their own."""

    model_types = ("deberta-v2",)
    prefix = "deberta"
    fields = _FIELDS
    encoder_layer = DisentangledLayer

    def __init__(
        self,
        *args,
        max_sequence_length=512,
        num_segments=0,
        layer_norm_eps=1e-7,
        pooler=False,
        position_buckets=-1,
        max_relative_positions=-1,
        embeds_positions=True,
        dtype=None,
        **kwargs,
    ):
        """Builds the graph.

        Args:
            *args, max_sequence_length, num_segments, layer_norm_eps, pooler, dtype, **kwargs: as
                `TextEncoder`; there is no pooler.
            position_buckets: `buckets` of `rows_of`.
            max_relative_positions: `farthest` there; below 1: `max_sequence_length`.
            embeds_positions: whether a vector of each token's place is added to its own, too.

        Raises:
            UsageError: as `TextEncoder`, or ranges that hold no distance.
        """
        farthest = max_relative_positions if max_relative_positions > 0 else max_sequence_length
        if position_buckets > 0 and not 1 <= position_buckets // 2 < farthest - 1:
            raise UsageError(
                f"got position_buckets {position_buckets} for distances up to {farthest}, wanted 2 "
                f"to {2 * farthest - 3}, or -1 for none; choose another checkpoint."
            )
        self.position_buckets = position_buckets
        self.max_relative_positions = max_relative_positions
        self.embeds_positions = embeds_positions
        reach = (max_sequence_length, position_buckets, farthest)
        self.distances = Distances(*reach, dtype=dtype, name="distances")
        self.distances_layer_norm = layers.LayerNormalization(
            epsilon=layer_norm_eps, dtype=dtype, name="distances_layer_norm"
        )
        sizes = {"max_sequence_length": max_sequence_length, "num_segments": num_segments}
        more = {"layer_norm_eps": layer_norm_eps, "pooler": pooler, "dtype": dtype}
        super().__init__(*args, **sizes, **more, **kwargs)

    def _seen(self, inputs, x):
        vectors = self.distances_layer_norm(self.distances(x))
        return {**super()._seen(inputs, x), "distances": vectors}

    def get_config(self):
        """Returns the arguments of the constructor."""
        names = ("position_buckets", "max_relative_positions", "embeds_positions")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def hf_fields(self) -> dict:
        """As `TextEncoder.hf_fields`."""
        return {**super().hf_fields(), **_ATTENTION}

    @classmethod
    def arguments_of(cls, config: dict) -> dict:
        """As `TextEncoder.arguments_of`; raises UsageError for what DeBERTa-v3 has not."""
        if "model_type" in config:
            _refuse_other(config)
        return super().arguments_of(config)

    @classmethod
    def _found(cls, weights):
        # A classifier's pooler is a layer of its head, with another activation.
        return {"pooler": False}
