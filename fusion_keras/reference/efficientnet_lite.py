"""EfficientNet-Lite in PyTorch, its modules named as timm names them; see `mobilenet_v3.py`."""

import math

import torch.nn.functional as F
from torch import nn

from fusion_keras.reference.mobilenet_v3 import Block, Conv, Network, eights

# Of each stage of Lite0: blocks, kernel, expansion, channels, stride of the first.
_STAGES = (
    *((1, 3, 1, 16, 1), (2, 3, 6, 24, 2), (2, 5, 6, 40, 2), (3, 3, 6, 80, 2)),
    *((3, 5, 6, 112, 1), (4, 5, 6, 192, 2), (1, 3, 6, 320, 1)),
)
_HEAD = 1280


class EfficientNetLite(Network):
    """See `Network`.

    Args:
        width_coefficient, depth_coefficient: channels and blocks over Lite0's.
        tf_padding: pad as TensorFlow's SAME.
        batch_norm_eps: of every BatchNorm.
    """

    activation = staticmethod(F.relu6)

    def __init__(self, width_coefficient, depth_coefficient, tf_padding, batch_norm_eps):
        super().__init__()
        x = 32
        self.conv_stem = Conv(3, x, 3, 2, tf_padding)
        self.bn1 = nn.BatchNorm2d(x, batch_norm_eps)
        self.blocks = nn.Sequential()
        for stage, (count, kernel, expansion, channels, stride) in enumerate(_STAGES):
            self.blocks.append(nn.Sequential())
            leaving = eights(channels * width_coefficient)
            # The first and the last stage do not grow.
            deeper = depth_coefficient if 0 < stage < len(_STAGES) - 1 else 1
            for index in range(math.ceil(count * deeper)):
                row = (kernel, expansion, channels, 0, 0, stride if index == 0 else 1)
                block = Block(x, leaving, row, F.relu6, tf_padding, batch_norm_eps)
                self.blocks[-1].append(block)
                x = leaving
        self.conv_head = nn.Conv2d(x, _HEAD, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(_HEAD, batch_norm_eps)

    def tapped(self) -> nn.Sequential:
        """All stages."""
        return self.blocks

    def behead(self) -> None:
        """Take the last convolution off."""
        self.conv_head = self.bn2 = None

    def last(self, x):
        """The last convolution's mean over the image."""
        return F.relu6(self.bn2(self.conv_head(x))).mean((2, 3))
