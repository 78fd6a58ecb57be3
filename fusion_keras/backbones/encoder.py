"""What the text and the image transformer share: the encoder layer and activations.

Both backbones are built of `EncoderLayer`, after the addition normalised (BERT) or before
it (ViT).
"""

import keras
import keras_hub
from keras import ops

from fusion_keras.errors import UsageError


@keras.saving.register_keras_serializable(package="fusion_keras")
class EncoderLayer(keras_hub.layers.TransformerEncoder):
    """keras-hub's TransformerEncoder, computed on a matrix of all tokens.

    Weights, names and values are keras-hub's. The dense layers there see [B, T, D], and XLA's
    CPU code derives their gradients three times slower than those of [B * T, D]; and the
    attention is written as matrix products, which exporters and fusions recognise.
    """

    def call(
        self,
        inputs,
        padding_mask=None,
        training=None,
        first_only=False,
        asking=None,
        distances=None,
    ):
        """Encode inputs [B, T, D]; padding_mask int32 [B, T] is 1 for real tokens, or [1, T, T]
        where each token (second axis) attends to others (third).

        first_only: give the first token alone, [B, 1, D]. All of the sequence is attended to,
        but five sixths of the layer's products are of this token only.
        asking: likewise a token of each row, as it stands in `inputs`, [B, 1, D].
        distances: for layers whose attention looks at them, see `_scores`.
        """
        width = inputs.shape[2]
        if first_only:
            asking = inputs[:, :1]
        alone = asking is not None
        asked, length = (asking, 1) if alone else (inputs, ops.shape(inputs)[1])
        x = ops.reshape(asked, (-1, width))  # [B * length, D]
        y = self._self_attention_layer_norm(x) if self.normalize_first else x
        context, context_rows = y, _rows(inputs, ops.shape(inputs)[1])
        if alone:
            context = ops.reshape(inputs, (-1, width))  # [B * T, D]
            if self.normalize_first:
                context = self._self_attention_layer_norm(context)
        rows = _rows(asked, length)
        beside = {"distances": distances, "alone": alone}
        y = self._attend(y, rows, context, context_rows, padding_mask, training, **beside)
        x = x + self._self_attention_dropout(y, training=training)
        if not self.normalize_first:
            x = self._self_attention_layer_norm(x)
        y = self._feedforward_layer_norm(x) if self.normalize_first else x
        y = self._feed_forward(y)
        x = x + self._feedforward_dropout(y, training=training)
        if not self.normalize_first:
            x = self._feedforward_layer_norm(x)
        return ops.reshape(x, (*rows, width))

    def compute_output_spec(
        self,
        inputs,
        padding_mask=None,
        training=None,
        first_only=False,
        asking=None,
        distances=None,
    ):
        """The shape and dtype that `call` gives."""
        batch, length, width = inputs.shape
        length = 1 if first_only or asking is not None else length
        return keras.KerasTensor((batch, length, width), self.compute_dtype)

    def _feed_forward(self, x):
        """The two dense layers over x [B * Q, D]."""
        return self._feedforward_output_dense(self._feedforward_intermediate_dense(x))

    def _attend(self, x, rows, context, context_rows, padding_mask, training, **beside):
        """Multi-head attention of x [B * Q, D] to context [B * T, D].

        rows, context_rows: (B, Q) and (B, T), one of each perhaps -1.
        beside: for `_scores`.
        """
        layer = self._self_attention_layer
        heads, depth = layer.query_dense.kernel.shape[1:]
        query = heads_of(layer.query_dense, x, rows)
        key = heads_of(layer.key_dense, context, context_rows)
        value = heads_of(layer.value_dense, context, context_rows)
        scores = self._scores(query, key, padding_mask, training, **beside)
        if padding_mask is not None:
            apart = len(padding_mask.shape) == 3
            keep = padding_mask[:, None] if apart else padding_mask[:, None, None, :]
            keep = ops.cast(keep, "bool")
            lowest = -3e4 if scores.dtype == "float16" else -1e9
            scores = ops.where(keep, scores, ops.cast(lowest, scores.dtype))
        shares = ops.softmax(scores)
        if self.dropout:
            shares = layer._dropout_layer(shares, training=training)
        y = ops.transpose(ops.matmul(shares, value), (0, 2, 1, 3))  # [B, Q, H, D / H]
        y = ops.reshape(y, (-1, heads * depth))
        kernel = ops.reshape(layer.output_dense.kernel, (heads * depth, -1))
        return ops.matmul(y, ops.cast(kernel, y.dtype)) + ops.cast(layer.output_dense.bias, y.dtype)

    def _scores(self, query, key, padding_mask, training, distances=None, alone=False):
        """What is masked and softmax then taken of, [B, H, Q, T].

        Args:
            query, key: [B, H, Q, d] and [B, H, T, d].
            padding_mask, distances: what the layer is called with, for those of other attention.
            alone: whether the query is of one token, so that Q is 1.
        """
        return ops.matmul(query * query.shape[-1] ** -0.5, ops.transpose(key, (0, 1, 3, 2)))


def heads_of(dense, tokens, rows):
    """A layer of the attention over tokens [B * T, D], apart by heads: [B, H, T, d].

    rows: (B, T), one of them perhaps -1.
    """
    heads, depth = dense.kernel.shape[1:]
    kernel = ops.reshape(dense.kernel, (-1, heads * depth))
    y = ops.matmul(tokens, ops.cast(kernel, tokens.dtype))
    if dense.bias is not None:
        y = y + ops.reshape(ops.cast(dense.bias, tokens.dtype), (-1,))
    return ops.transpose(ops.reshape(y, (*rows, heads, depth)), (0, 2, 1, 3))


def _rows(tokens, length):
    """(B, T) of tokens [B, T, D] to reshape to: -1 where it need not be computed.

    An exported graph with one open axis computes no shapes, whichever axis that is.
    """
    if tokens.shape[0] is not None and tokens.shape[1] is None:
        return tokens.shape[0], -1
    return -1, length


@keras.saving.register_keras_serializable(package="fusion_keras")
def gelu_tanh(x):
    """GELU by its tanh approximation (Hendrycks and Gimpel 2016), of x's shape."""
    return keras.activations.gelu(x, approximate=True)


@keras.saving.register_keras_serializable(package="fusion_keras")
def quick_gelu(x):
    """GELU by a sigmoid (Hendrycks and Gimpel 2016, section 2), of x's shape."""
    return x * ops.sigmoid(1.702 * x)


# Hugging Face's `hidden_act` -> Keras activation. "gelu" is the exact, erf one there and
# in Keras.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_python_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def activation(hidden_act: str):
    """The Keras activation of Hugging Face's `hidden_act`. Raises UsageError."""
    if hidden_act not in _ACTIVATIONS:
        raise UsageError(
            f"got hidden_act {hidden_act!r}, wanted one of {', '.join(sorted(_ACTIVATIONS))}; "
            "choose a checkpoint with one of these activations."
        )
    return keras.activations.get(_ACTIVATIONS[hidden_act])
