"""EfficientNet-Lite (Liu 2020, google's repository `tpu`), block by block as timm numbers it.

EfficientNet without gates, with ReLU6, its stem and head of one width at every size. It gives the
outputs of timm's on the same weights. Its blocks are MobileNetV3's, not those of `efficientnet.py`:
timm names and pads them so, and `transformers` has none without gates.
"""

import math

import keras
import keras_hub
from keras import layers

from fusion_keras.backbones.mobilenet_v3 import Unit, blocks, rounded
from fusion_keras.backbones.timm_files import FromTimm
from fusion_keras.errors import UsageError

# Of each stage: how many blocks, kernel, stride of the first, expansion, channels.
_STAGES = (
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
_STEM_CHANNELS, _SUMMARY_CHANNELS = 32, 1280
# Channels and blocks over Lite0's.
_COEFFICIENTS = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8))
_ARCHITECTURES = {
    f"efficientnet_lite{number}": {"width_coefficient": width, "depth_coefficient": depth}
    for number, (width, depth) in enumerate(_COEFFICIENTS)
}
_ARCHITECTURES |= {
    f"tf_{name}": {**arguments, "tf_padding": True, "batch_norm_eps": 1e-3}
    for name, arguments in _ARCHITECTURES.items()
}


def _repeats(depth_coefficient: float) -> list[int]:
    """How many blocks each stage has; the first and the last keep theirs."""
    scaled = [math.ceil(depth_coefficient * row[0]) for row in _STAGES]
    return [_STAGES[0][0], *scaled[1:-1], _STAGES[-1][0]]


@keras.saving.register_keras_serializable(package="fusion_keras")
class EfficientNetLiteBackbone(FromTimm, keras_hub.models.Backbone):
    """EfficientNet-Lite as a functional graph, channels last.

    Input: float [B, H, W, channels], already scaled as the checkpoint wants it.
    Output: the summary.

    Attributes:
        taps: {0: stem, 1..N: output of block k, counted through all stages}, each [B, h, w, C].
        summary: [B, D], the last 1x1 convolution (BatchNorm, ReLU6) averaged over the image.
        num_depths: N: 16 in Lite0.
    """

    # Its blocks are MobileNetV2's, and in Lite0 as many.
    out_of = 16
    architectures = _ARCHITECTURES

    def __init__(
        self,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        image_shape=(224, 224, 3),
        tf_padding=False,
        batch_norm_eps=1e-5,
        batch_norm_momentum=0.9,
        dtype=None,
        **kwargs,
    ):
        """Build the graph, Lite0 unless the arguments say otherwise.

        Args:
            width_coefficient, depth_coefficient: channels and blocks over Lite0's.
            image_shape: (height, width, channels).
            tf_padding: pad strided convolutions as TensorFlow's SAME (timm's architectures tf_*),
                else by half of the kernel at every edge.
            batch_norm_eps: BatchNorm's epsilon, 1e-3 of timm's tf_*.
            batch_norm_momentum: share kept of the moving statistics at each step.
            dtype: dtype policy of every layer.

        Raises:
            UsageError: a coefficient or image shape that cannot be.
        """
        if not min(width_coefficient, depth_coefficient) > 0:
            raise UsageError(
                f"got width_coefficient {width_coefficient} and depth_coefficient "
                f"{depth_coefficient}, wanted both above 0."
            )
        if len(image_shape) != 3:
            raise UsageError(f"got image_shape {image_shape}, wanted (height, width, channels).")
        unit = Unit(tf_padding, batch_norm_eps, batch_norm_momentum, dtype)

        # === Stem ===
        image = keras.Input(shape=tuple(image_shape), name="image")
        x = unit.convolved(image, _STEM_CHANNELS, 3, 2, name="conv_stem")
        x = unit.normed(x, "relu6", name="bn1")

        # === Blocks ===
        stages = [
            ((count, *row[1:], False, "relu6"),)
            for count, row in zip(_repeats(depth_coefficient), _STAGES, strict=True)
        ]
        taps = {0: x, **blocks(x, unit, stages, lambda c: rounded(c * width_coefficient))}

        # === Summary ===
        x = unit.convolved(taps[len(taps) - 1], _SUMMARY_CHANNELS, name="conv_head")
        x = unit.normed(x, "relu6", name="bn2")
        summary = layers.GlobalAveragePooling2D(name="global_pool", dtype=dtype)(x)  # [B, D]

        super().__init__(inputs=image, outputs=summary, dtype=dtype, **kwargs)
        self.taps = taps
        self.summary = summary
        self.num_depths = len(taps) - 1
        self._arguments = {
            "width_coefficient": width_coefficient,
            "depth_coefficient": depth_coefficient,
            "image_shape": tuple(image_shape),
            "tf_padding": tf_padding,
            "batch_norm_eps": batch_norm_eps,
            "batch_norm_momentum": batch_norm_momentum,
        }

    def get_config(self):
        """Return the arguments of the constructor."""
        return {**super().get_config(), **self._arguments}

    @classmethod
    def depths_of(cls, arguments: dict) -> int:
        """The number of blocks of what arguments of the constructor describe."""
        return sum(_repeats(arguments.get("depth_coefficient", 1.0)))
