"""MobileNetV3 (Howard et al. 2019, tables 1 and 2), block by block as timm numbers it.

It gives the outputs of timm's MobileNetV3 on the same weights; `transformers` has none of its own.
"""

import keras
import keras_hub
from keras import layers

from fusion_keras.backbones.depthwise import DepthwiseConv2D
from fusion_keras.backbones.initializers import HeNormal
from fusion_keras.backbones.mobilenet_v2 import make_divisible
from fusion_keras.backbones.pointwise import BatchNormalization, PointwiseConv2D
from fusion_keras.backbones.timm_files import FromTimm
from fusion_keras.errors import UsageError

# Of each stage its blocks: (how many, kernel, stride of the first, expansion, channels, whether
# they gate their channels, activation).
_STAGES = {
    "large": (
        ((1, 3, 1, 1, 16, False, "relu"),),
        ((1, 3, 2, 4, 24, False, "relu"), (1, 3, 1, 3, 24, False, "relu")),
        ((3, 5, 2, 3, 40, True, "relu"),),
        (
            (1, 3, 2, 6, 80, False, "hard_silu"),
            (1, 3, 1, 2.5, 80, False, "hard_silu"),
            (2, 3, 1, 2.3, 80, False, "hard_silu"),
        ),
        ((2, 3, 1, 6, 112, True, "hard_silu"),),
        ((3, 5, 2, 6, 160, True, "hard_silu"),),
    ),
    "small": (
        ((1, 3, 2, 1, 16, True, "relu"),),
        ((1, 3, 2, 4.5, 24, False, "relu"), (1, 3, 1, 3.67, 24, False, "relu")),
        ((1, 5, 2, 4, 40, True, "hard_silu"), (2, 5, 1, 6, 40, True, "hard_silu")),
        ((2, 5, 1, 3, 48, True, "hard_silu"),),
        ((3, 5, 2, 6, 96, True, "hard_silu"),),
    ),
}
# Channels of the convolution behind the blocks, and of the one behind the pooling, which keeps
# them at every width.
_HEAD = {"large": (960, 1280), "small": (576, 1024)}
_STEM_CHANNELS, _DIVISOR = 16, 8
# Below this width the stem keeps its channels.
_SCALED_STEM = 0.75

# timm's name -> arguments; the tf_* have TensorFlow's padding and epsilon.
_ARCHITECTURES = {
    f"mobilenetv3_{size}_{percent:03}": {"size": size, "width_multiplier": percent / 100}
    for size, widths in {"small": (50, 75, 100), "large": (75, 100)}.items()
    for percent in widths
}
_ARCHITECTURES |= {
    f"tf_{name}": {**arguments, "tf_padding": True, "batch_norm_eps": 1e-3}
    for name, arguments in _ARCHITECTURES.items()
    if name != "mobilenetv3_small_050"
}


@keras.saving.register_keras_serializable(package="fusion_keras")
class MobileNetV3Backbone(FromTimm, keras_hub.models.Backbone):
    """MobileNetV3 as a functional graph, channels last.

    Input: float [B, H, W, channels], already scaled as the checkpoint wants it.
    Output: the summary.

    Attributes:
        taps: {0: stem, 1..N: output of block k, counted through all stages}, each [B, h, w, C].
        summary: [B, D], the last block's 1x1 convolution (BatchNorm, hard swish) averaged over the
            image, then the head's 1x1 convolution and hard swish, which the classifier reads.
        num_depths: N: 15 of large, 11 of small.
    """

    # Its blocks are MobileNetV2's, some with a gate, of which 16 the published depths are out of.
    out_of = 16
    architectures = _ARCHITECTURES

    def __init__(
        self,
        size="large",
        width_multiplier=1.0,
        image_shape=(224, 224, 3),
        tf_padding=False,
        batch_norm_eps=1e-5,
        batch_norm_momentum=0.9,
        dtype=None,
        **kwargs,
    ):
        """Build the graph.

        Args:
            size: "large" or "small".
            width_multiplier: channels over the paper's.
            image_shape: (height, width, channels).
            tf_padding: pad strided convolutions as TensorFlow's SAME (timm's architectures tf_*),
                else by half of the kernel at every edge.
            batch_norm_eps: BatchNorm's epsilon, 1e-3 of timm's tf_*.
            batch_norm_momentum: share kept of the moving statistics at each step.
            dtype: dtype policy of every layer.

        Raises:
            UsageError: a size, width or image shape that cannot be.
        """
        _check(size, width_multiplier, image_shape)
        unit = Unit(tf_padding, batch_norm_eps, batch_norm_momentum, dtype)

        def width(channels):
            return rounded(channels * width_multiplier)

        # === Stem ===
        image = keras.Input(shape=tuple(image_shape), name="image")
        stem = _STEM_CHANNELS if width_multiplier < _SCALED_STEM else width(_STEM_CHANNELS)
        x = unit.convolved(image, stem, 3, 2, name="conv_stem")
        x = unit.normed(x, "hard_silu", name="bn1")

        # === Blocks ===
        taps = {0: x, **blocks(x, unit, _STAGES[size], width)}
        x = taps[len(taps) - 1]

        # === Summary ===
        behind, summary_channels = _HEAD[size]
        name = f"blocks.{len(_STAGES[size])}.0"
        x = unit.convolved(x, width(behind), name=f"{name}.conv")
        x = unit.normed(x, "hard_silu", name=f"{name}.bn1")
        x = layers.GlobalAveragePooling2D(keepdims=True, name="global_pool", dtype=dtype)(x)
        x = unit.convolved(x, summary_channels, bias=True, name="conv_head")
        x = unit.activated(x, "hard_silu", name="act2")
        summary = layers.Flatten(name="flatten", dtype=dtype)(x)  # [B, D]

        super().__init__(inputs=image, outputs=summary, dtype=dtype, **kwargs)
        self.taps = taps
        self.summary = summary
        self.num_depths = len(taps) - 1
        self._arguments = {
            "size": size,
            "width_multiplier": width_multiplier,
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
        return sum(row[0] for stage in _STAGES[arguments.get("size", "large")] for row in stage)


def rounded(channels: float) -> int:
    """Channels as a multiple of eight."""
    return make_divisible(channels, _DIVISOR, _DIVISOR)


class Unit:
    """Convolution, BatchNorm and activation; padding as PyTorch has it or as TensorFlow's SAME."""

    def __init__(self, tf_padding, epsilon, momentum, dtype):
        self.tf_padding = tf_padding
        self.norm = {"epsilon": epsilon, "momentum": momentum, "dtype": dtype}
        self.dtype = dtype

    def convolved(self, x, filters, kernel=1, stride=1, bias=False, *, name):
        """Return [B, h, w, filters]; filters None convolves each channel by itself."""
        common = {"strides": stride, "use_bias": bias, "dtype": self.dtype, "name": name}
        # Where nothing strides, both paddings are one.
        same = stride == 1 or self.tf_padding
        common["padding"] = "same" if same else "valid"
        if not same:
            x = layers.ZeroPadding2D(kernel // 2, dtype=self.dtype, name=f"{name}.pad")(x)
        if filters is None:
            # Only its own kernel x kernel pixels reach a channel's output.
            start = HeNormal(fan_in=kernel**2)
            return DepthwiseConv2D(kernel, depthwise_initializer=start, **common)(x)
        kind = PointwiseConv2D if kernel == 1 else layers.Conv2D
        return kind(filters, kernel, kernel_initializer=HeNormal(), **common)(x)

    def normed(self, x, function=None, *, name):
        """BatchNorm, and the activation if there is one."""
        x = BatchNormalization(**self.norm, name=name)(x)
        return self.activated(x, function, name=f"{name}.activation") if function else x

    def activated(self, x, function, *, name):
        """An activation, "relu6" or one of Keras."""
        if function == "relu6":
            return layers.ReLU(6.0, dtype=self.dtype, name=name)(x)
        return layers.Activation(function, dtype=self.dtype, name=name)(x)


def blocks(x, unit, stages, width) -> dict:
    """Every block's output, numbered from 1 through all stages.

    Args:
        x: the stem's output [B, h, w, C].
        unit: what they are made of.
        stages: rows as in `_STAGES`; the first stage's blocks have no expansion.
        width: channels of the table -> channels here.
    """
    taps = {}
    for stage, rows in enumerate(stages):
        index = 0
        for count, kernel, stride, expansion, channels, gates, function in rows:
            for repeat in range(count):
                block = separable if stage == 0 else inverted_residual
                x = block(
                    x,
                    unit,
                    inner=rounded(x.shape[-1] * expansion),
                    filters=width(channels),
                    kernel=kernel,
                    stride=stride if repeat == 0 else 1,
                    gates=gates,
                    function=function,
                    name=f"blocks.{stage}.{index}",
                )
                index += 1
                taps[len(taps) + 1] = x
    return taps


def separable(x, unit, inner, filters, kernel, stride, gates, function, name):
    """Convolve each channel, gate, mix the channels; add the input where the shapes agree."""
    y = unit.convolved(x, None, kernel, stride, name=f"{name}.conv_dw")
    y = unit.normed(y, function, name=f"{name}.bn1")
    y = gated(y, unit, f"{name}.se") if gates else y
    y = unit.convolved(y, filters, name=f"{name}.conv_pw")
    y = unit.normed(y, name=f"{name}.bn2")
    return _added(x, y, unit, stride, name)


def inverted_residual(x, unit, inner, filters, kernel, stride, gates, function, name):
    """Expand, convolve each channel, gate, reduce; add the input where the shapes agree."""
    y = unit.convolved(x, inner, name=f"{name}.conv_pw")
    y = unit.normed(y, function, name=f"{name}.bn1")
    y = unit.convolved(y, None, kernel, stride, name=f"{name}.conv_dw")
    y = unit.normed(y, function, name=f"{name}.bn2")
    y = gated(y, unit, f"{name}.se") if gates else y
    y = unit.convolved(y, filters, name=f"{name}.conv_pwl")
    y = unit.normed(y, name=f"{name}.bn3")
    return _added(x, y, unit, stride, name)


def _added(x, y, unit, stride, name):
    if stride != 1 or x.shape[-1] != y.shape[-1]:
        return y
    return layers.Add(dtype=unit.dtype, name=f"{name}.add")([x, y])


def gated(x, unit, name):
    """Squeeze and excitation (Hu et al. 2018) with a hard sigmoid, inside a quarter as wide."""
    y = layers.GlobalAveragePooling2D(keepdims=True, dtype=unit.dtype, name=f"{name}.squeeze")(x)
    y = unit.convolved(y, rounded(x.shape[-1] / 4), bias=True, name=f"{name}.conv_reduce")
    y = unit.activated(y, "relu", name=f"{name}.act1")
    y = unit.convolved(y, x.shape[-1], bias=True, name=f"{name}.conv_expand")
    y = unit.activated(y, "hard_sigmoid", name=f"{name}.gate")
    return layers.Multiply(dtype=unit.dtype, name=f"{name}.gated")([x, y])


def _check(size, width_multiplier, image_shape):
    """Refuse what the graph cannot be. Raises UsageError."""
    if size not in _STAGES:
        raise UsageError(f"got size {size!r}, wanted one of {', '.join(_STAGES)}.")
    if not width_multiplier > 0:
        raise UsageError(f"got width_multiplier {width_multiplier}, wanted one above 0.")
    if len(image_shape) != 3:
        raise UsageError(f"got image_shape {image_shape}, wanted (height, width, channels).")
