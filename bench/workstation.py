"""The trained model of a run by Keras on JAX and by PyTorch: what an export is measured against.

For a workstation only: this needs the training stack, and for PyTorch the repository's
`tests/reference`, which is the same architecture on Hugging Face's modules. What is carried
into it are the run's own weights, so all of them give the same answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.artifact import ArtifactError

Call = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
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


def keras_call(run: Path, threads: int) -> tuple[Call, list[str]]:
    """Keras on JAX, compiled anew for every shape: inputs -> outputs, and what it runs on.

    Raises:
        ArtifactError: not installed, another backend, threads, or no whole run.
    """
    if threads:
        raise ArtifactError("JAX takes no number of threads; leave it out for keras.")
    model = _model(run)
    import jax

    trainable = [v.value for v in model.trainable_variables]
    rest = [v.value for v in model.non_trainable_variables]
    names = [x.name for x in model.inputs]

    @jax.jit
    def forward(trainable, rest, inputs):
        return model.stateless_call(trainable, rest, inputs, training=False)[0]

    def call(inputs):
        outputs = forward(trainable, rest, {name: inputs[name] for name in names})
        return {name: np.asarray(value) for name, value in outputs.items()}

    return call, [f"JAX {jax.default_backend()}"]


def torch_call(run: Path, threads: int, compiled: bool) -> tuple[Call, list[str]]:
    """The reference in PyTorch with the run's weights: inputs -> logits, and what it runs on.

    Raises:
        ArtifactError: not installed, no whole run, or a run with a score head.
    """
    model = _model(run)
    try:
        import torch

        reference = _reference(run, model)
    except ImportError as error:
        raise ArtifactError(
            f"The PyTorch reference is not here ({error}): start from the repository's root, "
            "with fusion_keras[test] installed."
        ) from None
    if threads:
        torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reference = reference.eval().to(device)
    forward = torch.compile(reference) if compiled else reference
    scale, offset = _scaling(model, torch, device)

    @torch.inference_mode()
    def call(inputs):
        given = {}
        if "token_ids" in inputs and reference.text is not None:
            given["token_ids"] = torch.from_numpy(inputs["token_ids"]).to(device).long()
        if "image" in inputs and reference.image is not None:
            image = torch.from_numpy(inputs["image"]).to(device).permute(0, 3, 1, 2)
            given["pixels"] = image * scale + offset
        return {"logits": forward(**given).cpu().numpy()}

    return call, [f"PyTorch {device}"]


def _model(run: Path):
    """The run's Keras model, on JAX."""
    try:
        from fusion_keras.errors import UsageError
        from fusion_keras.training.experiment import load_model
    except ImportError as error:
        raise ArtifactError(
            f"fusion_keras is not installed here ({error}): the runners keras and torch are for "
            "the workstation that trains."
        ) from None
    import keras

    if keras.backend.backend() != "jax":
        raise ArtifactError(
            f"Keras runs on {keras.backend.backend()}: unset KERAS_BACKEND, jax is wanted."
        )
    try:
        return load_model(Path(run))
    except UsageError as error:
        raise ArtifactError(str(error)) from None


def _reference(run: Path, model):
    from ml_collections import ConfigDict

    from fusion_keras.errors import UsageError
    from fusion_keras.fusion.graph import part_name
    from fusion_keras.training.task import load_presets
    from tests.reference.model import Reference
    from tests.reference.weights import carry

    described = json.loads((Path(run) / "config.json").read_text())
    if described["config"]["regression"]:
        raise ArtifactError(f"{run} predicts a score as well; the PyTorch reference cannot.")
    try:
        # Their weights are not used; what they are built of is.
        text, image = load_presets(ConfigDict(described["config"]))
    except UsageError as error:
        raise ArtifactError(str(error)) from None
    size = image.image_spec.size if image else 0
    modules = [
        _module(preset.backbone, size, model.get_layer(part_name(modality))) if preset else None
        for modality, preset in (("text", text), ("image", image))
    ]
    classes = len(described["classes"])
    reference = Reference(described["spec"], *modules, image_size=size, num_classes=classes)
    return carry(model.get_layer("fusion"), reference)


def _scaling(model, torch, device):
    """(scale, offset) of pixels, float32 [1, 3 or 1, 1, 1]."""
    layers = [layer for layer in model.layers if layer.name == "image_scaling"]
    pairs = [(layer.scale, layer.offset) for layer in layers] or [(1.0, 0.0)]
    return [
        torch.tensor(value, dtype=torch.float32, device=device).reshape(1, -1, 1, 1)
        for value in pairs[0]
    ]


def _module(backbone, size: int, part):
    """Hugging Face's module of a backbone, with the weights of `part`, our backbone cut."""
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
