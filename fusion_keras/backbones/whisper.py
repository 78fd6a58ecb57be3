"""Whisper's encoder (Radford et al. 2022, section 2.2) with every layer as a tap, for short clips.

The published model always takes 30 s, filled up with silence, and attends to all 1500 positions.
Here it has the positions of the clip alone, the first of its table: 200 for 4 s. There is no
decoder.
"""

import math
from pathlib import Path

import keras
import keras_hub
import numpy as np
from keras import layers

from fusion_keras.backbones import backbone_weights
from fusion_keras.backbones.encoder import EncoderLayer, activation
from fusion_keras.backbones.hf_files import Weights, read_config
from fusion_keras.backbones.layouts import fill, under
from fusion_keras.backbones.sources import FromPreset
from fusion_keras.data.whisper_mel import BANDS, MOST, SILENCE, WHISPER
from fusion_keras.errors import UsageError

# config.json field -> (our argument, Hugging Face's default for an absent field).
_HF_FIELDS = {
    "encoder_layers": ("num_layers", 4),
    "encoder_attention_heads": ("num_heads", 6),
    "d_model": ("hidden_dim", 384),
    "encoder_ffn_dim": ("intermediate_dim", 1536),
    "activation_function": ("hidden_act", "gelu"),
    "dropout": ("dropout", 0.0),
}
# What this class has in one way only, as published.
_ONLY = {
    "num_mel_bins": BANDS,
    "attention_dropout": 0,
    "activation_dropout": 0,
    "encoder_layerdrop": 0,
}


def _sinusoids(shape, dtype=None):
    """Sines, then cosines, of wavelengths from 2 pi to 10000 times that: [T, D]."""
    rates = np.exp(-math.log(10000) / (shape[1] // 2 - 1) * np.arange(shape[1] // 2))
    angles = np.arange(shape[0])[:, None] * rates
    return keras.ops.convert_to_tensor(np.concatenate([np.sin(angles), np.cos(angles)], 1), dtype)


@keras.saving.register_keras_serializable(package="fusion_keras")
class FixedPositions(layers.Layer):
    """Adds to each place its own vector, which is not learned: [B, T, D] -> the same."""

    def build(self, input_shape):
        """Adds the vectors [T, D], sinusoids until others are loaded."""
        self.positions = self.add_weight(
            shape=input_shape[1:], initializer=_sinusoids, trainable=False, name="positions"
        )

    def call(self, x):
        """Returns [B, T, D]."""
        return x + self.positions

    def get_config(self):
        """Without it Keras refuses to save a layer whose dtype is a policy, as presets give it."""
        return super().get_config()


@keras.saving.register_keras_serializable(package="fusion_keras")
class WhisperLayer(EncoderLayer):
    """An encoder layer whose keys have no bias, which softmax would not see."""

    def build(self, inputs_shape):
        """Builds keras-hub's layer and takes the keys' bias off."""
        super().build(inputs_shape)
        key = self._self_attention_layer.key_dense
        # As Keras takes variables off; `del` would also collect garbage, a second a layer.
        key._untrack_variable(key.bias)
        key.bias = key.bias_axes = None


@keras.saving.register_keras_serializable(package="fusion_keras")
class WhisperBackbone(FromPreset, keras_hub.models.Backbone):
    """Whisper's encoder as a functional graph.

    Input: float [B, F, 80], see `data.whisper_mel`.
    Output: the summary.

    Attributes:
        taps: {0: the two convolutions + positions, 1..N: output of encoder layer i, before the
            final LayerNorm}, each [B, T, D], where T is half of F, rounded up.
        summary: [B, D], the final LayerNorm's vectors averaged over time. The linear layers of
            `transformers`' WhisperForAudioClassification read the same.
        num_depths: N.
        front_end: what makes the input.
    """

    model_type = "whisper"
    lacks_first = "Whisper's encoder has no class token"
    front_end = WHISPER

    def __init__(
        self,
        frames=MOST,
        num_layers=4,
        num_heads=6,
        hidden_dim=384,
        intermediate_dim=1536,
        hidden_act="gelu",
        dropout=0.0,
        dtype=None,
        **kwargs,
    ):
        """Builds the graph.

        Args:
            frames: F; 400 are 4 s.
            num_layers, num_heads, hidden_dim, intermediate_dim: of the encoder.
            hidden_act: Hugging Face's name of the feed-forward activation.
            dropout: behind attention, its shares, feed-forward part and positions.
            dtype: dtype policy of every layer.

        Raises:
            UsageError: no frames or more than 30 s, or an unsupported activation.
        """
        if not 1 <= frames <= MOST:
            raise UsageError(
                f"got {frames} frames for Whisper's encoder, wanted 1 to {MOST}; set audio.seconds."
            )
        function = activation(hidden_act)

        # === Stem ===
        audio = keras.Input(shape=(frames, BANDS), name="audio")
        x = layers.Rescaling(1.0, SILENCE, dtype=dtype, name="as_published")(audio)
        for name, stride in (("conv1", 1), ("conv2", 2)):
            x = layers.ZeroPadding1D(1, dtype=dtype, name=f"{name}_pad")(x)
            x = layers.Conv1D(
                hidden_dim, 3, strides=stride, activation="gelu", dtype=dtype, name=name
            )(x)  # at last [B, T, D]
        x = FixedPositions(dtype=dtype, name="embed_positions")(x)
        x = layers.Dropout(dropout, dtype=dtype, name="embeddings_dropout")(x)
        taps = {0: x}

        # === Encoder ===
        for index in range(num_layers):
            x = WhisperLayer(
                intermediate_dim=intermediate_dim,
                num_heads=num_heads,
                dropout=dropout,
                activation=function,
                layer_norm_epsilon=1e-5,
                normalize_first=True,
                dtype=dtype,
                name=f"transformer_layer_{index}",
            )(x)
            taps[index + 1] = x

        # === Summary ===
        x = layers.LayerNormalization(epsilon=1e-5, dtype=dtype, name="layer_norm")(x)
        summary = layers.GlobalAveragePooling1D(dtype=dtype, name="pooler")(x)  # [B, D]

        super().__init__(inputs=audio, outputs=summary, dtype=dtype, **kwargs)
        self.taps = taps
        self.summary = summary
        self.num_depths = num_layers
        self._arguments = {
            "frames": frames,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "hidden_dim": hidden_dim,
            "intermediate_dim": intermediate_dim,
            "hidden_act": hidden_act,
            "dropout": dropout,
        }

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {**super().get_config(), **self._arguments}

    def _at(self, frames: int | None) -> "WhisperBackbone":
        """The same weights for clips of another length, at most its own.

        Raises:
            UsageError: longer clips, for which it has no positions.
        """
        own = self._arguments["frames"]
        if frames is None or frames == own:
            return self
        if frames > own:
            raise UsageError(
                f"got clips of {frames / 100} seconds for a Whisper with positions for {own / 100}"
                f", wanted {own / 100} at most; set audio.seconds, or take the published weights."
            )
        copy = type(self).from_config({**self.get_config(), "frames": frames})
        for source, target in zip(self.weights, copy.weights, strict=True):
            # Of all weights the positions alone have fewer rows.
            target.assign(np.asarray(source)[: target.shape[0]])
        return copy

    @classmethod
    def _from_saved(cls, directory, config, frames=None, **kwargs):
        return super()._from_saved(directory, config, **kwargs)._at(frames)

    @classmethod
    def from_hf(cls, directory: str | Path, frames=None, **kwargs) -> "WhisperBackbone":
        """Builds from config.json and loads model.safetensors of a Hugging Face directory.

        Args:
            directory: holds both files, of any model with Whisper's encoder; all else is left.
            frames: F; None takes as many as the checkpoint has positions for.
            **kwargs: constructor arguments that replace the config's (dropout, dtype, name).

        Raises:
            UsageError: another model type, a field that this class has otherwise, longer clips
                than the checkpoint's, or weights that are missing, pickled, cut short or of other
                shapes.
        """
        config = read_config(Path(directory), cls.model_type)
        for field, only in _ONLY.items():
            if config.get(field, only) != only:
                raise UsageError(
                    f"got {field} {config[field]} in a config.json of Whisper, wanted {only}; name "
                    "a checkpoint of openai/whisper-tiny's kind."
                )
        arguments = {ours: config.get(hf, value) for hf, (ours, value) in _HF_FIELDS.items()}
        whole = 2 * config.get("max_source_positions", MOST // 2)
        backbone = cls(**{**arguments, "frames": whole, **kwargs})
        tensors = under("encoder", backbone_weights.audio(backbone))
        fill(tensors, Weights(Path(directory), prefix="model"))
        return backbone._at(frames)

    @classmethod
    def count_depths(cls, config: dict) -> int:
        """As `FromPreset.count_depths`."""
        return super().count_depths({"num_hidden_layers": config.get("encoder_layers", 4)} | config)

    @classmethod
    def width_of(cls, config: dict) -> int:
        """As `FromPreset.width_of`."""
        return super().width_of({"hidden_size": config.get("d_model", 384)} | config)
