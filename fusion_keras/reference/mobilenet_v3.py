"""MobileNetV3 in PyTorch, its modules named as timm names them, so that timm's tensors fit.

Written from the paper's tables 1 and 2. timm itself is not asked for: it imports torchvision, whose
wheels want the one build of PyTorch that they were made for. `tests/test_timm.py` compares with it.
"""

import torch.nn.functional as F
from torch import nn

# A row for each block, stage by stage: kernel, expansion, channels, gate, hard swish, stride.
_LARGE = (
    ((3, 1, 16, 0, 0, 1),),
    ((3, 4, 24, 0, 0, 2), (3, 3, 24, 0, 0, 1)),
    ((5, 3, 40, 1, 0, 2), (5, 3, 40, 1, 0, 1), (5, 3, 40, 1, 0, 1)),
    ((3, 6, 80, 0, 1, 2), (3, 2.5, 80, 0, 1, 1), (3, 2.3, 80, 0, 1, 1), (3, 2.3, 80, 0, 1, 1)),
    ((3, 6, 112, 1, 1, 1), (3, 6, 112, 1, 1, 1)),
    ((5, 6, 160, 1, 1, 2), (5, 6, 160, 1, 1, 1), (5, 6, 160, 1, 1, 1)),
)
_SMALL = (
    ((3, 1, 16, 1, 0, 2),),
    ((3, 4.5, 24, 0, 0, 2), (3, 3.67, 24, 0, 0, 1)),
    ((5, 4, 40, 1, 1, 2), (5, 6, 40, 1, 1, 1), (5, 6, 40, 1, 1, 1)),
    ((5, 3, 48, 1, 1, 1), (5, 3, 48, 1, 1, 1)),
    ((5, 6, 96, 1, 1, 2), (5, 6, 96, 1, 1, 1), (5, 6, 96, 1, 1, 1)),
)


def eights(channels: float) -> int:
    """The multiple of 8 next to a width, one more where a tenth of it would be lost."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near if near >= 0.9 * channels else near + 8


class Conv(nn.Conv2d):
    """A convolution padded by half of its kernel, or as TensorFlow's SAME."""

    def __init__(self, entering, leaving, kernel, stride, tf_padding, groups=1, bias=False):
        half = 0 if tf_padding else kernel // 2
        super().__init__(entering, leaving, kernel, stride, half, groups=groups, bias=bias)
        self.tf_padding = tf_padding

    def forward(self, x):
        return super().forward(F.pad(x, self._sides(x)) if self.tf_padding else x)

    def _sides(self, x) -> list[int]:
        """Left, right, above, below: what an odd number leaves over stands behind."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        over = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[:1:-1]]
        return [side for n in over for side in (n // 2, n - n // 2)]


class Gate(nn.Module):
    """Each channel times a number in [0, 1] that the means of all channels give."""

    def __init__(self, channels: int):
        super().__init__()
        inside = eights(channels / 4)
        self.conv_reduce = nn.Conv2d(channels, inside, 1)
        self.conv_expand = nn.Conv2d(inside, channels, 1)

    def forward(self, x):
        y = F.relu(self.conv_reduce(x.mean((2, 3), keepdim=True)))
        return x * F.hardsigmoid(self.conv_expand(y))


class Block(nn.Module):
    """Expand (but where the expansion is 1), convolve each channel, gate, reduce, add."""

    def __init__(self, entering, leaving, row, activation, tf_padding, epsilon):
        super().__init__()
        kernel, expansion, _, gates, _, stride = row
        inner = eights(entering * expansion)
        self.activation, self.expands = activation, expansion != 1
        self.adds = stride == 1 and entering == leaving
        last = Conv(inner, leaving, 1, 1, tf_padding)
        if self.expands:
            self.conv_pw = Conv(entering, inner, 1, 1, tf_padding)
            self.bn1 = nn.BatchNorm2d(inner, epsilon)
        self.conv_dw = Conv(inner, inner, kernel, stride, tf_padding, groups=inner)
        norms = [nn.BatchNorm2d(width, epsilon) for width in (inner, leaving)]
        if self.expands:
            self.bn2, self.bn3 = norms
            self.conv_pwl = last
        else:
            self.bn1, self.bn2 = norms
            self.conv_pw = last
        self.se = Gate(inner) if gates else nn.Identity()

    def forward(self, x):
        y = x
        if self.expands:
            y = self.activation(self.bn1(self.conv_pw(y)))
            y = self.se(self.activation(self.bn2(self.conv_dw(y))))
            y = self.bn3(self.conv_pwl(y))
        else:
            y = self.se(self.activation(self.bn1(self.conv_dw(y))))
            y = self.bn2(self.conv_pw(y))
        return x + y if self.adds else y


class Last(nn.Module):
    """The 1x1 convolution behind the blocks, which timm counts as one of them."""

    def __init__(self, entering: int, leaving: int, epsilon: float):
        super().__init__()
        self.conv = nn.Conv2d(entering, leaving, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(leaving, epsilon)

    def forward(self, x):
        return F.hardswish(self.bn1(self.conv(x)))


class Network(nn.Module):
    """What is tapped: pixels float32 [B, 3, H, W] -> maps [B, C, h, w], and `last` [B, D].

    A subclass has conv_stem, bn1, an activation behind them, and conv_head; `tapped` gives its
    stages of blocks, `last` what is behind them, which `behead` takes off.
    """

    activation = staticmethod(F.hardswish)

    def cut(self, depth: int) -> None:
        """Take off what is behind a block."""
        for rows in self.tapped():
            kept = min(depth, len(rows))
            del rows[kept:]
            depth -= kept
        self.behead()

    def forward(self, pixels) -> dict:
        """The taps by depth: 0 the stem, then every block, and "last" where it is not cut off."""
        x = self.activation(self.bn1(self.conv_stem(pixels)))
        taps = {0: x}
        for block in (block for rows in self.tapped() for block in rows):
            x = block(x)
            taps[len(taps)] = x
        return taps if self.conv_head is None else {**taps, "last": self.last(x)}


class MobileNetV3(Network):
    """See `Network`.

    Args:
        size: "large" or "small".
        width_multiplier: channels over the paper's.
        tf_padding: pad as TensorFlow's SAME.
        batch_norm_eps: of every BatchNorm.
    """

    def __init__(self, size, width_multiplier, tf_padding, batch_norm_eps):
        super().__init__()
        stages, behind, summary = {"large": (_LARGE, 960, 1280), "small": (_SMALL, 576, 1024)}[size]
        x = 16 if width_multiplier < 0.75 else eights(16 * width_multiplier)
        self.conv_stem = Conv(3, x, 3, 2, tf_padding)
        self.bn1 = nn.BatchNorm2d(x, batch_norm_eps)
        self.blocks = nn.Sequential()
        for rows in stages:
            self.blocks.append(nn.Sequential())
            for row in rows:
                leaving = eights(row[2] * width_multiplier)
                activation = F.hardswish if row[4] else F.relu
                block = Block(x, leaving, row, activation, tf_padding, batch_norm_eps)
                self.blocks[-1].append(block)
                x = leaving
        leaving = eights(behind * width_multiplier)
        self.blocks.append(nn.Sequential(Last(x, leaving, batch_norm_eps)))
        self.conv_head = nn.Conv2d(leaving, summary, 1)

    def tapped(self) -> nn.Sequential:
        """All stages but the last convolution."""
        return self.blocks[:-1]

    def behead(self) -> None:
        """Take the last convolution and the head off."""
        self.blocks[-1] = nn.Sequential()
        self.conv_head = None

    def last(self, x):
        """The head behind the pooling."""
        x = self.blocks[-1](x).mean((2, 3), keepdim=True)
        return F.hardswish(self.conv_head(x)).flatten(1)
