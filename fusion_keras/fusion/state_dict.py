"""The weights of a model under PyTorch's names and in PyTorch's layouts, and back again.

The names are those of `fusion_keras.reference`: `text.`, `image.` and `audio.` before Hugging
Face's own names of a backbone, `stand_ins.`, `junctions.I.`, `heads.I.`, `share`.
Nothing here needs PyTorch: a state dict is name -> array, as a safetensors file holds it.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from fusion_keras.backbones.conv_lstm import LSTM, ConvLSTM, PaddedConv2D
from fusion_keras.backbones.layouts import (
    Weight,
    convolution,
    dense,
    moved,
    norm,
    same,
    side_by_side,
    under,
)
from fusion_keras.errors import UsageError
from fusion_keras.fusion.architectures import of_spec
from fusion_keras.fusion.graph import tap_names
from fusion_keras.fusion.spec import FusionSpec, Junction
from fusion_keras.modalities import MODALITY

# Buffers of PyTorch that decide nothing here.
_IGNORED = "num_batches_tracked"


def state_dict(model: keras.Model, spec) -> dict[str, np.ndarray]:
    """Every weight of a model, and BatchNorm's statistics: PyTorch's name -> float32 array.

    Args:
        model: as an architecture builds it, fresh or read from a run.
        spec: what it was built from.
    """
    return {name: weight.read() for name, weight in weights(model, spec).items()}


def load_state_dict(
    model: keras.Model,
    spec,
    arrays: Mapping[str, np.ndarray],
    source: str,
) -> None:
    """Set every weight of a model from a state dict.

    Args:
        model, spec: as for `state_dict`.
        arrays: name -> float array; exactly the model's names. Counts of batches are ignored.
        source: what messages call it.

    Raises:
        UsageError: a tensor is missing, too many, of another shape, or not finite. Nothing has
            been changed then.
    """
    expected = weights(model, spec)
    tensors = {name: x for name, x in arrays.items() if not name.endswith(_IGNORED)}
    missing, other = sorted(expected.keys() - tensors), sorted(tensors.keys() - expected.keys())
    if missing or other:
        parts = [f"lacks {_some(missing)}"] if missing else []
        parts += [f"has {_some(other)}, which this model has not"] if other else []
        raise UsageError(
            f"{source} {' and '.join(parts)}: weights of a model of the same variant, junctions "
            "and backbones are wanted."
        )
    for name, weight in expected.items():
        shape = weight.read().shape
        if tensors[name].shape != shape:
            raise UsageError(
                f"{source} has {name} of shape {tuple(tensors[name].shape)}, wanted {shape}: it "
                "belongs to a model of other sizes."
            )
        if not np.isfinite(tensors[name]).all():
            raise UsageError(f"{source} has {name} with values that are not finite.")
    values = {
        name: w.to_keras(np.asarray(tensors[name], np.float32)) for name, w in expected.items()
    }
    for name, weight in expected.items():
        for variable, value in zip(weight.variables, values[name], strict=True):
            variable.assign(value)


def weights(model: keras.Model, spec) -> dict[str, Weight]:
    """PyTorch's name -> where it is in a model, in the order of the modules."""
    return of_spec(spec).weights(model, spec)


def junction_weights(model: keras.Model, spec: FusionSpec) -> dict[str, Weight]:
    """Those of backbones, junctions and heads."""
    tensors = {}
    for modality in (MODALITY[m] for m in spec.modalities):
        tensors |= under(modality.name, modality.weights(model.get_layer(modality.part)))
    fusion = model.get_layer("fusion")
    for names in tap_names(spec).values() if spec.stand_ins else ():
        tensors |= {f"stand_ins.{n}": same(fusion.get_layer(f"{n}_stand_in").vector) for n in names}
    for i, junction in enumerate(spec.junctions):
        named = _Prefixed(fusion, f"junction{i}")
        tensors |= under(f"junctions.{i}", _junction(junction, named))
    return tensors | _heads(fusion, spec)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


# --- Junctions and heads, by the reference's names ----------------------------------------------


class _Prefixed:
    """The layers of a model whose names begin with a prefix."""

    def __init__(self, model, prefix: str):
        self.model, self.prefix = model, prefix

    def __call__(self, name: str = ""):
        return self.model.get_layer(self.prefix + name)


def _junction(junction: Junction, layer: _Prefixed) -> dict[str, Weight]:
    modalities = list(junction.depths)
    if junction.join == "concat":
        return {}
    tensors = {}
    if junction.join == "linear":
        for i, modality in enumerate(modalities):
            tensors |= under(f"norms.{i}", norm(layer(f"_{modality}_norm")))
        return tensors | under("project", dense(layer()))
    for i, modality in enumerate(modalities):
        tensors |= under(f"project.{i}", _projection(junction, modality, layer))
    if junction.join == "gate" and len(modalities) == 2:
        tensors |= under("gate", dense(layer("_gate")))
    if junction.join == "gate" and len(modalities) > 2:
        for i, modality in enumerate(modalities):
            tensors |= under(f"gates.{i}", dense(layer(f"_{modality}_gate")))
    if junction.join == "attention":
        for i in range(junction.blocks):
            tensors |= under(f"blocks.{i}", _block(layer(f"_block{i}")))
        tensors |= under("norm", norm(layer("_norm")))
    if junction.join == "cross":
        for modality in modalities:
            for i in range(junction.blocks):
                parts = _Prefixed(layer.model, f"{layer.prefix}_{modality}_block{i}_")
                tensors |= under(f"{modality}.{i}", _cross_block(parts))
            tensors |= under(f"{modality}_norm", norm(layer(f"_{modality}_last_norm")))
    return tensors


def _projection(junction: Junction, modality: str, layer: _Prefixed) -> dict[str, Weight]:
    first, project = layer(f"_{modality}_norm"), layer(f"_{modality}_project")
    if not isinstance(project, keras.layers.Conv2D):
        return under("0", norm(first)) | under("1", dense(project))
    positions = layer(f"_{modality}_positions").position_embeddings
    return {
        **under("norm", norm(first)),
        **under("project", convolution(project)),
        "positions": same(positions),
    }


def _attention(layer) -> dict[str, Weight]:
    parts = [dense(d) for d in (layer.query_dense, layer.key_dense, layer.value_dense)]
    return {
        "in_proj_weight": side_by_side([part["weight"] for part in parts]),
        "in_proj_bias": side_by_side([part["bias"] for part in parts]),
        **under("out_proj", dense(layer.output_dense)),
    }


def _block(layer) -> dict[str, Weight]:
    return {
        **under("self_attn", _attention(layer._self_attention_layer)),
        **under("linear1", dense(layer._feedforward_intermediate_dense)),
        **under("linear2", dense(layer._feedforward_output_dense)),
        **under("norm1", norm(layer._self_attention_layer_norm)),
        **under("norm2", norm(layer._feedforward_layer_norm)),
    }


def _cross_block(layer: _Prefixed) -> dict[str, Weight]:
    tensors = {}
    for name in ("norm1", "norm_context", "norm2"):
        tensors |= under(name, norm(layer(name)))
    tensors |= under("attention", _attention(layer("attention")))
    return tensors | under("mlp.0", dense(layer("mlp1"))) | under("mlp.2", dense(layer("mlp2")))


def _heads(fusion, spec: FusionSpec) -> dict[str, Weight]:
    """The last layer of a head stands behind its dropout and, with hidden units, behind GELU."""
    last = "3" if spec.hidden else "1"
    if spec.decision == "score":
        names = [(f"head{i}_hidden", f"head{i}_logits") for i in range(len(spec.junctions))]
    else:
        names = [("head_hidden", "logits")]
    tensors = {}
    for i, (hidden, logits) in enumerate(names):
        if spec.hidden:
            tensors |= under(f"heads.{i}.0", dense(fusion.get_layer(hidden)))
        tensors |= under(f"heads.{i}.{last}", dense(fusion.get_layer(logits)))
    if spec.decision == "score" and not spec.weights:
        tensors["share"] = same(fusion.get_layer("logits").share)
    names = [layer.name for layer in fusion.layers]
    if "score" in names:
        tensors |= under("score", dense(fusion.get_layer("score")))
    return tensors


# --- The C-LSTMs, by the reference's names ------------------------------------------------------


def clstm_weights(model) -> dict[str, Weight]:
    kinds = {
        ConvLSTM: _conv_lstm,
        LSTM: _lstm,
        PaddedConv2D: convolution,
        keras.layers.Conv2D: convolution,  # of runs from before PaddedConv2D
        keras.layers.Dense: dense,
    }
    tensors = {}
    for layer in model.layers:
        if type(layer) in kinds:
            tensors |= under(layer.name, kinds[type(layer)](layer))
    return tensors


def _conv_lstm(layer) -> dict[str, Weight]:
    tensors = {
        "seen.weight": moved(layer.kernel, (3, 2, 0, 1)),
        "seen.bias": same(layer.bias),
        "hidden.weight": moved(layer.recurrent_kernel, (3, 2, 0, 1)),
    }
    heard = getattr(layer, "audio_kernel", None)
    return tensors if heard is None else {**tensors, "heard.weight": moved(heard, (1, 0))}


def _lstm(layer) -> dict[str, Weight]:
    """PyTorch's LSTM has two biases, whose sum counts; the second stays zero."""
    count = int(layer.cell.bias.shape[0])

    def refuse_other(x) -> list:
        if np.any(x):
            raise UsageError(
                f"{layer.name}.bias_hh_l0 is not zero, and our LSTM has one bias: add it to "
                "bias_ih_l0."
            )
        return []

    return {
        "weight_ih_l0": moved(layer.cell.kernel, (1, 0)),
        "weight_hh_l0": moved(layer.cell.recurrent_kernel, (1, 0)),
        "bias_ih_l0": same(layer.cell.bias),
        "bias_hh_l0": Weight((), lambda: np.zeros(count, np.float32), refuse_other),
    }
