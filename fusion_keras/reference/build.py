"""One of our models as its PyTorch reference: Hugging Face's modules, and our weights in them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file
from torch import nn
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from fusion_keras.backbones.text_encoder import TextEncoder
from fusion_keras.data.modalities import MODALITIES, PRESENT
from fusion_keras.errors import UsageError
from fusion_keras.fusion.architectures import CLSTM, of_spec, of_values
from fusion_keras.fusion.audio_visual import ClstmSpec
from fusion_keras.fusion.spec import FusionSpec, to_dict
from fusion_keras.fusion.state_dict import state_dict
from fusion_keras.modalities import MODALITY
from fusion_keras.reference import clstm
from fusion_keras.reference.audio_cnn import AudioCnn
from fusion_keras.reference.clstm import Clstm
from fusion_keras.reference.efficientnet_lite import EfficientNetLite
from fusion_keras.reference.mobilenet_v3 import MobileNetV3
from fusion_keras.reference.model import Reference, Tabular
from fusion_keras.training.restored import config_of
from fusion_keras.training.run import read_json

# Hugging Face's name of a field -> our image backbone's.
_ENCODER = {
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "hidden_size": "hidden_dim",
    "hidden_act": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "dropout",
}
_VIT = {**_ENCODER, "intermediate_size": "mlp_dim", "patch_size": "patch_size"}
_CONVNEXT = {
    name: name
    for name in (
        *("hidden_sizes", "depths", "patch_size", "hidden_act", "layer_norm_eps"),
        "drop_path_rate",
    )
}
_FIELDS = {
    "ViT": _VIT,
    "DeiT": _VIT,
    # Its width comes from a ratio; see `_hugging_face`.
    "Dinov2": {name: ours for name, ours in _VIT.items() if name != "intermediate_size"},
    # Its only dropout is of the attention, and published as 0.
    "CLIPVision": {name: ours for name, ours in _VIT.items() if "dropout" not in name},
    "SiglipVision": {name: ours for name, ours in _VIT.items() if "dropout" not in name},
    "ResNet": {
        name: name
        for name in (
            "embedding_size",
            "hidden_sizes",
            "depths",
            "layer_type",
            "hidden_act",
            "downsample_in_first_stage",
            "downsample_in_bottleneck",
        )
    },
    "EfficientNet": {
        name: name
        for name in (
            *("width_coefficient", "depth_coefficient", "depth_divisor", "kernel_sizes"),
            *("in_channels", "out_channels", "strides", "num_block_repeats", "expand_ratios"),
            *("depthwise_padding", "squeeze_expansion_ratio", "hidden_act", "batch_norm_eps"),
            "drop_connect_rate",
        )
    },
    "Whisper": {
        "encoder_layers": "num_layers",
        "encoder_attention_heads": "num_heads",
        "d_model": "hidden_dim",
        "encoder_ffn_dim": "intermediate_dim",
        "activation_function": "hidden_act",
        "dropout": "dropout",
        "attention_dropout": "dropout",
    },
    "ConvNext": {**_CONVNEXT, "layer_scale_init_value": "layer_scale_init_value"},
    "ConvNextV2": _CONVNEXT,
    "MobileNetV2": {
        name: name
        for name in (
            "depth_multiplier",
            "depth_divisible_by",
            "min_depth",
            "expand_ratio",
            "finegrained_output",
            "tf_padding",
            "first_layer_is_expansion",
            "layer_norm_eps",
        )
    },
}
# Networks of ours with timm's names, and what of their sizes is not of both.
_TIMM = {
    "MobileNetV3": (MobileNetV3, ("size", "width_multiplier")),
    "EfficientNetLite": (EfficientNetLite, ("width_coefficient", "depth_coefficient")),
}
# Statistics of BatchNorm that PyTorch keeps and we have not.
_COUNTS = "num_batches_tracked"


def twin(
    spec: FusionSpec | ClstmSpec,
    model,
    presets: Mapping[str, Any],
    *,
    num_classes: int,
    device: str = "cpu",
) -> tuple[Reference | Clstm, Callable[[dict], dict]]:
    """The reference of one of our models, with its weights, and what turns our inputs into its.

    Args:
        spec, model: ours, of either kind.
        presets, num_classes: as for `empty`; for a C-LSTM all that is in the spec.
        device: where it is to run.
    """
    if of_spec(spec) is CLSTM:
        made = Clstm(CLSTM.to_dict(spec))
        taken = functools.partial(clstm.tensors, device=device)
    else:
        made = empty(spec, presets, num_classes=num_classes)
        scale, offset = (x.to(device) for x in scaling(model))
        taken = functools.partial(tensors, made, scale=scale, offset=offset, device=device)
    return filled(made, state_dict(model, spec)).to(device), taken


def empty(spec: FusionSpec, presets: Mapping[str, Any], *, num_classes: int) -> Reference:
    """The reference of an architecture, its weights random.

    Args:
        spec: the architecture.
        presets: modality -> our preset, of each that the spec takes.
        num_classes: C.
    """
    # Of one example without text, whose length is open.
    shapes = {m: preset.backbone.input.shape[1:] for m, preset in presets.items() if m != "text"}
    made = {m: module(preset.backbone) for m, preset in presets.items()}
    return Reference(to_dict(spec), made, shapes, num_classes=num_classes)


def filled(reference: nn.Module, arrays: dict[str, np.ndarray]) -> nn.Module:
    """Set every weight from a state dict of name -> array, as `state_dict` of ours makes it."""
    tensors = {name: torch.from_numpy(np.array(x)) for name, x in arrays.items()}
    unmatched = reference.load_state_dict(tensors, strict=False)
    missing = [name for name in unmatched.missing_keys if not name.endswith(_COUNTS)]
    if missing or unmatched.unexpected_keys:
        raise ValueError(f"missing {missing[:3]}, unexpected {unmatched.unexpected_keys[:3]}")
    return reference


def of_run(folder: Path | str, weights) -> Reference:
    """The reference of a run, in evaluation mode.

    Args:
        folder: the run.
        weights: its Keras model, or the file of weights that `python -m fusion_keras.port`
            wrote.

    Raises:
        UsageError: a run that predicts a score as well; the reference cannot.
    """
    described = read_json(Path(folder) / "config.json")
    if described["config"]["regression"]:
        raise UsageError(f"{folder} predicts a score as well; the PyTorch reference cannot.")
    # Their weights are not used; what they are built of is.
    inputs = {m: described["inputs"].get(MODALITY[m].input) for m in MODALITY}
    architecture, variant = of_values(described["spec"]), described["variant"]
    architecture.refuse(variant, "pytorch")
    presets = architecture.presets(config_of(Path(folder)), inputs)
    spec = architecture.from_dict(described["spec"])
    reference = empty(spec, presets, num_classes=len(described["classes"]))
    from_file = isinstance(weights, (str, Path))
    return filled(reference, load_file(weights) if from_file else state_dict(weights, spec)).eval()


def module(backbone) -> nn.Module:
    """One of our backbones in PyTorch, whole, its weights random.

    Hugging Face's module; where it has none, of `audio_cnn`, tables and timm's families, one of
    ours.
    """
    config = backbone.get_config()
    kind = type(backbone).__name__.removesuffix("Backbone")
    if kind == "AudioCnn":
        built = AudioCnn(config["depth_multiplier"])
    elif kind == "Whisper":
        built = _whisper(backbone)
    elif kind == "Tabular":
        built = Tabular(config["size"], config["width"], config["num_layers"])
    elif kind in _TIMM:
        network, names = _TIMM[kind]
        built = network(**{n: config[n] for n in (*names, "tf_padding", "batch_norm_eps")})
    elif isinstance(backbone, TextEncoder):
        built = _text(kind, backbone)
    else:
        built = _image(kind, backbone)
    for part in built.modules():
        if isinstance(part, nn.BatchNorm2d):
            # Keras names what a step keeps of the statistics, PyTorch what it replaces.
            part.momentum = 1 - config["batch_norm_momentum"]
    return built


def _text(kind: str, backbone: TextEncoder) -> nn.Module:
    made = getattr(transformers, f"{kind}Config")(**backbone.hf_fields())
    if kind == "CLIPText":
        model = transformers.CLIPTextModel(made)
        return _projected(model, "text_projection", backbone)
    # DistilBERT, ELECTRA and DeBERTa have none.
    pooled = kind in ("Bert", "Roberta", "Albert")
    extra = {"add_pooling_layer": backbone.pooler} if pooled else {}
    return getattr(transformers, f"{kind}Model")(made, **extra)


def _whisper(backbone) -> nn.Module:
    config = backbone.get_config()
    fields = {theirs: config[ours] for theirs, ours in _FIELDS["Whisper"].items()}
    fields["max_source_positions"] = backbone.taps[0].shape[1]
    return WhisperEncoder(transformers.WhisperConfig(**fields))


def _projected(model: nn.Module, name: str, backbone) -> nn.Module:
    """A tower of CLIP with CLIP's projection beside its own modules, where ours has that."""
    if backbone.projection_dim is not None:
        width = model.config.hidden_size
        model.add_module(name, nn.Linear(width, backbone.projection_dim, bias=False))
    return model


def _image(kind: str, backbone) -> nn.Module:
    config = backbone.get_config()
    fields = {theirs: config[ours] for theirs, ours in _FIELDS[kind].items()}
    fields["image_size"] = config["image_shape"][0]
    if kind == "Dinov2":
        ratio, rest = divmod(config["mlp_dim"], config["hidden_dim"])
        if rest:
            raise UsageError(
                f"got a DINOv2 of mlp_dim {config['mlp_dim']} and hidden_dim "
                f"{config['hidden_dim']}, wanted a multiple: Hugging Face's has no other."
            )
        fields |= {"mlp_ratio": ratio, "use_mask_token": False}
    if kind == "EfficientNet":
        fields["hidden_dim"] = backbone.output.shape[-1]
    if "depths" in fields and kind != "ResNet":
        fields["num_stages"] = len(fields["depths"])
    made = getattr(transformers, f"{kind}Config")(**fields)
    # ViT's pooler is not of the published classifier, and nothing taps it.
    extra = {"add_pooling_layer": False} if kind in ("ViT", "DeiT") else {}
    model = getattr(transformers, f"{kind}Model")(made, **extra)
    return _projected(model, "visual_projection", backbone) if kind == "CLIPVision" else model


def scaling(model) -> tuple[torch.Tensor, torch.Tensor]:
    """(scale, offset) of pixels 0 to 255, float32 [1, 3 or 1, 1, 1], of one of our models."""
    layers = [layer for layer in model.layers if layer.name == "image_scaling"]
    pair = (layers[0].scale, layers[0].offset) if layers else (1.0, 0.0)
    scale, offset = (torch.tensor(x, dtype=torch.float32).reshape(1, -1, 1, 1) for x in pair)
    return scale, offset


def tensors(reference: Reference, inputs: dict, scale, offset, device="cpu") -> dict:
    """Our inputs -> the reference's, as far as it takes them.

    Token ids int32 [B, T], images uint8 [B, S, S, 3], log-mel energies float32 [B, F, bands]
    and tables float32 [B, K].
    """
    names = {m: MODALITY[m].input for m in MODALITY if MODALITY[m].input in inputs}
    # Copies: a slice of a memory map, or of JAX's, cannot be written, of which PyTorch warns.
    taken = {
        m: torch.tensor(np.asarray(inputs[name]), device=device)
        for m, name in names.items()
        if m in reference.backbones
    }
    if "text" in taken:
        taken["text"] = taken["text"].long()
    if "image" in taken:
        taken["image"] = taken["image"].permute(0, 3, 1, 2) * scale + offset
    return {"inputs": taken, "present": present(inputs, device)}


def present(inputs: dict, device="cpu") -> dict[str, torch.Tensor]:
    """Modality -> bool [B]; empty for a model without stand-ins."""
    names = {m: PRESENT[m] for m in MODALITIES if PRESENT[m] in inputs}
    return {
        m: torch.tensor(np.asarray(inputs[n])[:, 0] > 0.5, device=device) for m, n in names.items()
    }
