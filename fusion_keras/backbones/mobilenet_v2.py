"""MobileNetV2 (Sandler et al. 2018, table 2), tap by tap as Hugging Face numbers it.

keras-hub's MobileNet is a V3: it pads symmetrically, uses ReLU for ReLU6, a hard swish at
the end and another BatchNorm epsilon. This one gives the outputs of `transformers`'
MobileNetV2Model on the same weights.
"""

from pathlib import Path

import keras
import keras_hub
from keras import layers

from fusion_keras.backbones.backbone_weights import convolutions
from fusion_keras.backbones.depthwise import DepthwiseConv2D
from fusion_keras.backbones.hf_files import Weights, read_config
from fusion_keras.backbones.initializers import HeNormal
from fusion_keras.backbones.layouts import fill
from fusion_keras.backbones.pointwise import BatchNormalization, PointwiseConv2D
from fusion_keras.backbones.sources import FromPreset
from fusion_keras.errors import UsageError

# (channels before the width multiplier, stride) of blocks 1..16 (paper, table 2, one row
# per block); block k is Hugging Face's layer.<k-1>.
_BLOCKS = (
    *((24, 2), (24, 1)),
    *((32, 2), (32, 1), (32, 1)),
    *((64, 2), (64, 1), (64, 1), (64, 1)),
    *((96, 1), (96, 1), (96, 1)),
    *((160, 2), (160, 1), (160, 1)),
    (320, 1),
)
_STEM_CHANNELS, _STEM_OUTPUT, _SUMMARY_CHANNELS = 32, 16, 1280

# config.json fields that are arguments of the same name here, and their defaults there.
_HF_FIELDS = {
    "depth_multiplier": 1.0,
    "depth_divisible_by": 8,
    "min_depth": 8,
    "expand_ratio": 6.0,
    "first_layer_is_expansion": True,
    "finegrained_output": True,
    "tf_padding": True,
    "layer_norm_eps": 0.001,
    "output_stride": 32,
    "hidden_act": "relu6",
}


def make_divisible(value: float, divisor: int, smallest: int) -> int:
    """Round to a multiple of `divisor`, at least `smallest`, never losing more than 10 %."""
    rounded = max(smallest, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@keras.saving.register_keras_serializable(package="fusion_keras")
class MobileNetV2Backbone(FromPreset, keras_hub.models.Backbone):
    """MobileNetV2 as a functional graph, channels last.

    Input: float [B, H, W, channels], already scaled (published weights: x / 127.5 - 1).
    Output: the summary.

    Attributes:
        taps: {0: stem, 1..16: output of inverted residual block k}, each [B, h, w, C];
            the stem is the first convolution with the first, expansion-free block.
        summary: [B, D], the last 1x1 convolution (BN, ReLU6) averaged over the image.
        num_depths: 16.
    """

    model_type = "mobilenet_v2"
    num_depths = len(_BLOCKS)
    # Published depths count its blocks as they are.
    out_of = 16

    def __init__(
        self,
        depth_multiplier=1.0,
        image_shape=(224, 224, 3),
        depth_divisible_by=8,
        min_depth=8,
        expand_ratio=6.0,
        finegrained_output=True,
        tf_padding=True,
        first_layer_is_expansion=True,
        layer_norm_eps=1e-3,
        output_stride=32,
        hidden_act="relu6",
        batch_norm_momentum=0.9,
        dtype=None,
        **kwargs,
    ):
        """Build the graph. Arguments carry the names of Hugging Face's config fields.

        Args:
            depth_multiplier: width of every layer relative to the paper's.
            image_shape: (height, width, channels).
            depth_divisible_by, min_depth: how widths are rounded.
            expand_ratio: channels inside a block over those that enter it.
            finegrained_output: keep 1280 summary channels when depth_multiplier < 1.
            tf_padding: pad as TensorFlow's SAME (the published weights), else by one on
                each side.
            first_layer_is_expansion: False puts a 1x1 convolution behind the first one.
            layer_norm_eps: BatchNorm's epsilon.
            output_stride: 32, the only one; Hugging Face dilates for 8 and 16.
            hidden_act: "relu6", the only one the paper has.
            batch_norm_momentum: share kept of the moving statistics at each step. The
                published training used 0.997; a fine-tuning has a few hundred steps, and
                statistics that lag behind its weights make every validation erratic.
            dtype: dtype policy of every layer.

        Raises:
            UsageError: an output_stride, hidden_act, width or image shape that cannot be.
        """
        _check(output_stride, hidden_act, depth_multiplier, image_shape)

        def width(channels, factor=depth_multiplier):
            return make_divisible(round(channels * factor), depth_divisible_by, min_depth)

        unit = Unit(tf_padding, layer_norm_eps, batch_norm_momentum, dtype)

        # === Stem ===
        image = keras.Input(shape=tuple(image_shape), name="image")
        x = unit(image, width(_STEM_CHANNELS), kernel=3, stride=2, name="conv_stem.first_conv")
        if not first_layer_is_expansion:
            x = unit(x, width(_STEM_CHANNELS), name="conv_stem.expand_1x1")
        x = unit(x, None, kernel=3, name="conv_stem.conv_3x3")
        x = unit(x, width(_STEM_OUTPUT), activate=False, name="conv_stem.reduce_1x1")
        taps = {0: x}

        # === Inverted residual blocks ===
        for depth, (channels, stride) in enumerate(_BLOCKS, start=1):
            inner = width(x.shape[-1], factor=expand_ratio)
            name = f"layer.{depth - 1}"
            x = inverted_residual(x, unit, inner, width(channels), stride, name=name)
            taps[depth] = x

        # === Summary ===
        fine = finegrained_output and depth_multiplier < 1.0
        x = unit(x, _SUMMARY_CHANNELS if fine else width(_SUMMARY_CHANNELS), name="conv_1x1")
        summary = layers.GlobalAveragePooling2D(name="pooler", dtype=dtype)(x)  # [B, D]

        super().__init__(inputs=image, outputs=summary, dtype=dtype, **kwargs)
        self.taps = taps
        self.summary = summary
        self._arguments = {
            "depth_multiplier": depth_multiplier,
            "image_shape": tuple(image_shape),
            "depth_divisible_by": depth_divisible_by,
            "min_depth": min_depth,
            "expand_ratio": expand_ratio,
            "finegrained_output": finegrained_output,
            "tf_padding": tf_padding,
            "first_layer_is_expansion": first_layer_is_expansion,
            "layer_norm_eps": layer_norm_eps,
            "output_stride": output_stride,
            "hidden_act": hidden_act,
            "batch_norm_momentum": batch_norm_momentum,
        }

    def get_config(self):
        """Return the arguments of the constructor."""
        return {**super().get_config(), **self._arguments}

    @classmethod
    def from_hf(cls, directory: str | Path, image_shape=None, **kwargs) -> "MobileNetV2Backbone":
        """Build from config.json and load model.safetensors of a Hugging Face directory.

        Args:
            directory: holds both files; the tensors may stand under "mobilenet_v2.".
            image_shape: (height, width, channels); None takes the checkpoint's own.
            **kwargs: further constructor arguments (dtype, batch_norm_momentum, name).

        Raises:
            UsageError: another model type, an architecture this class has not, or weights
                that are missing, pickled, cut short or of other shapes.
        """
        config = read_config(directory, cls.model_type)
        backbone = cls(
            image_shape=image_shape or cls.image_shape_of(config),
            **{field: config.get(field, default) for field, default in _HF_FIELDS.items()},
            **kwargs,
        )
        fill(convolutions(backbone), Weights(directory, prefix=cls.model_type))
        return backbone


class Unit:
    """Convolution, BatchNorm and (mostly) ReLU6: all that MobileNetV2 is made of."""

    def __init__(self, tf_padding, epsilon, momentum, dtype):
        self.tf_padding = tf_padding
        self.norm = {"epsilon": epsilon, "momentum": momentum, "dtype": dtype}
        self.dtype = dtype

    def __call__(self, x, filters, kernel=1, stride=1, activate=True, *, name):
        """Return [B, h, w, filters]; filters None convolves each channel by itself."""
        common = {"strides": stride, "use_bias": False, "dtype": self.dtype}
        common["padding"] = "same" if self.tf_padding else "valid"
        if kernel > 1 and not self.tf_padding:
            x = layers.ZeroPadding2D(kernel // 2, dtype=self.dtype, name=f"{name}.pad")(x)
        common["name"] = f"{name}.convolution"
        if filters is None:
            # Only its own kernel x kernel pixels reach a channel's output.
            start = HeNormal(fan_in=kernel**2)
            x = DepthwiseConv2D(kernel, depthwise_initializer=start, **common)(x)
        else:
            kind = PointwiseConv2D if kernel == 1 else layers.Conv2D
            x = kind(filters, kernel, kernel_initializer=HeNormal(), **common)(x)
        x = BatchNormalization(**self.norm, name=f"{name}.normalization")(x)
        return layers.ReLU(6.0, dtype=self.dtype, name=f"{name}.relu6")(x) if activate else x


def inverted_residual(x, unit, inner, filters, stride, name):
    """Expand, convolve each channel, reduce; add the input where the shapes agree."""
    shortcut = x
    x = unit(x, inner, name=f"{name}.expand_1x1")
    x = unit(x, None, kernel=3, stride=stride, name=f"{name}.conv_3x3")
    x = unit(x, filters, activate=False, name=f"{name}.reduce_1x1")
    if stride == 1 and shortcut.shape[-1] == filters:
        x = layers.Add(dtype=unit.dtype, name=f"{name}.add")([shortcut, x])
    return x


def _check(output_stride, hidden_act, depth_multiplier, image_shape):
    """Refuse what the graph cannot be. Raises UsageError."""
    if output_stride != 32:
        raise UsageError(
            f"got output_stride {output_stride}, wanted 32; dilated MobileNetV2 "
            "(segmentation) checkpoints are not supported."
        )
    if hidden_act != "relu6":
        raise UsageError(f"got hidden_act {hidden_act!r}, wanted 'relu6', MobileNetV2's own.")
    if not depth_multiplier > 0:
        raise UsageError(f"got depth_multiplier {depth_multiplier}, wanted one above 0.")
    if len(image_shape) != 3:
        raise UsageError(f"got image_shape {image_shape}, wanted (height, width, channels).")
