"""The fusion variants in PyTorch, on Hugging Face's modules and, of `audio_cnn`, on ours.

Nothing here imports our models: the architecture is read from the spec as a run's
`config.json` holds it, and written once more, so that an error in one is not in the other.
`build.py` makes it of one of our runs, with its weights.
"""

import torch
from torch import nn
from transformers import (
    CLIPVisionModel,
    ConvNextModel,
    ConvNextV2Model,
    Dinov2Model,
    EfficientNetModel,
    MobileNetV2Model,
    ResNetModel,
    SiglipVisionModel,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from fusion_keras.reference.audio_cnn import AudioCnn
from fusion_keras.reference.joins import JOINS
from fusion_keras.reference.mobilenet_v3 import Network
from fusion_keras.reference.text import cut_text, text_mask, text_taps

LAST = "last"
MODALITIES = ("text", "image", "audio", "tabular")


class Reference(nn.Module):
    """Backbones cut behind their deepest tap, junctions and head.

    Args:
        spec: the architecture, `config.json`'s "spec".
        backbones: modality -> the whole model. It is cut in place.
        shapes: modality -> the shape of one example, images (S, S, 3), for the sizes of what comes
            behind; of all but text.
        num_classes: C.

    Forward takes, by modality, token ids int64 [B, T], padded, pixels float32 [B, 3, S, S],
    scaled as the checkpoint wants them, log-mel energies float32 [B, F, bands] and numbers and
    categories float32 [B, K], and with stand-ins modality -> bool [B], whether it is present; gives
    logits float32 [B, C].
    """

    def __init__(
        self,
        spec: dict,
        backbones: dict[str, nn.Module],
        shapes: dict[str, tuple[int, ...]],
        *,
        num_classes: int = 2,
    ):
        super().__init__()
        self.spec = spec
        self.backbones = [m for m in MODALITIES if _depths(spec, m)]
        for modality in self.backbones:
            self.add_module(modality, _cut(modality, backbones[modality], _depths(spec, modality)))
        self.eval()
        example = {m: torch.zeros(1, *shape) for m, shape in shapes.items()}
        if "image" in example:
            example["image"] = example["image"].permute(0, 3, 1, 2)
        with torch.no_grad():
            taps, mask = self.taps({**example, "text": torch.ones(1, 4, dtype=torch.int64)})
        self.stand_ins = nn.ParameterDict(
            {
                f"{modality}_{depth}": torch.randn(x.shape[1 if x.ndim == 4 else -1])
                for modality, tapped in (taps.items() if spec.get("stand_ins") else ())
                for depth, x in tapped.items()
                if depth in _depths(spec, modality)
            }
        )
        self.junctions = nn.ModuleList()
        for junction in spec["junctions"]:
            joined = _taps_of(junction, taps)
            self.junctions.append(JOINS[junction["join"]](junction, spec["pool"], joined))
        with torch.no_grad():
            sizes = [v.shape[1] for v in self._vectors(taps, mask)]
        self.by_score = spec["decision"] == "score"
        self.heads = nn.ModuleList(
            _head(size, spec["hidden"], spec["dropout"], num_classes)
            for size in (sizes if self.by_score else [sum(sizes)])
        )
        if self.by_score and not spec["weights"]:
            self.share = nn.Parameter(torch.zeros(len(sizes)))

    def taps(self, inputs: dict[str, torch.Tensor]) -> tuple[dict, torch.Tensor | None]:
        """Modality -> depth -> tap, and the mask bool [B, T]: what `fuse` takes."""
        taps = {m: _TAPS[m](getattr(self, m), inputs[m]) for m in self.backbones}
        if "text" not in self.backbones:
            return taps, None
        return taps, text_mask(self.text, inputs["text"])

    def _vectors(self, taps, mask):
        return [
            join(_taps_of(junction, taps), mask if junction["text"] is not None else None)
            for junction, join in zip(self.spec["junctions"], self.junctions, strict=True)
        ]

    def forward(self, inputs, present=None):
        return self.fuse(*self.taps(inputs), present)

    def fuse(self, taps: dict, mask=None, present=None):
        """Junctions and head: taps -> logits float32 [B, C]; present: modality -> bool [B]."""
        if self.stand_ins:
            taps, mask = self._stood_in(taps, mask, present)
        vectors = self._vectors(taps, mask)
        if not self.by_score:
            return self.heads[0](torch.cat(vectors, -1))
        shares = self.spec["weights"] or torch.softmax(self.share, 0)
        logits = [head(v) for head, v in zip(self.heads, vectors, strict=True)]
        mean = sum(w * torch.softmax(x, -1) for w, x in zip(shares, logits, strict=True))
        return torch.log(mean.clamp_min(1e-7))

    def _stood_in(self, taps: dict, mask, present: dict):
        """Learned vectors in the place of what is missing, a missing sentence of one token."""
        replaced = {}
        for modality, tapped in taps.items():
            replaced[modality] = {}
            for depth in set(tapped) & set(_depths(self.spec, modality)):
                x = tapped[depth]
                vector = self.stand_ins[f"{modality}_{depth}"]
                vector = vector[:, None, None] if x.ndim == 4 else vector
                is_present = present[modality].reshape(-1, *[1] * (x.ndim - 1))
                replaced[modality][depth] = torch.where(is_present, x, vector)
        if mask is not None:
            one = torch.zeros_like(mask)
            one[:, 0] = True
            mask = torch.where(present["text"][:, None], mask, one)
        return replaced, mask


def _taps_of(junction: dict, taps: dict) -> dict:
    """Modality -> the tap that this junction takes."""
    # A junction without sound or a table has no such key.
    taken = [m for m in MODALITIES if junction.get(m) is not None]
    return {m: taps[m][junction[m]] for m in taken}


def _head(size: int, hidden: int, dropout: float, num_classes: int) -> nn.Sequential:
    before = [nn.Linear(size, hidden), nn.GELU()] if hidden else []
    return nn.Sequential(*before, nn.Dropout(dropout), nn.Linear(hidden or size, num_classes))


# --- Backbones ------------------------------------------------------------------------------


def _depths(spec: dict, modality: str) -> list:
    return [j[modality] for j in spec["junctions"] if j.get(modality) is not None]


def _layers(model) -> nn.ModuleList:
    if isinstance(model, Dinov2Model):
        return model.encoder.layer
    if isinstance(model, CLIPVisionModel | SiglipVisionModel):
        return model.encoder.layers
    if isinstance(model, EfficientNetModel):
        return model.encoder.blocks
    return model.layer if isinstance(model, MobileNetV2Model | AudioCnn) else model.layers


def _cut(modality: str, model, depths: list):
    """Take off what no junction reaches."""
    if not depths:
        return None
    if modality == "text":
        return cut_text(model, depths)
    if LAST in depths:
        return model
    if isinstance(model, Network):
        model.cut(max(depths))
        return model
    if isinstance(model, ResNetModel | ConvNextModel | ConvNextV2Model):
        left = max(depths)
        for stage in model.encoder.stages:
            kept = min(left, len(stage.layers))
            del stage.layers[kept:]
            if kept == 0 and hasattr(stage, "downsampling_layer"):
                del stage.downsampling_layer[:]
            left -= kept
        model.pooler = model.layernorm = None
        return model
    del _layers(model)[max(depths) :]
    if isinstance(model, EfficientNetModel):
        model.encoder.top_conv = model.encoder.top_bn = None
    for name in (
        *("pooler", "conv_1x1", "layernorm", "post_layernorm", "visual_projection", "head"),
        "layer_norm",
    ):
        if hasattr(model, name):
            setattr(model, name, None)
    return model


def _image_taps(model, pixels) -> dict:
    if isinstance(model, Network):
        return model(pixels)
    if isinstance(model, MobileNetV2Model):
        return _convolutional_taps(model, pixels)
    if isinstance(model, ResNetModel):
        return _residual_taps(model, pixels)
    if isinstance(model, ConvNextModel | ConvNextV2Model):
        return _normalised_taps(model, pixels)
    if isinstance(model, EfficientNetModel):
        return _gated_taps(model, pixels)
    if isinstance(model, CLIPVisionModel | SiglipVisionModel):
        return _tower_taps(model, pixels)
    x = model.embeddings(pixels)
    taps = {0: x}
    for k, layer in enumerate(_layers(model), 1):
        x = layer(x)
        taps[k] = x
    if model.layernorm is not None:
        taps[LAST] = model.layernorm(x[:, 0])
    return taps


def _convolutional_taps(model: MobileNetV2Model | AudioCnn, x) -> dict:
    x = model.conv_stem(x)
    taps = {0: x}
    for k, layer in enumerate(model.layer, 1):
        x = layer(x)
        taps[k] = x
    if model.conv_1x1 is not None:
        taps[LAST] = model.conv_1x1(x).mean((2, 3))
    return taps


def _residual_taps(model: ResNetModel, pixels) -> dict:
    x = model.embedder(pixels)
    taps = {0: x}
    for layer in (layer for stage in model.encoder.stages for layer in stage.layers):
        x = layer(x)
        taps[len(taps)] = x
    if model.pooler is not None:
        taps[LAST] = model.pooler(x).flatten(1)
    return taps


def _normalised_taps(model: ConvNextModel | ConvNextV2Model, pixels) -> dict:
    x = model.embeddings(pixels)
    taps = {0: x}
    for stage in model.encoder.stages:
        for layer in stage.downsampling_layer:
            x = layer(x)
        for layer in stage.layers:
            x = layer(x)
            taps[len(taps)] = x
    if model.layernorm is not None:
        taps[LAST] = model.layernorm(x.mean((2, 3)))
    return taps


def _gated_taps(model: EfficientNetModel, pixels) -> dict:
    x = model.embeddings(pixels)
    taps = {0: x}
    for k, block in enumerate(model.encoder.blocks, 1):
        x = block(x)
        taps[k] = x
    if model.pooler is not None:
        top = model.encoder
        x = top.top_activation(top.top_bn(top.top_conv(x)))
        taps[LAST] = model.pooler(x).flatten(1)
    return taps


def _tower_taps(model: CLIPVisionModel | SiglipVisionModel, pixels) -> dict:
    x = model.embeddings(pixels)
    if isinstance(model, CLIPVisionModel):
        x = model.pre_layrnorm(x)
    taps = {0: x}
    for k, layer in enumerate(model.encoder.layers, 1):
        x = layer(x, None)
        taps[k] = x
    if model.post_layernorm is None:
        return taps
    if isinstance(model, SiglipVisionModel):
        taps[LAST] = model.head(model.post_layernorm(x))
    else:
        pooled = model.post_layernorm(x[:, 0])
        projection = getattr(model, "visual_projection", None)
        taps[LAST] = pooled if projection is None else projection(pooled)
    return taps


def _audio_taps(model: AudioCnn | WhisperEncoder, energies) -> dict:
    if isinstance(model, WhisperEncoder):
        return _whisper_taps(model, energies)
    return _convolutional_taps(model, energies[:, None])


def _whisper_taps(model: WhisperEncoder, energies) -> dict:
    x = energies.transpose(1, 2) - 1.5  # ours have silence at 0
    for convolution in (model.conv1, model.conv2):
        x = nn.functional.gelu(convolution(x))
    x = x.transpose(1, 2) + model.embed_positions.weight
    x = nn.functional.dropout(x, model.dropout, model.training)
    taps = {0: x}
    for k, layer in enumerate(model.layers, 1):
        x = layer(x, None)
        taps[k] = x
    if model.layer_norm is not None:
        taps[LAST] = model.layer_norm(x).mean(1)
    return taps


class Tabular(nn.Module):
    """A multilayer perceptron over a table's numbers and categories, float32 [B, K]."""

    def __init__(self, size: int, width: int, depth: int):
        super().__init__()
        self.embedding = nn.Linear(size, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))


def _tabular_taps(model: Tabular, values) -> dict:
    x = model.embedding(values)
    taps = {0: x}
    for k, layer in enumerate(model.layers, 1):
        x = torch.relu(layer(x))
        taps[k] = x
    return {**taps, LAST: x}


_TAPS = {
    "text": text_taps,
    "image": _image_taps,
    "audio": _audio_taps,
    "tabular": _tabular_taps,
}
