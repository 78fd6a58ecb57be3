"""Carry the joints and heads of one of our models over to its reference.

The backbones need no carrying: both read the same Hugging Face checkpoint.
"""

import numpy as np
import torch
from torch import nn

from tests.reference.model import Reference


def carry(fusion, reference: Reference) -> Reference:
    """Set junctions and heads to the weights of `fusion`, a model's Keras part of that name."""
    with torch.no_grad():
        for i, join in enumerate(reference.junctions):
            _join(join, _Named(fusion, f"junction{i}"))
        for i, head in enumerate(reference.heads):
            by_score = reference.by_score
            names = (
                [f"head{i}_hidden", f"head{i}_logits"] if by_score else ["head_hidden", "logits"]
            )
            linears = [part for part in head if isinstance(part, nn.Linear)]
            for linear, name in zip(linears, names[-len(linears) :], strict=True):
                _dense(linear, fusion.get_layer(name))
        if hasattr(reference, "share"):
            _set(reference.share, fusion.get_layer("logits").share)
    return reference.eval()


class _Named:
    """The layers of a Keras model whose names begin with a prefix."""

    def __init__(self, model, prefix: str):
        self.model, self.prefix = model, prefix

    def __call__(self, name: str = ""):
        return self.model.get_layer(self.prefix + name)


def _set(parameter, value) -> None:
    value = torch.from_numpy(np.array(value))
    assert parameter.shape == value.shape, (parameter.shape, value.shape)
    parameter.copy_(value)


def _dense(linear: nn.Linear, layer) -> None:
    _set(linear.weight, np.asarray(layer.kernel).reshape(linear.weight.shape[::-1]).T)
    _set(linear.bias, np.asarray(layer.bias).reshape(-1))


def _norm(norm: nn.LayerNorm, layer) -> None:
    _set(norm.weight, layer.gamma)
    _set(norm.bias, layer.beta)


def _attention(attention: nn.MultiheadAttention, layer) -> None:
    width = attention.embed_dim
    dense = (layer.query_dense, layer.key_dense, layer.value_dense)
    kernels = [np.asarray(d.kernel).reshape(width, width).T for d in dense]
    _set(attention.in_proj_weight, np.concatenate(kernels))
    _set(attention.in_proj_bias, np.concatenate([np.asarray(d.bias).reshape(-1) for d in dense]))
    _dense(attention.out_proj, layer.output_dense)


def _join(join, layer) -> None:
    kind = type(join).__name__
    modalities = [m for m in ("text", "image") if join.junction[m] is not None]
    if kind == "Linear":
        for norm, modality in zip(join.norms, modalities, strict=True):
            _norm(norm, layer(f"_{modality}_norm"))
        _dense(join.project, layer())
    elif kind != "Concat":
        for project, modality in zip(join.project, modalities, strict=True):
            _project(project, layer, modality)
    if kind == "Gate" and join.gate is not None:
        _dense(join.gate, layer("_gate"))
    if kind == "Attention":
        for i, block in enumerate(join.blocks):
            _block(block, layer(f"_block{i}"))
        _norm(join.norm, layer("_norm"))
    if kind == "Cross":
        for modality in modalities:
            for i, block in enumerate(getattr(join, modality)):
                _cross_block(block, lambda part, m=modality, i=i: layer(f"_{m}_block{i}_{part}"))
            _norm(getattr(join, f"{modality}_norm"), layer(f"_{modality}_last_norm"))


def _project(project, layer, modality: str) -> None:
    if isinstance(project, nn.Sequential):
        norm, linear = project
        _dense(linear, layer(f"_{modality}_project"))
    else:
        norm, conv = project.norm, layer(f"_{modality}_project")
        _set(project.project.weight, np.asarray(conv.kernel).transpose(3, 2, 0, 1))
        _set(project.project.bias, conv.bias)
        _set(project.positions, layer(f"_{modality}_positions").position_embeddings)
    _norm(norm, layer(f"_{modality}_norm"))


def _block(block: nn.TransformerEncoderLayer, layer) -> None:
    _attention(block.self_attn, layer._self_attention_layer)
    _norm(block.norm1, layer._self_attention_layer_norm)
    _norm(block.norm2, layer._feedforward_layer_norm)
    _dense(block.linear1, layer._feedforward_intermediate_dense)
    _dense(block.linear2, layer._feedforward_output_dense)


def _cross_block(block, layer) -> None:
    _norm(block.norm1, layer("norm1"))
    _norm(block.norm_context, layer("norm_context"))
    _norm(block.norm2, layer("norm2"))
    _attention(block.attention, layer("attention"))
    _dense(block.mlp[0], layer("mlp1"))
    _dense(block.mlp[2], layer("mlp2"))
