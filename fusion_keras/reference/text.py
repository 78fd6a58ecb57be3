"""Hugging Face's text encoders, layer by layer."""

import torch
from torch import nn
from transformers import (
    AlbertModel,
    CLIPTextModel,
    DebertaV2Model,
    DistilBertModel,
    RobertaModel,
)

LAST = "last"


def cut_text(model: nn.Module, depths: list) -> nn.Module:
    """Take off what none of the depths needs."""
    if LAST in depths:
        return model
    kept = _layers(model)[: max(depths)]
    if isinstance(model, AlbertModel):
        model.depths = max(depths)
        del model.encoder.albert_layer_groups[len(set(kept)) :]
    elif isinstance(model, CLIPTextModel):
        del model.encoder.layers[max(depths) :]
        model.final_layer_norm = model.text_projection = None
    else:
        encoder = model.transformer if isinstance(model, DistilBertModel) else model.encoder
        del encoder.layer[max(depths) :]
    if isinstance(model, DebertaV2Model) and not max(depths):
        model.encoder.rel_embeddings = model.encoder.LayerNorm = None
    model.pooler = None
    return model


def _layers(model: nn.Module) -> list:
    """The layer of each depth from 1 on; ALBERT's share their weights."""
    if isinstance(model, DistilBertModel):
        return list(model.transformer.layer)
    if isinstance(model, CLIPTextModel):
        return list(model.encoder.layers)
    if not isinstance(model, AlbertModel):
        return list(model.encoder.layer)
    count, groups = model.config.num_hidden_layers, model.config.num_hidden_groups
    depths = range(getattr(model, "depths", count))
    return [model.encoder.albert_layer_groups[int(i / (count / groups))] for i in depths]


def _embedded(model: nn.Module, token_ids):
    """What enters the first layer, [B, T, D]."""
    more = {}
    if isinstance(model, RobertaModel):
        # Padding stands behind, so a token's place is what Hugging Face counts; at padded places
        # it has another vector, which nothing reads.
        first = model.config.pad_token_id + 1
        places = torch.arange(first, first + token_ids.shape[1], device=token_ids.device)
        more["position_ids"] = places[None].expand(token_ids.shape)
    x = model.embeddings(input_ids=token_ids, **more)
    if hasattr(model, "embeddings_project"):
        return model.embeddings_project(x)
    return model.encoder.embedding_hidden_mapping_in(x) if isinstance(model, AlbertModel) else x


def text_mask(model: nn.Module, token_ids):
    """bool [B, T], whether a token is none of the padding."""
    return token_ids != model.config.pad_token_id


def _at_end(model: CLIPTextModel, token_ids, x) -> dict:
    """`last`, [B, D], of the last layer's [B, T, D]; nothing of a model that was cut."""
    if model.final_layer_norm is None:
        return {}
    end = model.config.eos_token_id
    # Before transformers' pull request 24773 configs said 2, and the highest id was meant.
    place = (token_ids if end == 2 else (token_ids == end).int()).argmax(-1)
    pooled = model.final_layer_norm(x)[torch.arange(len(x), device=x.device), place]
    projection = getattr(model, "text_projection", None)
    return {LAST: pooled if projection is None else projection(pooled)}


def _distances(model: DebertaV2Model):
    """The vectors of distances, normalised; of a model that was cut to its embeddings None."""
    encoder = model.encoder
    return None if encoder.rel_embeddings is None else encoder.get_rel_embedding()


def text_taps(model: nn.Module, token_ids) -> dict:
    """Depth -> [B, T, D], and `last` -> [B, D]: the pooler, or without one the first token."""
    mask = text_mask(model, token_ids)
    x = _embedded(model, token_ids)
    found = {0: x}
    seen = mask[:, None, None, :]
    if isinstance(model, CLIPTextModel):
        seen = torch.ones_like(mask[0])[:, None].expand(-1, mask.shape[1]).tril()[None, None]
    bias = torch.zeros_like(seen, dtype=x.dtype).masked_fill(~seen, torch.finfo(x.dtype).min)
    more = {}
    if isinstance(model, DebertaV2Model):
        bias, more = seen, {"rel_embeddings": _distances(model)}
    for depth, layer in enumerate(_layers(model), 1):
        x = layer(x, bias, **more)
        x = x[0] if isinstance(x, tuple) else x
        found[depth] = x
    if isinstance(model, CLIPTextModel):
        return found | _at_end(model, token_ids, x)
    pooler = getattr(model, "pooler", None)
    if pooler is None:
        return {**found, LAST: x[:, 0]}
    pooled = (
        model.pooler_activation(pooler(x[:, 0])) if isinstance(model, AlbertModel) else pooler(x)
    )
    return {**found, LAST: pooled}
