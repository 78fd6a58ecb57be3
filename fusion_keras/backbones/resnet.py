"""ResNet (He et al. 2016), block by block as Hugging Face numbers it.

It gives the outputs of `transformers`' ResNetModel on the same weights: of the paper's variants
the one that halves the image in a bottleneck's 3x3 convolution (v1.5), unless the checkpoint says
otherwise.
"""

from pathlib import Path

import keras
import keras_hub
from keras import layers

from fusion_keras.backbones.backbone_weights import convolutions
from fusion_keras.backbones.convolution import Conv2D
from fusion_keras.backbones.encoder import activation
from fusion_keras.backbones.hf_files import Weights, read_config
from fusion_keras.backbones.initializers import HeNormal
from fusion_keras.backbones.layouts import fill
from fusion_keras.backbones.pointwise import BatchNormalization, PointwiseConv2D
from fusion_keras.backbones.pooling import MaxPool3x3
from fusion_keras.backbones.sources import FromPreset
from fusion_keras.errors import UsageError

# config.json fields that are arguments of the same name here, and their defaults there.
_HF_FIELDS = {
    "embedding_size": 64,
    "hidden_sizes": (256, 512, 1024, 2048),
    "depths": (3, 4, 6, 3),
    "layer_type": "bottleneck",
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
}
_EPSILON = 1e-5  # of every BatchNorm: PyTorch's
_REDUCTION = 4  # a bottleneck's output over its 3x3 convolution's channels


@keras.saving.register_keras_serializable(package="fusion_keras")
class ResNetBackbone(FromPreset, keras_hub.models.Backbone):
    """ResNet as a functional graph, channels last.

    Input: float [B, H, W, channels], already scaled (published weights: ImageNet's mean and
        deviation).
    Output: the summary.

    Attributes:
        taps: {0: stem, 1..N: output of residual block k, counted through all stages}, each
            [B, h, w, C]; the stem is the 7x7 convolution with the max pooling.
        summary: [B, D], the last block averaged over the image.
        num_depths: N, the sum of depths: 8 in ResNet-18, 16 in ResNet-34 and ResNet-50.
    """

    model_type = "resnet"
    # Its blocks are counted like MobileNetV2's, whose 16 the published depths are out of.
    out_of = 16

    def __init__(
        self,
        image_shape=(224, 224, 3),
        embedding_size=64,
        hidden_sizes=(256, 512, 1024, 2048),
        depths=(3, 4, 6, 3),
        layer_type="bottleneck",
        hidden_act="relu",
        downsample_in_first_stage=False,
        downsample_in_bottleneck=False,
        batch_norm_momentum=0.9,
        dtype=None,
        **kwargs,
    ):
        """Build the graph. Arguments carry the names of Hugging Face's config fields.

        Args:
            image_shape: (height, width, channels).
            embedding_size: channels of the stem.
            hidden_sizes, depths: channels and blocks of each stage.
            layer_type: "basic", two 3x3 convolutions a block, or "bottleneck", a 3x3 one between
                two of 1x1.
            hidden_act: behind the stem and each addition; inside a block it is ReLU always.
            downsample_in_first_stage: the first stage halves the image too.
            downsample_in_bottleneck: a bottleneck halves the image in its first convolution.
            batch_norm_momentum: share kept of the moving statistics at each step.
            dtype: dtype policy of every layer.

        Raises:
            UsageError: a layer_type, hidden_act, image shape or stages that cannot be.
        """
        _check(layer_type, hidden_sizes, depths, image_shape)
        unit = Unit(activation(hidden_act), batch_norm_momentum, dtype)
        block = {"basic": basic, "bottleneck": bottleneck}[layer_type]

        # === Stem ===
        image = keras.Input(shape=tuple(image_shape), name="image")
        x = unit(image, embedding_size, kernel=7, stride=2, name="embedder.embedder")
        x = unit.activated(x, "embedder.embedder")
        x = MaxPool3x3(dtype=dtype, name="embedder.pooler")(x)
        taps = {0: x}

        # === Residual blocks ===
        for stage, (channels, count) in enumerate(zip(hidden_sizes, depths, strict=True)):
            halves = stage > 0 or downsample_in_first_stage
            for index in range(count):
                stride = 2 if halves and index == 0 else 1
                name = f"encoder.stages.{stage}.layers.{index}"
                y = block(x, unit, channels, stride, downsample_in_bottleneck, name)
                if stride != 1 or x.shape[-1] != channels:
                    x = unit(x, channels, stride=stride, name=f"{name}.shortcut")
                x = layers.Add(dtype=dtype, name=f"{name}.add")([x, y])
                x = unit.activated(x, name)
                taps[len(taps)] = x

        # === Summary ===
        summary = layers.GlobalAveragePooling2D(name="pooler", dtype=dtype)(x)  # [B, D]

        super().__init__(inputs=image, outputs=summary, dtype=dtype, **kwargs)
        self.taps = taps
        self.summary = summary
        self.num_depths = len(taps) - 1
        self._arguments = {
            "image_shape": tuple(image_shape),
            "embedding_size": embedding_size,
            "hidden_sizes": tuple(hidden_sizes),
            "depths": tuple(depths),
            "layer_type": layer_type,
            "hidden_act": hidden_act,
            "downsample_in_first_stage": downsample_in_first_stage,
            "downsample_in_bottleneck": downsample_in_bottleneck,
            "batch_norm_momentum": batch_norm_momentum,
        }

    def get_config(self):
        """Return the arguments of the constructor."""
        return {**super().get_config(), **self._arguments}

    @classmethod
    def count_depths(cls, config: dict) -> int:
        """The number of blocks of what a config describes; see `FromPreset`."""
        return sum(config.get("config", config).get("depths", _HF_FIELDS["depths"]))

    @classmethod
    def width_of(cls, config: dict) -> int:
        """0: the stages differ."""
        return 0

    @classmethod
    def from_hf(cls, directory: str | Path, image_shape=None, **kwargs) -> "ResNetBackbone":
        """Build from config.json and load model.safetensors of a Hugging Face directory.

        Args:
            directory: holds both files; the tensors may stand under "resnet.".
            image_shape: (height, width, channels); None takes 224 x 224.
            **kwargs: further constructor arguments (dtype, batch_norm_momentum, name).

        Raises:
            UsageError: another model type, an architecture this class has not, or weights
                that are missing, pickled, cut short or of other shapes.
        """
        config = read_config(directory, cls.model_type)
        fields = {field: config.get(field, default) for field, default in _HF_FIELDS.items()}
        backbone = cls(image_shape=image_shape or cls.image_shape_of(config), **fields, **kwargs)
        fill(convolutions(backbone), Weights(directory, prefix=cls.model_type))
        return backbone


class Unit:
    """Convolution and BatchNorm, padded as PyTorch does: by half of the kernel at every edge."""

    def __init__(self, function, momentum, dtype):
        self.function = function
        self.norm = {"epsilon": _EPSILON, "momentum": momentum, "dtype": dtype}
        self.dtype = dtype

    def __call__(self, x, filters, kernel=1, stride=1, *, name):
        """Return [B, h, w, filters]; h and w over the stride, rounded up."""
        common = {"strides": stride, "use_bias": False, "kernel_initializer": HeNormal()}
        common |= {"dtype": self.dtype, "name": f"{name}.convolution"}
        if kernel == 1:
            x = PointwiseConv2D(filters, **common)(x)
        else:
            # TensorFlow's SAME pads a strided convolution behind more than before.
            if stride > 1:
                x = layers.ZeroPadding2D(kernel // 2, dtype=self.dtype, name=f"{name}.pad")(x)
            padding = "valid" if stride > 1 else "same"
            x = Conv2D(filters, kernel, padding=padding, **common)(x)
        return BatchNormalization(**self.norm, name=f"{name}.normalization")(x)

    def activated(self, x, name, function=None):
        """The hidden activation, or another one."""
        chosen = function or self.function
        return layers.Activation(chosen, dtype=self.dtype, name=f"{name}.activation")(x)


def basic(x, unit, channels, stride, _, name):
    """Two 3x3 convolutions."""
    x = unit(x, channels, kernel=3, stride=stride, name=f"{name}.layer.0")
    x = unit.activated(x, f"{name}.layer.0", "relu")
    return unit(x, channels, kernel=3, name=f"{name}.layer.1")


def bottleneck(x, unit, channels, stride, downsample_first, name):
    """Reduce to a quarter of the channels, convolve, expand."""
    first, second = (stride, 1) if downsample_first else (1, stride)
    x = unit(x, channels // _REDUCTION, stride=first, name=f"{name}.layer.0")
    x = unit.activated(x, f"{name}.layer.0", "relu")
    x = unit(x, channels // _REDUCTION, kernel=3, stride=second, name=f"{name}.layer.1")
    x = unit.activated(x, f"{name}.layer.1", "relu")
    return unit(x, channels, name=f"{name}.layer.2")


def _check(layer_type, hidden_sizes, depths, image_shape):
    """Refuse what the graph cannot be. Raises UsageError."""
    if layer_type not in ("basic", "bottleneck"):
        raise UsageError(f"got layer_type {layer_type!r}, wanted 'basic' or 'bottleneck'.")
    if len(hidden_sizes) != len(depths) or not depths or min(depths) < 1:
        raise UsageError(
            f"got hidden_sizes {list(hidden_sizes)} and depths {list(depths)}, wanted a width and "
            "at least one block for every stage."
        )
    if len(image_shape) != 3:
        raise UsageError(f"got image_shape {image_shape}, wanted (height, width, channels).")
