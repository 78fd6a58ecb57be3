"""ViT (Dosovitskiy et al. 2021) with every encoder layer as a tap.

Built of keras-hub's encoder layer, not as a subclass of its ViTBackbone: there the
whole encoder is one layer, and a part of it cannot be saved, because the inner layers are
not registered and their configs hold values that their constructors refuse.
"""

from pathlib import Path

import keras
import keras_hub
import numpy as np
from keras import layers, ops

from fusion_keras.backbones import backbone_weights
from fusion_keras.backbones.encoder import EncoderLayer, activation
from fusion_keras.backbones.hf_files import Weights, read_config
from fusion_keras.backbones.layouts import fill
from fusion_keras.backbones.sources import FromPreset
from fusion_keras.errors import UsageError

# config.json field -> (our argument, Hugging Face's default for an absent field).
_HF_FIELDS = {
    "num_hidden_layers": ("num_layers", 12),
    "num_attention_heads": ("num_heads", 12),
    "hidden_size": ("hidden_dim", 768),
    "intermediate_size": ("mlp_dim", 3072),
    "hidden_dropout_prob": ("dropout", 0.0),
    "hidden_act": ("hidden_act", "gelu"),
    "layer_norm_eps": ("layer_norm_eps", 1e-12),
    "patch_size": ("patch_size", 16),
}
_QUERY_KEY_VALUE = tuple(f"attention.attention.{x}" for x in ("query", "key", "value"))


@keras.saving.register_keras_serializable(package="fusion_keras")
class ClassToken(layers.Layer):
    """Puts one learned vector before a sequence: [B, T, D] -> [B, 1 + T, D]."""

    def build(self, input_shape):
        """Adds the vector [1, 1, D]."""
        self.token = self.add_weight(
            shape=(1, 1, input_shape[-1]), initializer="zeros", name="token"
        )

    def call(self, tokens):
        """Returns [B, 1 + T, D]."""
        rows = ops.broadcast_to(self.token, (ops.shape(tokens)[0], 1, tokens.shape[-1]))
        return ops.concatenate([rows, tokens], axis=1)

    def get_config(self):
        """Without it Keras refuses to save a layer whose dtype is a policy, as presets give it."""
        return super().get_config()


@keras.saving.register_keras_serializable(package="fusion_keras")
class ViTBackbone(FromPreset, keras_hub.models.Backbone):
    """ViT as a functional graph, channels last.

    Input: float [B, H, W, channels], already scaled (published weights: x / 127.5 - 1).
    Output: the final LayerNorm's tokens [B, 1 + P, D]; with a head a dict of them and the summary.

    Attributes:
        taps: {0: patches + class token + positions, 1..N: output of encoder layer i, before
            the final LayerNorm}, each [B, 1 + P, D].
        summary: [B, D], the final LayerNorm's class token.
        num_depths: N.
        special_tokens: the learned vectors before the patches, in order; the summary is the first.
        layer_class: of the encoder layers.
        hf_layers: where Hugging Face's files keep the encoder layers, and what they call the
            parts of one; see `backbone_weights.vit`.
        hf_prefix: what the tensors may stand under; None for model_type.
        patch_bias: whether the convolution of the patches has a bias.
        pre_norm: whether a LayerNorm stands before the encoder.
        headed: whether something with weights stands behind the final LayerNorm.
    """

    hub_class = keras_hub.models.ViTBackbone
    model_type = "vit"
    special_tokens = ("class_token",)
    layer_class = EncoderLayer
    hf_prefix = None
    patch_bias = True
    pre_norm = False
    headed = False
    hf_layers = (
        "encoder.layer",
        (
            *_QUERY_KEY_VALUE,
            *("attention.output.dense", "layernorm_before"),
            *("intermediate.dense", "output.dense", "layernorm_after"),
        ),
    )

    def __init__(
        self,
        image_shape=(224, 224, 3),
        patch_size=16,
        num_layers=12,
        num_heads=12,
        hidden_dim=768,
        mlp_dim=3072,
        dropout=0.0,
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        dtype=None,
        **kwargs,
    ):
        """Builds the graph.

        Args:
            image_shape: (height, width, channels), both edges multiples of patch_size.
            patch_size: edge of the square patches in pixels.
            num_layers, num_heads, hidden_dim, mlp_dim: of the encoder.
            dropout: behind attention, feed-forward part and embeddings.
            hidden_act: Hugging Face's name of the feed-forward activation.
            layer_norm_eps: epsilon of every LayerNorm.
            dtype: dtype policy of every layer.

        Raises:
            UsageError: an image that patches do not cover, or an unsupported activation.
        """
        height, width, channels = image_shape
        if height % patch_size or width % patch_size or min(height, width) < patch_size:
            raise UsageError(
                f"got a {height} x {width} image for a ViT with patches of {patch_size} pixels, "
                f"wanted multiples of {patch_size}; choose another image size."
            )
        function = activation(hidden_act)
        patches = height // patch_size * (width // patch_size)

        # === Embedding ===
        image = keras.Input(shape=(height, width, channels), name="image")
        x = layers.Conv2D(
            hidden_dim,
            patch_size,
            strides=patch_size,
            data_format="channels_last",
            use_bias=self.patch_bias,
            dtype=dtype,
            name="patch_embedding",
        )(image)
        x = layers.Reshape((patches, hidden_dim), dtype=dtype, name="patches")(x)
        for name in reversed(self.special_tokens):
            x = ClassToken(dtype=dtype, name=name)(x)  # at last [B, 1 + P, D]
        positions = keras_hub.layers.PositionEmbedding(
            x.shape[1],
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            dtype=dtype,
            name="position_embedding",
        )(x)
        x = layers.Add(dtype=dtype, name="embeddings_add")([x, positions])
        x = layers.Dropout(dropout, dtype=dtype, name="embeddings_dropout")(x)
        if self.pre_norm:
            x = layers.LayerNormalization(
                epsilon=layer_norm_eps, dtype=dtype, name="pre_layer_norm"
            )(x)
        taps = {0: x}

        # === Encoder ===
        for index in range(num_layers):
            layer = self.layer_class(
                intermediate_dim=mlp_dim,
                num_heads=num_heads,
                dropout=dropout,
                activation=function,
                layer_norm_epsilon=layer_norm_eps,
                normalize_first=True,
                dtype=dtype,
                name=f"transformer_layer_{index}",
            )
            x = layer(x)
            taps[index + 1] = x

        # === Summary ===
        norm = layers.LayerNormalization(epsilon=layer_norm_eps, dtype=dtype, name="layer_norm")
        x = norm(x)
        summary = self._summarised(norm, layer, taps[num_layers - 1], x)  # [B, D]

        # Among the outputs where it has weights of its own, which else were no part of the model.
        outputs = {"sequence_output": x, "pooled_output": summary} if self.headed else x
        super().__init__(inputs=image, outputs=outputs, dtype=dtype, **kwargs)
        self.taps = taps
        self.summary = summary
        self.num_depths = num_layers
        self.image_shape = (height, width, channels)
        self._arguments = {
            "image_shape": self.image_shape,
            "patch_size": patch_size,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "hidden_dim": hidden_dim,
            "mlp_dim": mlp_dim,
            "dropout": dropout,
            "hidden_act": hidden_act,
            "layer_norm_eps": layer_norm_eps,
        }

    def _summarised(self, norm, layer, before, x):
        """The summary [B, D].

        norm, layer: the final LayerNorm and the last encoder layer; before: [B, T, D], what enters
        that layer; x: [B, T, D], what the norm gives.
        """
        # Of the last layer the summary reads nothing but the first token.
        return norm(layer(before, first_only=True))[:, 0, :]

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {**super().get_config(), **self._arguments}

    def resized(self, image_shape, **kwargs) -> "ViTBackbone":
        """The same weights for images of another size, positions interpolated bicubically.

        Args:
            image_shape: (height, width, channels) of the copy.
            **kwargs: other constructor arguments of the copy (dropout, name).
        """
        copy = type(self).from_config(
            {**self.get_config(), "image_shape": tuple(image_shape), **kwargs}
        )
        patch = self._arguments["patch_size"]
        grids = [
            (shape[0] // patch, shape[1] // patch) for shape in (self.image_shape, image_shape)
        ]
        for source, target in zip(self.weights, copy.weights, strict=True):
            values = np.asarray(source)
            if source.path.endswith("position_embedding/embeddings"):
                values = interpolate_positions(values, *grids)
            target.assign(values)
        return copy

    def _at(self, image_shape) -> "ViTBackbone":
        """This model, or where `image_shape` is another one its copy for that."""
        if image_shape is None or tuple(image_shape) == self.image_shape:
            return self
        return self.resized(image_shape)

    @classmethod
    def _from_saved(cls, directory, config, image_shape=None, **kwargs):
        return super()._from_saved(directory, config, **kwargs)._at(image_shape)

    @classmethod
    def from_hub(cls, source, image_shape=None, **kwargs) -> "ViTBackbone":
        """The same model as a keras_hub.models.ViTBackbone, for images of `image_shape`.

        Raises:
            UsageError: oblong patches, or a part that the published ViTs have is left out.
        """
        if source.patch_size[0] != source.patch_size[1] or not (
            source.use_class_token
            and source.use_patch_bias
            and source.use_mha_bias
            and source.use_mlp_bias
        ):
            raise UsageError(
                f"got keras-hub's {source.name!r} with oblong patches or without class token or "
                "biases, wanted the published ViT; choose another preset."
            )
        same = ("image_shape", "num_layers", "num_heads", "hidden_dim", "mlp_dim")
        backbone = cls(
            **{
                **{name: getattr(source, name) for name in same},
                "patch_size": source.patch_size[0],
                "dropout": source.dropout_rate,
                "layer_norm_eps": source.layer_norm_epsilon,
                **kwargs,
            }
        )
        for theirs, ours in _pairs(source, backbone):
            ours.set_weights(theirs.get_weights())
        embedding = source.get_layer("vit_patching_and_embedding")
        backbone.get_layer("class_token").token.assign(embedding.class_token)
        return backbone._at(image_shape)

    @classmethod
    def from_hf(cls, directory: str | Path, image_shape=None, **kwargs) -> "ViTBackbone":
        """Builds from config.json and loads model.safetensors of a Hugging Face directory.

        One dropout rate here, two at Hugging Face: `hidden_dropout_prob` is taken for both.
        Where the checkpoint has no query, key and value bias, it is zero here.

        Args:
            directory: holds both files; the tensors may stand under "<model_type>.", of CLIP
                under "vision_model.".
            image_shape: (height, width, channels); None takes the checkpoint's own, another
                one interpolates the position embeddings as Hugging Face does.
            **kwargs: constructor arguments that replace the config's (dropout, dtype, name).

        Raises:
            UsageError: another model type, an architecture this class has not, or weights
                that are missing, pickled, cut short or of other shapes.
        """
        config = read_config(Path(directory), cls.model_types())
        arguments = cls.arguments_of(config)
        if not isinstance(arguments["patch_size"], int):
            raise UsageError(
                f"got patch_size {arguments['patch_size']} in {directory}, wanted one square edge."
            )
        backbone = cls(**{**arguments, **kwargs})
        named = backbone.hf_tensors()
        if not config.get("qkv_bias", True):
            without = tuple(f"{name}.bias" for name in cls.hf_layers[1][:3])
            named = {name: weight for name, weight in named.items() if not name.endswith(without)}
        fill(named, Weights(Path(directory), prefix=cls.hf_prefix or cls.model_type))
        return backbone._at(image_shape or cls.image_shape_of(config))

    def hf_tensors(self) -> dict:
        """Hugging Face's name of each tensor -> our weight."""
        return backbone_weights.vit(self, *self.hf_layers)

    @classmethod
    def arguments_of(cls, config: dict) -> dict:
        """The constructor's arguments for a Hugging Face config.json."""
        arguments = {ours: config.get(hf, value) for hf, (ours, value) in _HF_FIELDS.items()}
        return arguments | {"image_shape": super().image_shape_of(config)}


def _pairs(source, backbone):
    """(keras-hub's layer, ours) with equally ordered weights; all but the class token."""
    embedding = source.get_layer("vit_patching_and_embedding")
    encoder = source.get_layer("vit_encoder")
    yield embedding.patch_embedding, backbone.get_layer("patch_embedding")
    yield embedding.position_embedding, backbone.get_layer("position_embedding")
    for index, theirs in enumerate(encoder.encoder_layers):
        ours = backbone.get_layer(f"transformer_layer_{index}")
        yield theirs.layer_norm_1, ours._self_attention_layer_norm
        yield theirs.mha, ours._self_attention_layer
        yield theirs.layer_norm_2, ours._feedforward_layer_norm
        yield theirs.mlp.dense_1, ours._feedforward_intermediate_dense
        yield theirs.mlp.dense_2, ours._feedforward_output_dense
    yield encoder.layer_norm, backbone.get_layer("layer_norm")


def interpolate_positions(
    table: np.ndarray, old: tuple[int, int], new: tuple[int, int]
) -> np.ndarray:
    """Position embeddings [S + h*w, D] of grid `old` for grid `new`; the special tokens' are kept.

    Bicubic with a = -0.75, half-pixel centres, edges repeated and no antialiasing: PyTorch's
    `interpolate(mode="bicubic")`, which Hugging Face uses.
    """
    special = len(table) - old[0] * old[1]
    grid = table[special:].reshape(*old, -1).astype(np.float64)
    down, across = (_bicubic(source, target) for source, target in zip(old, new, strict=True))
    grid = np.einsum("ih,jw,hwd->ijd", down, across, grid)
    return np.concatenate([table[:special], grid.reshape(-1, table.shape[1])]).astype(table.dtype)


def _bicubic(source: int, target: int, a: float = -0.75) -> np.ndarray:
    """The matrix [target, source] of cubic convolution (Keys 1981) along one axis."""
    centres = (np.arange(target) + 0.5) * source / target - 0.5
    left = np.floor(centres).astype(int)
    matrix = np.zeros((target, source))
    for offset in range(-1, 3):
        x = np.abs(centres - (left + offset))
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = a * (((x - 5) * x + 8) * x - 4)
        column = np.clip(left + offset, 0, source - 1)
        np.add.at(matrix, (np.arange(target), column), np.where(x <= 1, near, far))
    return matrix
