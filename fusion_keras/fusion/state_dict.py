"""The weights of a model under PyTorch's names and in PyTorch's layouts, and back again.

The names are those of the PyTorch reference (`tests/reference`): `text.`, `image.` and `audio.`
before Hugging Face's own names of a backbone, `stand_ins.`, `junctions.I.`, `heads.I.`, `share`.
Nothing here needs PyTorch: a state dict is name -> array, as a safetensors file holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from fusion_keras.backbones.conv_lstm import LSTM, ConvLSTM, PaddedConv2D
from fusion_keras.data.modalities import MODALITIES
from fusion_keras.errors import UsageError
from fusion_keras.fusion.audio_visual import ClstmSpec
from fusion_keras.fusion.graph import part_name, tap_name
from fusion_keras.fusion.spec import FusionSpec, Junction

# Buffers of PyTorch that decide nothing here.
_IGNORED = "num_batches_tracked"


@dataclass(frozen=True)
class Weight:
    """One tensor of PyTorch and the variables of ours that it holds.

    Attributes:
        variables: several where PyTorch keeps side by side what Keras has apart.
        there: their values, in that order -> PyTorch's array.
        back: PyTorch's array -> their values.
    """

    variables: tuple[keras.Variable, ...]
    there: Callable[..., np.ndarray]
    back: Callable[[np.ndarray], list[np.ndarray]]

    def read(self) -> np.ndarray:
        """float32, in PyTorch's layout."""
        return self.there(*(_array(v) for v in self.variables))


def state_dict(model: keras.Model, spec: FusionSpec | ClstmSpec) -> dict[str, np.ndarray]:
    """Every weight of a model, and BatchNorm's statistics: PyTorch's name -> float32 array.

    Args:
        model: as `graph.build` or `audio_visual.build` makes it, fresh or read from a run.
        spec: what it was built from.
    """
    return {name: weight.read() for name, weight in weights(model, spec).items()}


def load_state_dict(
    model: keras.Model,
    spec: FusionSpec | ClstmSpec,
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
    wanted = weights(model, spec)
    given = {name: x for name, x in arrays.items() if not name.endswith(_IGNORED)}
    missing, other = sorted(wanted.keys() - given), sorted(given.keys() - wanted.keys())
    if missing or other:
        parts = [f"lacks {_some(missing)}"] if missing else []
        parts += [f"has {_some(other)}, which this model has not"] if other else []
        raise UsageError(
            f"{source} {' and '.join(parts)}: weights of a model of the same variant, junctions "
            "and backbones are wanted."
        )
    for name, weight in wanted.items():
        shape = weight.read().shape
        if given[name].shape != shape:
            raise UsageError(
                f"{source} has {name} of shape {tuple(given[name].shape)}, wanted {shape}: it "
                "belongs to a model of other sizes."
            )
        if not np.isfinite(given[name]).all():
            raise UsageError(f"{source} has {name} with values that are not finite.")
    values = {name: w.back(np.asarray(given[name], np.float32)) for name, w in wanted.items()}
    for name, weight in wanted.items():
        for variable, value in zip(weight.variables, values[name], strict=True):
            variable.assign(value)


def weights(model: keras.Model, spec: FusionSpec | ClstmSpec) -> dict[str, Weight]:
    """PyTorch's name -> where it is in a model, in the order of the modules."""
    if isinstance(spec, ClstmSpec):
        return _clstm(model)
    found = {}
    for modality in MODALITIES:
        if modality in spec.modalities:
            part = model.get_layer(part_name(modality))
            kind = {"text": _text, "image": _image, "audio": _mobilenet_v2}[modality]
            found |= {f"{modality}.{name}": weight for name, weight in kind(part).items()}
    fusion = model.get_layer("fusion")
    for modality in spec.modalities if spec.stand_ins else ():
        names = [tap_name(modality, depth) for depth in spec.depths(modality)]
        found |= {f"stand_ins.{n}": _same(fusion.get_layer(f"{n}_stand_in").vector) for n in names}
    for i, junction in enumerate(spec.junctions):
        named = _Prefixed(fusion, f"junction{i}")
        found |= _under(f"junctions.{i}", _junction(junction, named))
    return found | _heads(fusion, spec)


def _array(variable) -> np.ndarray:
    # float32 also where the variable is bfloat16, which safetensors' numpy side has not.
    return np.asarray(ops.convert_to_numpy(variable), np.float32)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _under(prefix: str, parts: Mapping[str, Weight]) -> dict[str, Weight]:
    return {f"{prefix}.{name}": weight for name, weight in parts.items()}


# --- Layouts ----------------------------------------------------------------------------------


def _same(variable) -> Weight:
    return Weight((variable,), lambda x: x, lambda x: [x])


def _moved(variable, axes: tuple[int, ...]) -> Weight:
    inverse = tuple(np.argsort(axes))
    return Weight((variable,), lambda x: x.transpose(axes), lambda x: [x.transpose(inverse)])


def _reshaped(variable, shape: tuple[int, ...]) -> Weight:
    ours = tuple(variable.shape)
    return Weight((variable,), lambda x: x.reshape(shape), lambda x: [x.reshape(ours)])


def _kernel(layer) -> Weight:
    """[..., out], heads apart or not -> [out, in]."""
    outs, shape = int(np.prod(layer.bias.shape)), tuple(layer.kernel.shape)
    return Weight((layer.kernel,), lambda x: x.reshape(-1, outs).T, lambda x: [x.T.reshape(shape)])


def _dense(layer) -> dict[str, Weight]:
    return {"weight": _kernel(layer), "bias": _reshaped(layer.bias, (-1,))}


def _norm(layer) -> dict[str, Weight]:
    return {"weight": _same(layer.gamma), "bias": _same(layer.beta)}


def _convolution(layer) -> dict[str, Weight]:
    depthwise = "DepthwiseConv2D" in type(layer).__name__
    parts = {"weight": _moved(layer.kernel, (2, 3, 0, 1) if depthwise else (3, 2, 0, 1))}
    return parts | ({"bias": _same(layer.bias)} if layer.bias is not None else {})


def _side_by_side(parts: list[Weight]) -> Weight:
    """Tensors of equal shape, one below the other."""
    return Weight(
        tuple(part.variables[0] for part in parts),
        lambda *values: np.concatenate([p.there(x) for p, x in zip(parts, values, strict=True)]),
        lambda x: [p.back(y)[0] for p, y in zip(parts, np.split(x, len(parts)), strict=True)],
    )


# --- Backbones, by Hugging Face's names ---------------------------------------------------------


def _encoder_layers(part) -> list:
    kept = [layer for layer in part.layers if layer.name.startswith("transformer_layer_")]
    return sorted(kept, key=lambda layer: int(layer.name.rpartition("_")[2]))


def _named(part) -> dict:
    return {layer.name: layer for layer in part.layers}


def _encoder_layer(layer, names: tuple[str, ...]) -> dict[str, Weight]:
    """names: of query, key, value, output, its norm, and the feed-forward part's two and norm."""
    attention = layer._self_attention_layer
    parts = (
        *map(_dense, (attention.query_dense, attention.key_dense, attention.value_dense)),
        _dense(attention.output_dense),
        _norm(layer._self_attention_layer_norm),
        _dense(layer._feedforward_intermediate_dense),
        _dense(layer._feedforward_output_dense),
        _norm(layer._feedforward_layer_norm),
    )
    found = {}
    for name, part in zip(names, parts, strict=True):
        found |= _under(name, part)
    return found


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
_VIT_LAYER = (
    "attention.q_proj",
    "attention.k_proj",
    "attention.v_proj",
    "attention.o_proj",
    "layernorm_before",
    "mlp.fc1",
    "mlp.fc2",
    "layernorm_after",
)


def _text(part) -> dict[str, Weight]:
    named = _named(part)
    found = {
        "embeddings.word_embeddings.weight": _same(named["token_embedding"].embeddings),
        "embeddings.position_embeddings.weight": _same(
            named["position_embedding"].position_embeddings
        ),
        "embeddings.token_type_embeddings.weight": _same(named["segment_embedding"].embeddings),
        **_under("embeddings.LayerNorm", _norm(named["embeddings_layer_norm"])),
    }
    for i, layer in enumerate(_encoder_layers(part)):
        found |= _under(f"encoder.layer.{i}", _encoder_layer(layer, _BERT_LAYER))
    if "pooled_dense" in named:
        found |= _under("pooler.dense", _dense(named["pooled_dense"]))
    return found


def _image(part) -> dict[str, Weight]:
    return _vit(part) if "patch_embedding" in _named(part) else _mobilenet_v2(part)


def _vit(part) -> dict[str, Weight]:
    named = _named(part)
    positions = named["position_embedding"].position_embeddings
    found = {
        "embeddings.cls_token": _same(named["class_token"].token),
        "embeddings.position_embeddings": _reshaped(positions, (1, *positions.shape)),
        **_under("embeddings.patch_embeddings.projection", _convolution(named["patch_embedding"])),
    }
    for i, layer in enumerate(_encoder_layers(part)):
        found |= _under(f"layers.{i}", _encoder_layer(layer, _VIT_LAYER))
    if "layer_norm" in named:
        found |= _under("layernorm", _norm(named["layer_norm"]))
    return found


def _mobilenet_v2(part) -> dict[str, Weight]:
    """Our layers carry the names of Hugging Face's modules."""
    found = {}
    for layer in part.layers:
        kind = type(layer).__name__
        if "Conv2D" in kind:
            found |= _under(layer.name, _convolution(layer))
        elif "BatchNormalization" in kind:
            statistics = {
                "running_mean": _same(layer.moving_mean),
                "running_var": _same(layer.moving_variance),
            }
            found |= _under(layer.name, _norm(layer) | statistics)
    return found


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
    found = {}
    if junction.join == "linear":
        for i, modality in enumerate(modalities):
            found |= _under(f"norms.{i}", _norm(layer(f"_{modality}_norm")))
        return found | _under("project", _dense(layer()))
    for i, modality in enumerate(modalities):
        found |= _under(f"project.{i}", _projection(junction, modality, layer))
    if junction.join == "gate" and len(modalities) == 2:
        found |= _under("gate", _dense(layer("_gate")))
    if junction.join == "gate" and len(modalities) > 2:
        for i, modality in enumerate(modalities):
            found |= _under(f"gates.{i}", _dense(layer(f"_{modality}_gate")))
    if junction.join == "attention":
        for i in range(junction.blocks):
            found |= _under(f"blocks.{i}", _block(layer(f"_block{i}")))
        found |= _under("norm", _norm(layer("_norm")))
    if junction.join == "cross":
        for modality in modalities:
            for i in range(junction.blocks):
                parts = _Prefixed(layer.model, f"{layer.prefix}_{modality}_block{i}_")
                found |= _under(f"{modality}.{i}", _cross_block(parts))
            found |= _under(f"{modality}_norm", _norm(layer(f"_{modality}_last_norm")))
    return found


def _projection(junction: Junction, modality: str, layer: _Prefixed) -> dict[str, Weight]:
    norm, project = layer(f"_{modality}_norm"), layer(f"_{modality}_project")
    if junction.tokens != "sequence" or modality == "text":
        return _under("0", _norm(norm)) | _under("1", _dense(project))
    positions = layer(f"_{modality}_positions").position_embeddings
    return {
        **_under("norm", _norm(norm)),
        **_under("project", _convolution(project)),
        "positions": _same(positions),
    }


def _attention(layer) -> dict[str, Weight]:
    parts = [_dense(d) for d in (layer.query_dense, layer.key_dense, layer.value_dense)]
    return {
        "in_proj_weight": _side_by_side([part["weight"] for part in parts]),
        "in_proj_bias": _side_by_side([part["bias"] for part in parts]),
        **_under("out_proj", _dense(layer.output_dense)),
    }


def _block(layer) -> dict[str, Weight]:
    return {
        **_under("self_attn", _attention(layer._self_attention_layer)),
        **_under("linear1", _dense(layer._feedforward_intermediate_dense)),
        **_under("linear2", _dense(layer._feedforward_output_dense)),
        **_under("norm1", _norm(layer._self_attention_layer_norm)),
        **_under("norm2", _norm(layer._feedforward_layer_norm)),
    }


def _cross_block(layer: _Prefixed) -> dict[str, Weight]:
    found = {}
    for name in ("norm1", "norm_context", "norm2"):
        found |= _under(name, _norm(layer(name)))
    found |= _under("attention", _attention(layer("attention")))
    return found | _under("mlp.0", _dense(layer("mlp1"))) | _under("mlp.2", _dense(layer("mlp2")))


def _heads(fusion, spec: FusionSpec) -> dict[str, Weight]:
    """The last layer of a head stands behind its dropout and, with hidden units, behind GELU."""
    last = "3" if spec.hidden else "1"
    if spec.decision == "score":
        names = [(f"head{i}_hidden", f"head{i}_logits") for i in range(len(spec.junctions))]
    else:
        names = [("head_hidden", "logits")]
    found = {}
    for i, (hidden, logits) in enumerate(names):
        if spec.hidden:
            found |= _under(f"heads.{i}.0", _dense(fusion.get_layer(hidden)))
        found |= _under(f"heads.{i}.{last}", _dense(fusion.get_layer(logits)))
    if spec.decision == "score" and not spec.weights:
        found["share"] = _same(fusion.get_layer("logits").share)
    names = [layer.name for layer in fusion.layers]
    if "score" in names:
        found |= _under("score", _dense(fusion.get_layer("score")))
    return found


# --- The C-LSTMs, by the reference's names ------------------------------------------------------


def _clstm(model) -> dict[str, Weight]:
    kinds = {
        ConvLSTM: _conv_lstm,
        LSTM: _lstm,
        PaddedConv2D: _convolution,
        keras.layers.Conv2D: _convolution,  # of runs from before PaddedConv2D
        keras.layers.Dense: _dense,
    }
    found = {}
    for layer in model.layers:
        if type(layer) in kinds:
            found |= _under(layer.name, kinds[type(layer)](layer))
    return found


def _conv_lstm(layer) -> dict[str, Weight]:
    found = {
        "seen.weight": _moved(layer.kernel, (3, 2, 0, 1)),
        "seen.bias": _same(layer.bias),
        "hidden.weight": _moved(layer.recurrent_kernel, (3, 2, 0, 1)),
    }
    heard = getattr(layer, "audio_kernel", None)
    return found if heard is None else {**found, "heard.weight": _moved(heard, (1, 0))}


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
        "weight_ih_l0": _moved(layer.cell.kernel, (1, 0)),
        "weight_hh_l0": _moved(layer.cell.recurrent_kernel, (1, 0)),
        "bias_ih_l0": _same(layer.cell.bias),
        "bias_hh_l0": Weight((), lambda: np.zeros(count, np.float32), refuse_other),
    }
