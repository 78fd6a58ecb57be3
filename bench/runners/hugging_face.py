"""Hugging Face's modules of our backbones, with the weights of a trained model's parts."""

from __future__ import annotations

import numpy as np

from bench.artifact import ArtifactError

# Hugging Face's name of a field -> our backbone's.
_BERT = {
    "vocab_size": "vocabulary_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "hidden_size": "hidden_dim",
    "intermediate_size": "intermediate_dim",
    "max_position_embeddings": "max_sequence_length",
    "type_vocab_size": "num_segments",
    "hidden_act": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
}
_VIT = {
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "hidden_size": "hidden_dim",
    "intermediate_size": "mlp_dim",
    "patch_size": "patch_size",
    "hidden_act": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
}
_MOBILENET = (
    "depth_multiplier",
    "depth_divisible_by",
    "min_depth",
    "expand_ratio",
    "finegrained_output",
    "tf_padding",
    "first_layer_is_expansion",
    "layer_norm_eps",
)


def module(backbone, size: int, part):
    """Hugging Face's module of a backbone, with the weights of `part`, our backbone cut.

    Raises:
        ArtifactError: this transformers names its weights otherwise.
    """
    import torch
    import transformers

    config = backbone.get_config()
    kind = {"BertBackbone": "Bert", "ViTBackbone": "ViT"}.get(type(backbone).__name__)
    if kind is None:
        fields = {name: config[name] for name in _MOBILENET}
        kind, state = "MobileNetV2", _convolutional_state(part)
    else:
        names = _BERT if kind == "Bert" else _VIT
        fields = {theirs: config[ours] for theirs, ours in names.items()}
        state = _bert_state(part) if kind == "Bert" else _vit_state(part)
    if kind != "Bert":
        fields["image_size"] = size
    module = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**fields))
    found = module.load_state_dict(
        {name: torch.from_numpy(np.array(value)) for name, value in state.items()}, strict=False
    )
    if found.unexpected_keys:
        raise ArtifactError(
            f"This transformers names its weights otherwise ({found.unexpected_keys[0]} is not "
            "in it): install the release that fusion_keras[test] names."
        )
    return module


# --- Our layers -> Hugging Face's names -----------------------------------------------------------


def _dense(layer) -> dict:
    outs = int(np.prod(layer.bias.shape))
    kernel = np.asarray(layer.kernel).reshape(-1, outs).T
    return {"weight": kernel, "bias": np.asarray(layer.bias).reshape(-1)}


def _norm(layer) -> dict:
    return {"weight": np.asarray(layer.gamma), "bias": np.asarray(layer.beta)}


def _under(prefix: str, **parts: dict) -> dict:
    """Prefix and the parts' names before the names of their tensors; `__` stands for a dot."""
    return {
        f"{prefix}.{part.replace('__', '.')}.{name}": value
        for part, values in parts.items()
        for name, value in values.items()
    }


def _encoder_layers(part) -> list:
    kept = [layer for layer in part.layers if layer.name.startswith("transformer_layer_")]
    return sorted(kept, key=lambda layer: int(layer.name.rpartition("_")[2]))


def _bert_state(part) -> dict:
    named = {layer.name: layer for layer in part.layers}
    state = _under(
        "embeddings",
        word_embeddings={"weight": named["token_embedding"].embeddings},
        position_embeddings={"weight": named["position_embedding"].position_embeddings},
        token_type_embeddings={"weight": named["segment_embedding"].embeddings},
        LayerNorm=_norm(named["embeddings_layer_norm"]),
    )
    for i, layer in enumerate(_encoder_layers(part)):
        attention = layer._self_attention_layer
        state |= _under(
            f"encoder.layer.{i}",
            attention__self__query=_dense(attention.query_dense),
            attention__self__key=_dense(attention.key_dense),
            attention__self__value=_dense(attention.value_dense),
            attention__output__dense=_dense(attention.output_dense),
            attention__output__LayerNorm=_norm(layer._self_attention_layer_norm),
            intermediate__dense=_dense(layer._feedforward_intermediate_dense),
            output__dense=_dense(layer._feedforward_output_dense),
            output__LayerNorm=_norm(layer._feedforward_layer_norm),
        )
    if "pooled_dense" in named:
        state |= _under("pooler", dense=_dense(named["pooled_dense"]))
    return state


def _vit_state(part) -> dict:
    named = {layer.name: layer for layer in part.layers}
    patches = named["patch_embedding"]
    state = {
        "embeddings.cls_token": named["class_token"].token,
        "embeddings.position_embeddings": np.asarray(
            named["position_embedding"].position_embeddings
        )[None],
        "embeddings.patch_embeddings.projection.weight": np.asarray(patches.kernel).transpose(
            3, 2, 0, 1
        ),
        "embeddings.patch_embeddings.projection.bias": patches.bias,
    }
    for i, layer in enumerate(_encoder_layers(part)):
        attention = layer._self_attention_layer
        state |= _under(
            f"layers.{i}",
            attention__q_proj=_dense(attention.query_dense),
            attention__k_proj=_dense(attention.key_dense),
            attention__v_proj=_dense(attention.value_dense),
            attention__o_proj=_dense(attention.output_dense),
            layernorm_before=_norm(layer._self_attention_layer_norm),
            layernorm_after=_norm(layer._feedforward_layer_norm),
            mlp__fc1=_dense(layer._feedforward_intermediate_dense),
            mlp__fc2=_dense(layer._feedforward_output_dense),
        )
    if "layer_norm" in named:
        state |= {f"layernorm.{n}": v for n, v in _norm(named["layer_norm"]).items()}
    return state


def _convolutional_state(part) -> dict:
    """Our layers carry the names of Hugging Face's modules."""
    state = {}
    for layer in part.layers:
        if "DepthwiseConv2D" in type(layer).__name__:
            state[f"{layer.name}.weight"] = np.asarray(layer.kernel).transpose(2, 3, 0, 1)
        elif "Conv2D" in type(layer).__name__:
            state[f"{layer.name}.weight"] = np.asarray(layer.kernel).transpose(3, 2, 0, 1)
        elif "BatchNormalization" in type(layer).__name__:
            values = {
                **_norm(layer),
                "running_mean": layer.moving_mean,
                "running_var": layer.moving_variance,
            }
            state |= {f"{layer.name}.{name}": value for name, value in values.items()}
    return state
