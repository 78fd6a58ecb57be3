"""The encoder of log-mel energies in plain PyTorch: MobileNetV2's blocks on a map of one channel.

Written from the description of `fusion_keras/backbones/audio_cnn.py`, nothing of which is imported;
modules carry the names of Hugging Face's MobileNetV2.
"""

import torch.nn.functional as F
from torch import nn

# MobileNetV2's stages (Sandler et al. 2018, table 2), fewer blocks in each.
CHANNELS = (24, 24, 32, 32, 64, 64, 96, 160)
STRIDES = (2, 1, 2, 1, 2, 1, 1, 2)
EXPANSION = 6


def _width(channels: int, multiplier: float) -> int:
    """The multiple of 8 next to the scaled width, one more where a tenth of it would be lost."""
    scaled = round(channels * multiplier)
    rounded = max(8, (scaled + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * scaled else rounded + 8


class Unit(nn.Module):
    """Convolution padded as TensorFlow's SAME, BatchNorm and, where active, ReLU6."""

    def __init__(self, entering, leaving, kernel=1, stride=1, groups=1, active=True):
        super().__init__()
        self.convolution = nn.Conv2d(entering, leaving, kernel, stride, groups=groups, bias=False)
        self.normalization = nn.BatchNorm2d(leaving, eps=1e-3)
        self.kernel, self.stride, self.active = kernel, stride, active

    def forward(self, x):
        x = self.normalization(self.convolution(F.pad(x, self._sides(*x.shape[2:]))))
        return F.relu6(x) if self.active else x

    def _sides(self, height: int, width: int) -> list[int]:
        """Left, right, above, below: what an odd number leaves over stands behind."""
        counts = [-(-size // self.stride) for size in (width, height)]
        over = [
            max((count - 1) * self.stride + self.kernel - size, 0)
            for count, size in zip(counts, (width, height), strict=True)
        ]
        return [side for n in over for side in (n // 2, n - n // 2)]


class Stem(nn.Module):
    """The first convolution with an expansion-free block: [B, 1, F, 64] -> half of it."""

    def __init__(self, inner: int, leaving: int):
        super().__init__()
        self.first_conv = Unit(1, inner, 3, 2)
        self.conv_3x3 = Unit(inner, inner, 3, groups=inner)
        self.reduce_1x1 = Unit(inner, leaving, active=False)

    def forward(self, x):
        return self.reduce_1x1(self.conv_3x3(self.first_conv(x)))


class Block(nn.Module):
    """Expand, convolve each channel, reduce; add the input where the shapes agree."""

    def __init__(self, entering: int, leaving: int, stride: int):
        super().__init__()
        inner = EXPANSION * entering
        self.expand_1x1 = Unit(entering, inner)
        self.conv_3x3 = Unit(inner, inner, 3, stride, groups=inner)
        self.reduce_1x1 = Unit(inner, leaving, active=False)
        self.adds = stride == 1 and entering == leaving

    def forward(self, x):
        y = self.reduce_1x1(self.conv_3x3(self.expand_1x1(x)))
        return x + y if self.adds else y


class AudioCnn(nn.Module):
    """The whole encoder; `model.py` cuts it and calls its parts.

    Args:
        depth_multiplier: width of every layer relative to MobileNetV2's.

    Parts: conv_stem, [B, 1, F, 64] -> tap 0; layer, eight blocks, the taps 1 to 8, each
    [B, C, t, f]; conv_1x1, whose mean over time and frequency is the summary.
    """

    def __init__(self, depth_multiplier: float):
        super().__init__()

        def width(channels: int) -> int:
            return _width(channels, depth_multiplier)

        leaving = [width(channels) for channels in CHANNELS]
        entering = [width(16), *leaving[:-1]]
        self.conv_stem = Stem(width(32), entering[0])
        self.layer = nn.ModuleList(map(Block, entering, leaving, STRIDES))
        self.conv_1x1 = Unit(leaving[-1], width(1280))
