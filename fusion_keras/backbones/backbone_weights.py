"""The weights of the backbones by Hugging Face's names of them."""

from __future__ import annotations

from fusion_keras.backbones.layouts import (
    Weight,
    convolution,
    dense,
    moved,
    norm,
    reshaped,
    same,
    side_by_side,
    under,
)


def _encoder_layers(part, prefix: str = "transformer_layer_") -> list:
    kept = [layer for layer in part.layers if layer.name.startswith(prefix)]
    return sorted(kept, key=lambda layer: int(layer.name.rpartition("_")[2]))


def _named(part) -> dict:
    return {layer.name: layer for layer in part.layers}


def _encoder_layer(layer, names: tuple[str, ...]) -> dict[str, Weight]:
    """names: of query, key, value, output, its norm, and the feed-forward part's two and norm;
    then of the two scales where the layer has them."""
    attention = layer._self_attention_layer
    parts = (
        *map(dense, (attention.query_dense, attention.key_dense, attention.value_dense)),
        dense(attention.output_dense),
        norm(layer._self_attention_layer_norm),
        dense(layer._feedforward_intermediate_dense),
        dense(layer._feedforward_output_dense),
        norm(layer._feedforward_layer_norm),
    )
    if hasattr(layer, "attention_scale"):
        scales = layer.attention_scale, layer.feedforward_scale
        parts += tuple({"lambda1": same(scale)} for scale in scales)
    tensors = {}
    for name, part in zip(names, parts, strict=True):
        tensors |= under(name, part)
    return tensors


_BERT_LAYER = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
_DEBERTA_LAYER = (
    *(f"attention.self.{x}_proj" for x in ("query", "key", "value")),
    *_BERT_LAYER[3:],
)
_PROJECTIONS = tuple(f"attention.{x}_proj" for x in "qkvo")
# Where a module keeps its encoder layers, and what it calls their parts.
_VIT = "layers", (*_PROJECTIONS, "layernorm_before", "mlp.fc1", "mlp.fc2", "layernorm_after")
_DINOV2 = (
    "encoder.layer",
    (*_PROJECTIONS, "norm1", "mlp.fc1", "mlp.fc2", "norm2", "layer_scale1", "layer_scale2"),
)


_TOWER_LAYER = (
    *(f"self_attn.{x}_proj" for x in ("q", "k", "v", "out")),
    *("layer_norm1", "mlp.fc1", "mlp.fc2", "layer_norm2"),
)
_WHISPER_LAYER = (
    *(f"self_attn.{x}_proj" for x in ("q", "k", "v", "out")),
    *("self_attn_layer_norm", "fc1", "fc2", "final_layer_norm"),
)
_DISTILBERT_LAYER = (
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
)
_ALBERT_LAYER = (
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.dense",
    "attention.LayerNorm",
    "ffn",
    "ffn_output",
    "full_layer_layer_norm",
)


def text(part) -> dict[str, Weight]:
    """Of a text encoder, perhaps cut: names of `transformers`' BertModel, or of its family's."""
    named = _named(part)
    if "embeddings_layer_norm" not in named:
        return text_tower(part, named)
    tensors = {
        "embeddings.word_embeddings.weight": same(named["token_embedding"].embeddings),
        **under("embeddings.LayerNorm", norm(named["embeddings_layer_norm"])),
    }
    if "position_embedding" in named:
        positions = same(named["position_embedding"].position_embeddings)
        tensors["embeddings.position_embeddings.weight"] = positions
    layers, names = "encoder.layer", _BERT_LAYER
    if "segment_embedding" in named:
        segments = same(named["segment_embedding"].embeddings)
        tensors["embeddings.token_type_embeddings.weight"] = segments
    else:
        layers, names = "transformer.layer", _DISTILBERT_LAYER
    if "distances" in named:
        layers, names = "encoder.layer", _DEBERTA_LAYER
        tensors["encoder.rel_embeddings.weight"] = same(named["distances"].embeddings)
        tensors |= under("encoder.LayerNorm", norm(named["distances_layer_norm"]))
    if "embeddings_projection" in named:
        tensors |= under("embeddings_project", dense(named["embeddings_projection"]))
    for i, layer in enumerate(_encoder_layers(part)):
        tensors |= under(f"{layers}.{i}", _encoder_layer(layer, names))
    if "pooled_dense" in named:
        tensors |= under("pooler.dense", dense(named["pooled_dense"]))
    return _albert(part, named, tensors) if "embedding_projection" in named else tensors


def text_tower(part, named: dict) -> dict[str, Weight]:
    """Of CLIP's text tower, perhaps cut: names of `transformers`' CLIPTextModel."""
    positions = named["position_embedding"].position_embeddings
    tensors = {
        "embeddings.token_embedding.weight": same(named["token_embedding"].embeddings),
        "embeddings.position_embedding.weight": same(positions),
    }
    for i, layer in enumerate(_encoder_layers(part)):
        tensors |= under(f"encoder.layers.{i}", _encoder_layer(layer, _TOWER_LAYER))
    if "final_layer_norm" in named:
        tensors |= under("final_layer_norm", norm(named["final_layer_norm"]))
    return tensors | _projection(named, "text_projection")


def _projection(named: dict, name: str) -> dict[str, Weight]:
    """Of a layer without a bias, if it is there."""
    return {f"{name}.weight": moved(named[name].kernel, (1, 0))} if name in named else {}


def _albert(part, named, tensors: dict[str, Weight]) -> dict[str, Weight]:
    """The tensors of `text` under ALBERT's names, and those of its layers."""
    tensors |= under("encoder.embedding_hidden_mapping_in", dense(named["embedding_projection"]))
    for group, layer in enumerate(_encoder_layers(part, "shared_layer_")):
        name = f"encoder.albert_layer_groups.{group}.albert_layers.0"
        tensors |= under(name, _encoder_layer(layer, _ALBERT_LAYER))
    return {name.replace("pooler.dense.", "pooler."): x for name, x in tensors.items()}


def image(part) -> dict[str, Weight]:
    """Of an image backbone, perhaps cut: names of `transformers`' module of its family."""
    if "patch_embedding" not in _named(part):
        return convolutions(part)
    named = _named(part)
    if "pre_layer_norm" in named or "class_token" not in named:
        return tower(part)
    scaled = any(hasattr(layer, "attention_scale") for layer in _encoder_layers(part))
    return vit(part, *(_DINOV2 if scaled else _VIT))


def vit(part, layers: str, names: tuple[str, ...]) -> dict[str, Weight]:
    """Of a ViT, DeiT or DINOv2, perhaps cut.

    Args:
        part: the model.
        layers: the module of the encoder layers.
        names: of what each holds: query, key, value, output, its norm, the feed-forward part's two
            and norm, and, in DINOv2, the two scales.
    """
    named = _named(part)
    positions = named["position_embedding"].position_embeddings
    tensors = {
        "embeddings.cls_token": same(named["class_token"].token),
        "embeddings.position_embeddings": reshaped(positions, (1, *positions.shape)),
        **under("embeddings.patch_embeddings.projection", convolution(named["patch_embedding"])),
    }
    if "distillation_token" in named:
        tensors["embeddings.distillation_token"] = same(named["distillation_token"].token)
    for i, layer in enumerate(_encoder_layers(part)):
        tensors |= under(f"{layers}.{i}", _encoder_layer(layer, names))
    if "layer_norm" in named:
        tensors |= under("layernorm", norm(named["layer_norm"]))
    return tensors


def tower(part) -> dict[str, Weight]:
    """Of CLIP's or SigLIP's image tower, perhaps cut: names of `transformers`' CLIPVisionModel,
    or SiglipVisionModel."""
    named = _named(part)
    tensors = {
        "embeddings.position_embedding.weight": same(
            named["position_embedding"].position_embeddings
        ),
        **under("embeddings.patch_embedding", convolution(named["patch_embedding"])),
    }
    if "class_token" in named:
        class_token = reshaped(named["class_token"].token, (-1,))
        tensors["embeddings.class_embedding"] = class_token
        tensors |= under("pre_layrnorm", norm(named["pre_layer_norm"]))
    for i, layer in enumerate(_encoder_layers(part)):
        tensors |= under(f"encoder.layers.{i}", _encoder_layer(layer, _TOWER_LAYER))
    if "layer_norm" in named:
        tensors |= under("post_layernorm", norm(named["layer_norm"]))
    if "head" in named:
        tensors |= under("head", _attention_pooling(named["head"]))
    return tensors | _projection(named, "visual_projection")


def _attention_pooling(layer) -> dict[str, Weight]:
    """Of SigLIP's head; PyTorch has query, key and value of its attention one below the other."""
    attention = layer._self_attention_layer
    parts = [dense(getattr(attention, f"{x}_dense")) for x in ("query", "key", "value")]
    return {
        "probe": same(layer.probe),
        "attention.in_proj_weight": side_by_side([part["weight"] for part in parts]),
        "attention.in_proj_bias": side_by_side([part["bias"] for part in parts]),
        **under("attention.out_proj", dense(attention.output_dense)),
        **under("layernorm", norm(layer.norm)),
        **under("mlp.fc1", dense(layer.wide)),
        **under("mlp.fc2", dense(layer.narrow)),
    }


def audio(part) -> dict[str, Weight]:
    """Of an audio backbone, perhaps cut: names of `transformers`' WhisperEncoder, or of the layers
    of `audio_cnn`."""
    named = _named(part)
    if "embed_positions" not in named:
        return convolutions(part)
    tensors = {"embed_positions.weight": same(named["embed_positions"].positions)}
    for name in ("conv1", "conv2"):
        tensors |= under(name, convolution(named[name]))
    for i, layer in enumerate(_encoder_layers(part)):
        tensors |= under(f"layers.{i}", _encoder_layer(layer, _WHISPER_LAYER))
    if "layer_norm" in named:
        tensors |= under("layer_norm", norm(named["layer_norm"]))
    return tensors


def convolutions(part) -> dict[str, Weight]:
    """Of convolutional networks, whose layers carry the names of Hugging Face's modules."""
    tensors = {}
    for layer in part.layers:
        kind = type(layer).__name__
        if "Conv2D" in kind:
            # ConvNeXt's 1x1 convolutions, which PyTorch has as linear layers.
            linear = "pwconv" in layer.name
            tensors |= under(layer.name, dense(layer) if linear else convolution(layer))
        elif "BatchNormalization" in kind:
            statistics = {
                "running_mean": same(layer.moving_mean),
                "running_var": same(layer.moving_variance),
            }
            tensors |= under(layer.name, norm(layer) | statistics)
        elif "LayerNormalization" in kind:
            tensors |= under(layer.name, norm(layer))
        elif kind == "LayerScale":
            tensors[layer.name] = same(layer.scale)
        elif kind == "GlobalResponseNorm":
            weight, bias = (reshaped(x, (1, 1, 1, -1)) for x in (layer.gamma, layer.beta))
            tensors |= under(layer.name, {"weight": weight, "bias": bias})
    return tensors
