"""ConvNeXt (Liu et al. 2022) and ConvNeXt V2 (Woo et al. 2023), block by block as Hugging Face
numbers them.

They give the outputs of `transformers`' ConvNextModel and ConvNextV2Model on the same weights.
"""

from pathlib import Path

import keras
import keras_hub
from keras import layers, ops

from fusion_keras.backbones.backbone_weights import convolutions
from fusion_keras.backbones.depthwise import DepthwiseConv2D
from fusion_keras.backbones.encoder import activation
from fusion_keras.backbones.hf_files import Weights, read_config
from fusion_keras.backbones.initializers import HeNormal
from fusion_keras.backbones.layouts import fill
from fusion_keras.backbones.pointwise import PixelLayerNormalization, PointwiseConv2D
from fusion_keras.backbones.sources import FromPreset
from fusion_keras.errors import UsageError

# config.json fields that are arguments of the same name here, and their defaults there.
_HF_FIELDS = {
    "hidden_sizes": (96, 192, 384, 768),
    "depths": (3, 3, 9, 3),
    "patch_size": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "drop_path_rate": 0.0,
    "layer_scale_init_value": 1e-6,
}
_EPSILON = 1e-6  # of every LayerNorm but the last, and of the response's mean
_SILENT = 1e-12  # mean square of a channel that is zero everywhere
_KERNEL = 7
_WIDER = 4  # channels inside a block over those of its input


@keras.saving.register_keras_serializable(package="fusion_keras")
class LayerScale(layers.Layer):
    """Multiplies each channel by a learned number: [B, H, W, C] -> the same."""

    def __init__(self, initial_value=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.initial_value = initial_value

    def build(self, input_shape):
        """Add the numbers [C]."""
        start = keras.initializers.Constant(self.initial_value)
        self.scale = self.add_weight(shape=input_shape[-1:], initializer=start, name="scale")

    def call(self, inputs):
        """Return [B, H, W, C]."""
        return inputs * ops.cast(self.scale, inputs.dtype)

    def get_config(self):
        """Return the arguments of the constructor."""
        return {**super().get_config(), "initial_value": self.initial_value}


@keras.saving.register_keras_serializable(package="fusion_keras")
class GlobalResponseNorm(layers.Layer):
    """Global response normalisation (Woo et al. 2023, section 4): [B, H, W, C] -> the same.

    A channel's response is its L2 norm over the image, over the mean of all channels' norms; what
    is added to each pixel is itself times that and a learned number, and a learned shift.
    """

    def build(self, input_shape):
        """Add gamma and beta [C], which start at 0."""
        shape = input_shape[-1:]
        self.gamma = self.add_weight(shape=shape, initializer="zeros", name="gamma")
        self.beta = self.add_weight(shape=shape, initializer="zeros", name="beta")

    def call(self, inputs):
        """Return [B, H, W, C]."""
        _, height, width, channels = inputs.shape
        # Of mean squares instead of their sums: norms are divided by norms, and float16 has no
        # sum of thousands of squares.
        power = ops.mean(ops.square(inputs), axis=(1, 2))  # [B, C]
        # A channel of zeros has no gradient, as in PyTorch; that of the root would be infinite.
        norm = ops.sqrt(ops.maximum(power, _SILENT))
        epsilon = _EPSILON / (height * width) ** 0.5
        response = norm / (ops.mean(norm, axis=-1, keepdims=True) + epsilon)
        factor = 1.0 + ops.cast(self.gamma, inputs.dtype) * response
        factor = ops.reshape(factor, (-1, 1, 1, channels))
        return inputs * factor + ops.cast(self.beta, inputs.dtype)

    def get_config(self):
        """Without it Keras refuses to save a layer whose dtype is a policy, as presets give it."""
        return super().get_config()


@keras.saving.register_keras_serializable(package="fusion_keras")
class ConvNextBackbone(FromPreset, keras_hub.models.Backbone):
    """ConvNeXt as a functional graph, channels last.

    Input: float [B, H, W, channels], already scaled (published weights: ImageNet's mean and
        deviation).
    Output: the summary.

    Attributes:
        taps: {0: stem, 1..N: output of block k, counted through all stages}, each [B, h, w, C];
            the stem is the convolution of the patches with its LayerNorm.
        summary: [B, D], the last block averaged over the image, normalised.
        num_depths: N, the sum of depths: 18 in ConvNeXt-T.
        responds: whether a block normalises its responses, as V2's do.
    """

    model_type = "convnext"
    # Counted like MobileNetV2's blocks, whose 16 the published depths are out of: half of its
    # depth stands for half of MobileNetV2's.
    out_of = 16
    responds = False

    def __init__(
        self,
        image_shape=(224, 224, 3),
        hidden_sizes=(96, 192, 384, 768),
        depths=(3, 3, 9, 3),
        patch_size=4,
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        drop_path_rate=0.0,
        layer_scale_init_value=1e-6,
        dtype=None,
        **kwargs,
    ):
        """Build the graph. Arguments carry the names of Hugging Face's config fields.

        Args:
            image_shape: (height, width, channels).
            hidden_sizes, depths: channels and blocks of each stage.
            patch_size: edge in pixels of the square patches that the stem convolves.
            hidden_act: Hugging Face's name of the activation.
            layer_norm_eps: epsilon of the last LayerNorm; that of all others is 1e-6.
            drop_path_rate: of the last block, how often training leaves it out for an image;
                less in the others, 0 in the first.
            layer_scale_init_value: where the factors of each block's channels start; 0: none.
            dtype: dtype policy of every layer.

        Raises:
            UsageError: a hidden_act, patch size, image shape or stages that cannot be.
        """
        _check(hidden_sizes, depths, patch_size, image_shape)
        block = Block(activation(hidden_act), layer_scale_init_value, self.responds, dtype)

        # === Stem ===
        image = keras.Input(shape=tuple(image_shape), name="image")
        x = _patches(image, hidden_sizes[0], patch_size, "embeddings.patch_embeddings", dtype)
        x = _normed(x, "embeddings.layernorm", dtype)
        taps = {0: x}

        # === Blocks ===
        for stage, (channels, count) in enumerate(zip(hidden_sizes, depths, strict=True)):
            name = f"encoder.stages.{stage}"
            if stage > 0:
                x = _normed(x, f"{name}.downsampling_layer.0", dtype)
                x = _patches(x, channels, 2, f"{name}.downsampling_layer.1", dtype)
            for index in range(count):
                left_out = drop_path_rate * (len(taps) - 1) / max(sum(depths) - 1, 1)
                x = block(x, left_out, name=f"{name}.layers.{index}")
                taps[len(taps)] = x

        # === Summary ===
        x = layers.GlobalAveragePooling2D(name="pooler", dtype=dtype)(x)  # [B, D]
        norm = layers.LayerNormalization(epsilon=layer_norm_eps, dtype=dtype, name="layernorm")
        summary = norm(x)

        super().__init__(inputs=image, outputs=summary, dtype=dtype, **kwargs)
        self.taps = taps
        self.summary = summary
        self.num_depths = len(taps) - 1
        self._arguments = {
            "image_shape": tuple(image_shape),
            "hidden_sizes": tuple(hidden_sizes),
            "depths": tuple(depths),
            "patch_size": patch_size,
            "hidden_act": hidden_act,
            "layer_norm_eps": layer_norm_eps,
            "drop_path_rate": drop_path_rate,
            "layer_scale_init_value": layer_scale_init_value,
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
    def from_hf(cls, directory: str | Path, image_shape=None, **kwargs) -> "ConvNextBackbone":
        """Build from config.json and load model.safetensors of a Hugging Face directory.

        Args:
            directory: holds both files; the tensors may stand under "<model_type>.".
            image_shape: (height, width, channels); None takes the checkpoint's own.
            **kwargs: constructor arguments that replace the config's.

        Raises:
            UsageError: another model type, an architecture this class has not, or weights
                that are missing, pickled, cut short or of other shapes.
        """
        config = read_config(directory, cls.model_type)
        fields = {field: config.get(field, default) for field, default in _HF_FIELDS.items()}
        stages = config.get("num_stages", 4)
        if stages != len(fields["depths"]):
            raise UsageError(
                f"got num_stages {stages} and depths {list(fields['depths'])} in {directory}, "
                "wanted as many; check its config.json."
            )
        if cls.responds:
            del fields["layer_scale_init_value"]
        shape = image_shape or cls.image_shape_of(config)
        backbone = cls(**{**fields, "image_shape": shape, **kwargs})
        fill(convolutions(backbone), Weights(directory, prefix=cls.model_type))
        return backbone


@keras.saving.register_keras_serializable(package="fusion_keras")
class ConvNextV2Backbone(ConvNextBackbone):
    """ConvNeXt V2: global response normalisation in each block instead of LayerScale."""

    model_type = "convnextv2"
    responds = True

    def __init__(self, **kwargs):
        """Build the graph; arguments as ConvNeXt's, without layer_scale_init_value."""
        super().__init__(layer_scale_init_value=0.0, **kwargs)
        del self._arguments["layer_scale_init_value"]


class Block:
    """Depthwise convolution, LayerNorm, a wider layer and back, added to the input."""

    def __init__(self, function, scale, responds, dtype):
        self.function, self.scale, self.responds, self.dtype = function, scale, responds, dtype

    def __call__(self, x, left_out, name):
        """Return [B, h, w, C], as x; `left_out` is how often training leaves the block out."""
        channels, dtype = x.shape[-1], self.dtype
        common = {"kernel_initializer": HeNormal(), "dtype": dtype}
        y = DepthwiseConv2D(
            _KERNEL,
            padding="same",
            depthwise_initializer=HeNormal(fan_in=_KERNEL**2),
            dtype=dtype,
            name=f"{name}.dwconv",
        )(x)
        y = _normed(y, f"{name}.layernorm", dtype)
        y = PointwiseConv2D(_WIDER * channels, name=f"{name}.pwconv1", **common)(y)
        y = layers.Activation(self.function, dtype=dtype, name=f"{name}.act")(y)
        if self.responds:
            y = GlobalResponseNorm(dtype=dtype, name=f"{name}.grn")(y)
        y = PointwiseConv2D(channels, name=f"{name}.pwconv2", **common)(y)
        if self.scale > 0:
            y = LayerScale(self.scale, dtype=dtype, name=f"{name}.layer_scale_parameter")(y)
        if left_out > 0:
            whole = (None, 1, 1, 1)
            y = layers.Dropout(left_out, whole, dtype=dtype, name=f"{name}.drop_path")(y)
        return layers.Add(dtype=dtype, name=f"{name}.add")([x, y])


def _patches(x, channels, edge, name, dtype):
    """Convolve squares that do not overlap; what does not fill one at the end is left out."""
    start = HeNormal()
    return layers.Conv2D(
        channels, edge, strides=edge, kernel_initializer=start, dtype=dtype, name=name
    )(x)


def _normed(x, name, dtype):
    """LayerNorm over the channels."""
    return PixelLayerNormalization(epsilon=_EPSILON, dtype=dtype, name=name)(x)


def _check(hidden_sizes, depths, patch_size, image_shape):
    """Refuse what the graph cannot be. Raises UsageError."""
    if len(hidden_sizes) != len(depths) or not depths or min(depths) < 1:
        raise UsageError(
            f"got hidden_sizes {list(hidden_sizes)} and depths {list(depths)}, wanted a width and "
            "at least one block for every stage."
        )
    if not isinstance(patch_size, int) or patch_size < 1:
        raise UsageError(f"got patch_size {patch_size}, wanted one square edge in pixels.")
    if len(image_shape) != 3:
        raise UsageError(f"got image_shape {image_shape}, wanted (height, width, channels).")
    least = patch_size * 2 ** (len(depths) - 1)
    if min(image_shape[:2]) < least:
        height, width, _ = image_shape
        raise UsageError(
            f"got a {height} x {width} image for a ConvNeXt of {len(depths)} stages on patches of "
            f"{patch_size}, wanted at least {least} pixels; choose another image size."
        )
