"""EfficientNet (Tan and Le 2019), block by block as Hugging Face numbers it.

It gives the outputs of `transformers`' EfficientNetModel on the same weights.
"""

import math
from pathlib import Path

import keras
import keras_hub
from keras import layers

from fusion_keras.backbones.backbone_weights import convolutions
from fusion_keras.backbones.depthwise import DepthwiseConv2D
from fusion_keras.backbones.encoder import activation
from fusion_keras.backbones.hf_files import Weights, read_config
from fusion_keras.backbones.initializers import HeNormal
from fusion_keras.backbones.layouts import fill
from fusion_keras.backbones.mobilenet_v2 import make_divisible
from fusion_keras.backbones.pointwise import BatchNormalization, PointwiseConv2D
from fusion_keras.backbones.sources import FromPreset
from fusion_keras.errors import UsageError

# What B0 to B7 share, a number for each stage (paper, table 1): config.json fields that are
# arguments of the same name here, and their defaults there.
_STAGES = {
    "kernel_sizes": (3, 3, 5, 3, 5, 5, 3),
    "in_channels": (32, 16, 24, 40, 80, 112, 192),
    "out_channels": (16, 24, 40, 80, 112, 192, 320),
    "strides": (1, 2, 2, 2, 1, 2, 1),
    "num_block_repeats": (1, 2, 2, 3, 3, 4, 1),
    "expand_ratios": (1, 6, 6, 6, 6, 6, 6),
}
_HF_FIELDS = {
    "width_coefficient": 2.0,
    "depth_coefficient": 3.1,
    "depth_divisor": 8,
    "depthwise_padding": (),
    "squeeze_expansion_ratio": 0.25,
    "hidden_act": "swish",
    "batch_norm_eps": 1e-3,
    "drop_connect_rate": 0.2,
    **_STAGES,
}
_STEM_CHANNELS, _SUMMARY_CHANNELS = 32, 1280


def _repeats(count: int, depth_coefficient: float) -> int:
    """The blocks of a stage that has `count` in B0."""
    return math.ceil(depth_coefficient * count)


@keras.saving.register_keras_serializable(package="fusion_keras")
class EfficientNetBackbone(FromPreset, keras_hub.models.Backbone):
    """EfficientNet as a functional graph, channels last.

    Input: float [B, H, W, channels], already scaled as the checkpoint wants it.
    Output: the summary.

    Attributes:
        taps: {0: stem, 1..N: output of block k, counted through all stages}, each [B, h, w, C].
        summary: [B, D], the last 1x1 convolution (BatchNorm, SiLU) averaged over the image.
        num_depths: N: 16 in B0.
    """

    model_type = "efficientnet"
    # Its blocks are MobileNetV2's with a gate, and in B0 as many.
    out_of = 16

    def __init__(
        self,
        image_shape=(224, 224, 3),
        width_coefficient=1.0,
        depth_coefficient=1.0,
        depth_divisor=8,
        kernel_sizes=_STAGES["kernel_sizes"],
        in_channels=_STAGES["in_channels"],
        out_channels=_STAGES["out_channels"],
        strides=_STAGES["strides"],
        num_block_repeats=_STAGES["num_block_repeats"],
        expand_ratios=_STAGES["expand_ratios"],
        depthwise_padding=(),
        squeeze_expansion_ratio=0.25,
        hidden_act="swish",
        batch_norm_eps=1e-3,
        drop_connect_rate=0.2,
        batch_norm_momentum=0.9,
        dtype=None,
        **kwargs,
    ):
        """Build the graph, B0 unless the arguments say otherwise.

        Arguments carry the names of Hugging Face's config fields.

        Args:
            image_shape: (height, width, channels).
            width_coefficient, depth_coefficient: channels and blocks over B0's.
            depth_divisor: what channels are a multiple of.
            kernel_sizes, in_channels, out_channels, strides, num_block_repeats, expand_ratios: a
                number for each stage, before the coefficients.
            depthwise_padding: the numbers of strided blocks that pad all edges alike; the others
                pad more behind than before.
            squeeze_expansion_ratio: channels inside a block's gate over those that enter the block.
            hidden_act: Hugging Face's name of the activation.
            batch_norm_eps: BatchNorm's epsilon.
            drop_connect_rate: dropout in front of the last block's addition, less in the others.
            batch_norm_momentum: share kept of the moving statistics at each step.
            dtype: dtype policy of every layer.

        Raises:
            UsageError: a hidden_act, image shape or stages that cannot be.
        """
        stages = {
            "kernel_sizes": tuple(kernel_sizes),
            "in_channels": tuple(in_channels),
            "out_channels": tuple(out_channels),
            "strides": tuple(strides),
            "num_block_repeats": tuple(num_block_repeats),
            "expand_ratios": tuple(expand_ratios),
        }
        _check(stages, image_shape)
        unit = Unit(activation(hidden_act), batch_norm_eps, batch_norm_momentum, dtype)
        repeats = [_repeats(count, depth_coefficient) for count in num_block_repeats]

        def width(channels):
            return make_divisible(channels * width_coefficient, depth_divisor, depth_divisor)

        # === Stem ===
        image = keras.Input(shape=tuple(image_shape), name="image")
        x = unit.padded(image, 3, uneven=True, name="embeddings")
        x = unit.convolved(x, width(_STEM_CHANNELS), 3, 2, name="embeddings.convolution")
        x = unit.normed(x, "embeddings.batchnorm")
        taps = {0: x}

        # === Blocks ===
        for stage, count in enumerate(repeats):
            kernel, stride, expansion = (
                stages[name][stage] for name in ("kernel_sizes", "strides", "expand_ratios")
            )
            for index in range(count):
                number = len(taps) - 1
                entering = width(in_channels[stage]) if index == 0 else x.shape[-1]
                x = block(
                    x,
                    unit,
                    inner=entering * expansion,
                    filters=width(out_channels[stage]),
                    kernel=kernel,
                    stride=stride if index == 0 else 1,
                    uneven=number not in depthwise_padding,
                    gate=max(1, int(entering * squeeze_expansion_ratio)),
                    adds=index > 0,
                    dropout=drop_connect_rate * number / sum(repeats),
                    name=f"encoder.blocks.{number}",
                )
                taps[number + 1] = x

        # === Summary ===
        x = unit.convolved(x, width(_SUMMARY_CHANNELS), name="encoder.top_conv")
        x = unit.normed(x, "encoder.top_bn")
        summary = layers.GlobalAveragePooling2D(name="pooler", dtype=dtype)(x)  # [B, D]

        super().__init__(inputs=image, outputs=summary, dtype=dtype, **kwargs)
        self.taps = taps
        self.summary = summary
        self.num_depths = len(taps) - 1
        self._arguments = {
            "image_shape": tuple(image_shape),
            "width_coefficient": width_coefficient,
            "depth_coefficient": depth_coefficient,
            "depth_divisor": depth_divisor,
            **stages,
            "depthwise_padding": tuple(depthwise_padding),
            "squeeze_expansion_ratio": squeeze_expansion_ratio,
            "hidden_act": hidden_act,
            "batch_norm_eps": batch_norm_eps,
            "drop_connect_rate": drop_connect_rate,
            "batch_norm_momentum": batch_norm_momentum,
        }

    def get_config(self):
        """Return the arguments of the constructor."""
        return {**super().get_config(), **self._arguments}

    @classmethod
    def count_depths(cls, config: dict) -> int:
        """The number of blocks of what a config describes; see `FromPreset`."""
        described = config.get("config", config)
        # Hugging Face's defaults are B7's, ours B0's.
        theirs = "model_type" in config
        deeper = described.get(
            "depth_coefficient", _HF_FIELDS["depth_coefficient"] if theirs else 1
        )
        stages = described.get("num_block_repeats", _STAGES["num_block_repeats"])
        return sum(_repeats(count, deeper) for count in stages)

    @classmethod
    def width_of(cls, config: dict) -> int:
        """0: the stages differ."""
        return 0

    @classmethod
    def from_hf(cls, directory: str | Path, image_shape=None, **kwargs) -> "EfficientNetBackbone":
        """Build from config.json and load model.safetensors of a Hugging Face directory.

        Args:
            directory: holds both files; the tensors may stand under "efficientnet.".
            image_shape: (height, width, channels); None takes the checkpoint's own.
            **kwargs: constructor arguments that replace the config's.

        Raises:
            UsageError: another model type, an architecture this class has not, or weights
                that are missing, pickled, cut short or of other shapes.
        """
        config = read_config(directory, cls.model_type)
        if config.get("pooling_type", "mean") != "mean":
            raise UsageError(
                f"got pooling_type {config['pooling_type']!r} in {directory}, wanted 'mean', the "
                "published models' own."
            )
        fields = {field: config.get(field, default) for field, default in _HF_FIELDS.items()}
        shape = image_shape or cls.image_shape_of(config)
        backbone = cls(**{**fields, "image_shape": shape, **kwargs})
        fill(convolutions(backbone), Weights(directory, prefix=cls.model_type))
        return backbone


class Unit:
    """Padding, convolution, BatchNorm and activation."""

    def __init__(self, function, epsilon, momentum, dtype):
        self.function = function
        self.norm = {"epsilon": epsilon, "momentum": momentum, "dtype": dtype}
        self.dtype = dtype

    def padded(self, x, kernel, uneven, name):
        """Zeros around a map that a strided convolution takes; `uneven`: one less before."""
        before = kernel // 2 - 1 if uneven else kernel // 2
        around = ((before, kernel // 2),) * 2
        return layers.ZeroPadding2D(around, dtype=self.dtype, name=f"{name}.pad")(x)

    def convolved(self, x, filters, kernel=1, stride=1, bias=False, *, name):
        """Return [B, h, w, filters]; filters None convolves each channel by itself."""
        common = {"strides": stride, "use_bias": bias, "dtype": self.dtype, "name": name}
        common["padding"] = "same" if stride == 1 else "valid"
        if filters is None:
            # Only its own kernel x kernel pixels reach a channel's output.
            start = HeNormal(fan_in=kernel**2)
            return DepthwiseConv2D(kernel, depthwise_initializer=start, **common)(x)
        kind = PointwiseConv2D if kernel == 1 else layers.Conv2D
        return kind(filters, kernel, kernel_initializer=HeNormal(), **common)(x)

    def normed(self, x, name, activate=True):
        """BatchNorm and the activation."""
        x = BatchNormalization(**self.norm, name=name)(x)
        return self.activated(x, f"{name}.activation") if activate else x

    def activated(self, x, name, function=None):
        """The activation, or another one."""
        return layers.Activation(function or self.function, dtype=self.dtype, name=name)(x)


def block(x, unit, inner, filters, kernel, stride, uneven, gate, adds, dropout, name):
    """Expand, convolve each channel, gate the channels, reduce; add the input if `adds`."""
    shortcut = x
    if inner != x.shape[-1]:
        x = unit.convolved(x, inner, name=f"{name}.expansion.expand_conv")
        x = unit.normed(x, f"{name}.expansion.expand_bn")
    if stride != 1:
        x = unit.padded(x, kernel, uneven, f"{name}.depthwise_conv")
    x = unit.convolved(x, None, kernel, stride, name=f"{name}.depthwise_conv.depthwise_conv")
    x = unit.normed(x, f"{name}.depthwise_conv.depthwise_norm")
    x = gated(x, unit, gate, f"{name}.squeeze_excite")
    x = unit.convolved(x, filters, name=f"{name}.projection.project_conv")
    x = unit.normed(x, f"{name}.projection.project_bn", activate=False)
    if adds:
        x = layers.Dropout(dropout, dtype=unit.dtype, name=f"{name}.projection.dropout")(x)
        x = layers.Add(dtype=unit.dtype, name=f"{name}.add")([x, shortcut])
    return x


def gated(x, unit, width, name):
    """Squeeze and excitation (Hu et al. 2018): each channel times a number in (0, 1)."""
    y = layers.GlobalAveragePooling2D(keepdims=True, dtype=unit.dtype, name=f"{name}.squeeze")(x)
    y = unit.convolved(y, width, bias=True, name=f"{name}.reduce")
    y = unit.activated(y, f"{name}.act_reduce")
    y = unit.convolved(y, x.shape[-1], bias=True, name=f"{name}.expand")
    y = unit.activated(y, f"{name}.act_expand", "sigmoid")
    return layers.Multiply(dtype=unit.dtype, name=f"{name}.gate")([x, y])


def _check(stages, image_shape):
    """Refuse what the graph cannot be. Raises UsageError."""
    lengths = {name: len(values) for name, values in stages.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        found = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise UsageError(f"got {found}, wanted a number of each for every stage.")
    if not set(stages["strides"]) <= {1, 2}:
        raise UsageError(f"got strides {list(stages['strides'])}, wanted 1 or 2 for each stage.")
    if len(image_shape) != 3:
        raise UsageError(f"got image_shape {image_shape}, wanted (height, width, channels).")
