"""The joins of the reference: taps and the text's mask -> one vector [B, D].

Sequence taps are [B, T, D], maps [B, C, h, w] (of sound [B, C, t, f]); the mask is bool [B, T].
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

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
        down, along = self._strides(height, breadth, grid)
        self.norm = nn.LayerNorm(size, eps=1e-6)
        self.project = nn.Conv2d(size, width, (down, along), (down, along))
        rows, columns = math.ceil(height / down), math.ceil(breadth / along)
        over = (columns * along - breadth, rows * down - height)
        self.sides = [side for n in over for side in (n // 2, n - n // 2)]
        self.positions = nn.Parameter(torch.zeros(rows * columns, width))

    @staticmethod
    def _map(tap):
        if tap.ndim == 4:
            return tap.permute(0, 2, 3, 1)
        side = math.isqrt(tap.shape[1])  # a token or two stand before the patches
        return tap[:, -(side**2) :].unflatten(1, (side, side))

    @staticmethod
    def _strides(height: int, breadth: int, grid: int) -> tuple[int, int]:
        return (math.ceil(max(height, breadth) / grid),) * 2

    def forward(self, tap):
        x = self.norm(self._map(tap)).permute(0, 3, 1, 2)
        x = self.project(F.pad(x, self.sides))
        return x.flatten(2).transpose(1, 2) + self.positions


class Moments(Patches):
    """A map of sound, averaged over frequency, or Whisper's positions -> at most `grid` * `grid`
    tokens along time."""

    @staticmethod
    def _map(tap):
        if tap.ndim == 3:
            return tap[:, :, None]
        return tap.mean(3, keepdim=True).permute(0, 2, 3, 1)

    @staticmethod
    def _strides(height: int, breadth: int, grid: int) -> tuple[int, int]:
        return math.ceil(height / grid**2), 1


GRIDS = {"image": Patches, "audio": Moments}


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
    """One gate between two modalities, of three one for each."""

    def __init__(self, junction, pool, taps):
        super().__init__(junction, pool, taps)
        width, count = junction["width"], len(taps)
        self.gate = nn.Linear(2 * width, width) if count == 2 else None
        if count > 2:
            self.gates = nn.ModuleList(nn.Linear(count * width, width) for _ in taps)

    def forward(self, taps, mask):
        parts = [torch.tanh(x) for x in self.project_all(taps, mask)]
        if len(parts) == 1:
            return parts[0]
        every = torch.cat(parts, -1)
        if self.gate is None:
            gates = [torch.sigmoid(gate(every)) for gate in self.gates]
            return sum(z * x for z, x in zip(gates, parts, strict=True))
        z = torch.sigmoid(self.gate(every))
        return z * parts[0] + (1 - z) * parts[1]


class _Tokens(_Join):
    """Taps as tokens of the joint width: one of each pooled tap, or whole sequences."""

    def __init__(self, junction, pool, taps):
        super().__init__(junction, pool, taps)
        self.whole = junction["tokens"] == "sequence"
        width, grid = junction["width"], junction["grid"]
        self.project = nn.ModuleList(
            GRIDS[m](x, width, grid) if self.whole and m in GRIDS else _projection(x, width)
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
    """The tokens of each modality attend to those of all others, text first."""

    def __init__(self, junction, pool, taps):
        super().__init__(junction, pool, taps)
        width, heads, count = junction["width"], junction["heads"], junction["blocks"]
        for m in taps:
            blocks = nn.ModuleList(CrossBlock(width, heads) for _ in range(count))
            self.add_module(m, blocks)
            self.add_module(f"{m}_norm", nn.LayerNorm(width, eps=1e-6))

    def forward(self, taps, mask):
        parts, mask = self.tokens(taps, mask)
        parts = dict(zip(taps, parts, strict=True))
        for i in range(self.junction["blocks"]):
            parts = {
                m: getattr(self, m)[i](x, *self._context(parts, m, mask)) for m, x in parts.items()
            }
        normed = [getattr(self, f"{m}_norm")(x) for m, x in parts.items()]
        return self.means(normed, taps, mask)

    @staticmethod
    def _context(parts: dict, modality: str, mask):
        """What a modality attends to, and which of it is padding."""
        context = torch.cat([x for m, x in parts.items() if m != modality], 1)
        if mask is None or modality == "text":
            return context, None
        return context, F.pad(~mask, (0, context.shape[1] - mask.shape[1]))


JOINS = {
    "concat": Concat,
    "linear": Linear,
    "add": Add,
    "gate": Gate,
    "attention": Attention,
    "cross": Cross,
}
