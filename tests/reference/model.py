"""The fusion variants in PyTorch, on Hugging Face's modules.

Nothing here imports our models: the architecture is read from the spec as a run's
`config.json` holds it, and written once more, so that an error in one is not in the other.
`build.py` makes it of one of our runs, with its weights.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertModel, MobileNetV2Model, ViTModel

LAST = "last"


class Reference(nn.Module):
    """Backbones cut behind their deepest tap, junctions and head.

    Args:
        spec: the architecture, `config.json`'s "spec".
        text: the whole text model, or None. It is cut in place.
        image: the whole image model, or None. It is cut in place.
        image_size: side of the images in pixels, for the sizes of what comes behind.
        num_classes: C.

    Forward takes token ids int64 [B, T], 0 for padding, and pixels float32 [B, 3, S, S],
    scaled as the checkpoint wants them, as far as the spec has the modality, and with stand-ins
    modality -> bool [B], whether it is present; gives logits float32 [B, C].
    """

    def __init__(
        self,
        spec: dict,
        text: BertModel | None,
        image: MobileNetV2Model | ViTModel | None,
        image_size: int = 224,
        num_classes: int = 2,
    ):
        super().__init__()
        self.spec = spec
        self.text = _cut(text, _depths(spec, "text"))
        self.image = _cut(image, _depths(spec, "image"))
        self.eval()
        with torch.no_grad():
            taps, mask = self.taps(
                torch.ones(1, 4, dtype=torch.int64), torch.zeros(1, 3, image_size, image_size)
            )
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
            mine = _mine(junction, taps)
            self.junctions.append(JOINS[junction["join"]](junction, spec["pool"], mine))
        with torch.no_grad():
            sizes = [v.shape[1] for v in self._vectors(taps, mask)]
        self.by_score = spec["decision"] == "score"
        self.heads = nn.ModuleList(
            _head(size, spec["hidden"], spec["dropout"], num_classes)
            for size in (sizes if self.by_score else [sum(sizes)])
        )
        if self.by_score and not spec["weights"]:
            self.share = nn.Parameter(torch.zeros(len(sizes)))

    def taps(self, token_ids=None, pixels=None) -> tuple[dict, torch.Tensor | None]:
        """Modality -> depth -> tap, and the mask bool [B, T]: what `fuse` takes."""
        taps, mask = {}, None
        if self.text is not None:
            mask = token_ids != 0
            taps["text"] = _text_taps(self.text, token_ids, mask)
        if self.image is not None:
            taps["image"] = _image_taps(self.image, pixels)
        return taps, mask

    def _vectors(self, taps, mask):
        return [
            join(_mine(junction, taps), mask if junction["text"] is not None else None)
            for junction, join in zip(self.spec["junctions"], self.junctions, strict=True)
        ]

    def forward(self, token_ids=None, pixels=None, present=None):
        return self.fuse(*self.taps(token_ids, pixels), present)

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
        found = {}
        for modality, tapped in taps.items():
            found[modality] = {}
            for depth in set(tapped) & set(_depths(self.spec, modality)):
                x = tapped[depth]
                vector = self.stand_ins[f"{modality}_{depth}"]
                vector = vector[:, None, None] if x.ndim == 4 else vector
                there = present[modality].reshape(-1, *[1] * (x.ndim - 1))
                found[modality][depth] = torch.where(there, x, vector)
        if mask is not None:
            one = torch.zeros_like(mask)
            one[:, 0] = True
            mask = torch.where(present["text"][:, None], mask, one)
        return found, mask


def _mine(junction: dict, taps: dict) -> dict:
    """Modality -> the tap that this junction takes."""
    taken = [m for m in ("text", "image") if junction[m] is not None]
    return {m: taps[m][junction[m]] for m in taken}


def _head(size: int, hidden: int, dropout: float, num_classes: int) -> nn.Sequential:
    before = [nn.Linear(size, hidden), nn.GELU()] if hidden else []
    return nn.Sequential(*before, nn.Dropout(dropout), nn.Linear(hidden or size, num_classes))


# --- Backbones ------------------------------------------------------------------------------


def _depths(spec: dict, modality: str) -> list:
    return [j[modality] for j in spec["junctions"] if j[modality] is not None]


def _layers(model) -> nn.ModuleList:
    if isinstance(model, BertModel):
        return model.encoder.layer
    return model.layer if isinstance(model, MobileNetV2Model) else model.layers


def _cut(model, depths: list):
    """Take off what no junction reaches."""
    if not depths:
        return None
    if LAST in depths:
        return model
    del _layers(model)[max(depths) :]
    for name in ("pooler", "conv_1x1", "layernorm"):
        if hasattr(model, name):
            setattr(model, name, None)
    return model


def _text_taps(model: BertModel, token_ids, mask) -> dict:
    x = model.embeddings(input_ids=token_ids)
    taps = {0: x}
    bias = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, torch.finfo(x.dtype).min)
    for k, layer in enumerate(model.encoder.layer, 1):
        x = layer(x, bias[:, None, None, :])
        taps[k] = x
    if model.pooler is not None:
        taps[LAST] = model.pooler(x)
    return taps


def _image_taps(model, pixels) -> dict:
    convolutional = isinstance(model, MobileNetV2Model)
    x = model.conv_stem(pixels) if convolutional else model.embeddings(pixels)
    taps = {0: x}
    for k, layer in enumerate(_layers(model), 1):
        x = layer(x)
        taps[k] = x
    if convolutional and model.conv_1x1 is not None:
        taps[LAST] = model.conv_1x1(x).mean((2, 3))
    if not convolutional and model.layernorm is not None:
        taps[LAST] = model.layernorm(x[:, 0])
    return taps


# --- Taps to vectors and to tokens ------------------------------------------------------------


def _masked_mean(x, mask):
    if mask is None:
        return x.mean(1)
    weight = mask.to(x.dtype)[:, :, None]
    return (x * weight).sum(1) / weight.sum(1).clamp_min(1)


def _pooled(tap, mask, how: str):
    if tap.ndim == 2:
        return tap
    if tap.ndim == 4:
        return tap.mean((2, 3))
    return tap[:, 0] if how == "cls" else _masked_mean(tap, mask)


def _projection(tap, width: int) -> nn.Sequential:
    """Normalise, then project, the features of a pooled tap or of text tokens."""
    size = tap.shape[1] if tap.ndim == 4 else tap.shape[-1]
    return nn.Sequential(nn.LayerNorm(size, eps=1e-6), nn.Linear(size, width))


class Patches(nn.Module):
    """A feature map or ViT's tokens -> tokens of a grid of at most `grid` x `grid`."""

    def __init__(self, tap, width: int, grid: int):
        super().__init__()
        height, breadth, size = self._map(tap).shape[1:]
        stride = math.ceil(max(height, breadth) / grid)
        self.norm = nn.LayerNorm(size, eps=1e-6)
        self.project = nn.Conv2d(size, width, stride, stride)
        rows, columns = math.ceil(height / stride), math.ceil(breadth / stride)
        over = (columns * stride - breadth, rows * stride - height)
        self.sides = [side for n in over for side in (n // 2, n - n // 2)]
        self.positions = nn.Parameter(torch.zeros(rows * columns, width))

    @staticmethod
    def _map(tap):
        if tap.ndim == 4:
            return tap.permute(0, 2, 3, 1)
        side = math.isqrt(tap.shape[1] - 1)
        return tap[:, 1:].unflatten(1, (side, side))

    def forward(self, tap):
        x = self.norm(self._map(tap)).permute(0, 3, 1, 2)
        x = self.project(F.pad(x, self.sides))
        return x.flatten(2).transpose(1, 2) + self.positions


# --- Joins ------------------------------------------------------------------------------------


class _Join(nn.Module):
    def __init__(self, junction: dict, pool: str, taps: dict):
        super().__init__()
        self.junction, self.how = junction, pool

    def pool(self, taps, mask):
        return [_pooled(x, mask if m == "text" else None, self.how) for m, x in taps.items()]


class Concat(_Join):
    def forward(self, taps, mask):
        return torch.cat(self.pool(taps, mask), -1)


class Linear(_Join):
    def __init__(self, junction, pool, taps):
        super().__init__(junction, pool, taps)
        sizes = [x.shape[1] if x.ndim == 4 else x.shape[-1] for x in taps.values()]
        self.norms = nn.ModuleList(nn.LayerNorm(size, eps=1e-6) for size in sizes)
        self.project = nn.Linear(sum(sizes), junction["width"])

    def forward(self, taps, mask):
        vectors = zip(self.norms, self.pool(taps, mask), strict=True)
        return self.project(torch.cat([norm(x) for norm, x in vectors], -1))


class Add(_Join):
    def __init__(self, junction, pool, taps):
        super().__init__(junction, pool, taps)
        self.project = nn.ModuleList(_projection(x, junction["width"]) for x in taps.values())

    def project_all(self, taps, mask):
        return [p(x) for p, x in zip(self.project, self.pool(taps, mask), strict=True)]

    def forward(self, taps, mask):
        return sum(self.project_all(taps, mask))


class Gate(Add):
    def __init__(self, junction, pool, taps):
        super().__init__(junction, pool, taps)
        width = junction["width"]
        self.gate = nn.Linear(2 * width, width) if len(taps) > 1 else None

    def forward(self, taps, mask):
        parts = [torch.tanh(x) for x in self.project_all(taps, mask)]
        if self.gate is None:
            return parts[0]
        z = torch.sigmoid(self.gate(torch.cat(parts, -1)))
        return z * parts[0] + (1 - z) * parts[1]


class _Tokens(_Join):
    """Taps as tokens of the joint width: one of each pooled tap, or whole sequences."""

    def __init__(self, junction, pool, taps):
        super().__init__(junction, pool, taps)
        self.whole = junction["tokens"] == "sequence"
        width, grid = junction["width"], junction["grid"]
        self.project = nn.ModuleList(
            Patches(x, width, grid) if self.whole and m == "image" else _projection(x, width)
            for m, x in taps.items()
        )

    def tokens(self, taps, mask):
        """The tokens [B, N, width] of each modality, and the text's mask if it matters."""
        if self.whole:
            parts = [p(x) for p, x in zip(self.project, taps.values(), strict=True)]
            return parts, mask
        parts = zip(self.project, self.pool(taps, mask), strict=True)
        return [p(x)[:, None] for p, x in parts], None

    def means(self, parts, taps, mask):
        means = zip(taps, parts, strict=True)
        return torch.cat([_masked_mean(x, mask if m == "text" else None) for m, x in means], -1)


class Attention(_Tokens):
    def __init__(self, junction, pool, taps):
        super().__init__(junction, pool, taps)
        width = junction["width"]
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                junction["heads"],
                2 * width,
                dropout=0.0,
                activation="gelu",
                layer_norm_eps=1e-6,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(junction["blocks"])
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, taps, mask):
        parts, mask = self.tokens(taps, mask)
        counts = [x.shape[1] for x in parts]
        x = torch.cat(parts, 1)
        ignored = None if mask is None else F.pad(~mask, (0, x.shape[1] - mask.shape[1]))
        for block in self.blocks:
            x = block(x, src_key_padding_mask=ignored)
        return self.means(self.norm(x).split(counts, 1), taps, mask)


class CrossBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm_context, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in "123")
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x, context, ignored):
        context = self.norm_context(context)
        attended = self.attention(
            self.norm1(x), context, context, key_padding_mask=ignored, need_weights=False
        )
        x = x + attended[0]
        return x + self.mlp(self.norm2(x))


class Cross(_Tokens):
    def __init__(self, junction, pool, taps):
        super().__init__(junction, pool, taps)
        width, heads = junction["width"], junction["heads"]
        self.text, self.image = (
            nn.ModuleList(CrossBlock(width, heads) for _ in range(junction["blocks"])) for _ in taps
        )
        self.text_norm, self.image_norm = (nn.LayerNorm(width, eps=1e-6) for _ in taps)

    def forward(self, taps, mask):
        (text, image), mask = self.tokens(taps, mask)
        ignored = None if mask is None else ~mask
        for text_block, image_block in zip(self.text, self.image, strict=True):
            text, image = text_block(text, image, None), image_block(image, text, ignored)
        return self.means([self.text_norm(text), self.image_norm(image)], taps, mask)


JOINS = {
    "concat": Concat,
    "linear": Linear,
    "add": Add,
    "gate": Gate,
    "attention": Attention,
    "cross": Cross,
}
