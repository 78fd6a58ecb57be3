"""What the text and the image transformer share: activations, and Hugging Face's layers.

Both backbones are built of `keras_hub.layers.TransformerEncoder`, after the addition
normalised (BERT) or before it (ViT).
"""

import math

import keras
import numpy as np

from fusion_keras.errors import UsageError


@keras.saving.register_keras_serializable(package="fusion_keras")
def gelu_tanh(x):
    """GELU by its tanh approximation (Hendrycks and Gimpel 2016), of x's shape."""
    return keras.activations.gelu(x, approximate=True)


# Hugging Face's `hidden_act` -> Keras activation. "gelu" is the exact, erf one there and
# in Keras.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_python_tanh": gelu_tanh,
    "relu": "relu",
}


def activation(hidden_act: str):
    """The Keras activation of Hugging Face's `hidden_act`. Raises UsageError."""
    if hidden_act not in _ACTIVATIONS:
        raise UsageError(
            f"got hidden_act {hidden_act!r}, wanted one of {', '.join(sorted(_ACTIVATIONS))}; "
            "choose a checkpoint with one of these activations."
        )
    return keras.activations.get(_ACTIVATIONS[hidden_act])


def assign_dense(dense, weights, name: str, bias: bool = True):
    """Copies `name`.weight [out, in] and `name`.bias [out] into a (split-headed) dense layer.

    Args:
        dense: keras Dense or an EinsumDense of MultiHeadAttention, built.
        weights: hf_files.Weights.
        name: Hugging Face's module.
        bias: False where the checkpoint has none; the layer's is then set to zero.
    """
    outs = math.prod(dense.bias.shape)
    ins = math.prod(dense.kernel.shape) // outs
    kernel = weights.get(f"{name}.weight", (outs, ins)).T
    values = weights.get(f"{name}.bias", (outs,)) if bias else np.zeros(outs, np.float32)
    dense.kernel.assign(kernel.reshape(dense.kernel.shape))
    dense.bias.assign(values.reshape(dense.bias.shape))


def assign_norm(norm, weights, name: str, suffixes: tuple[str, str] = ("weight", "bias")):
    """Copies scale and shift [D] of module `name`, stored under the two suffixes."""
    for variable, suffix in zip((norm.gamma, norm.beta), suffixes, strict=True):
        variable.assign(weights.get(f"{name}.{suffix}", tuple(variable.shape)))


def assign_encoder_layer(layer, weights, prefix, names, norm_suffixes=("weight", "bias"), qkv=True):
    """Copies one Hugging Face encoder layer into a TransformerEncoder.

    Args:
        layer: keras_hub.layers.TransformerEncoder, built.
        weights: hf_files.Weights.
        prefix: "encoder.layer.<i>".
        names: (module that holds query, key and value; LayerNorm of the attention;
            LayerNorm of the feed-forward part) under the prefix.
        norm_suffixes: see `assign_norm`.
        qkv: False where query, key and value have no bias.
    """
    attention, attention_norm, feedforward_norm = (f"{prefix}.{name}" for name in names)
    mha = layer._self_attention_layer
    for dense, name in ((mha.query_dense, "query"), (mha.key_dense, "key")):
        assign_dense(dense, weights, f"{attention}.{name}", bias=qkv)
    assign_dense(mha.value_dense, weights, f"{attention}.value", bias=qkv)
    assign_dense(mha.output_dense, weights, f"{prefix}.attention.output.dense")
    assign_norm(layer._self_attention_layer_norm, weights, attention_norm, norm_suffixes)
    assign_dense(layer._feedforward_intermediate_dense, weights, f"{prefix}.intermediate.dense")
    assign_dense(layer._feedforward_output_dense, weights, f"{prefix}.output.dense")
    assign_norm(layer._feedforward_layer_norm, weights, feedforward_norm, norm_suffixes)
