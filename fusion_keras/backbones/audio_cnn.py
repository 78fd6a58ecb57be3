"""A small convolutional encoder of log-mel energies, tap by tap: MobileNetV2's blocks on sound.

Of its own, because what has been pretrained on sound is larger by far: Whisper's smallest encoder,
cut to a clip's positions (`whisper.py`), has 7.7 M parameters and 1.7 G multiplications for 4 s.
This one has 0.15 M and 26 M. It starts from random weights, so it must learn what that one has
learned on 680,000 hours of speech. Moonshine's (Jeffries et al. 2024, arXiv 2410.15608) takes
waveforms, which fp16 and int8 graphs would have to resolve.
"""

import keras
import keras_hub
from keras import layers

from fusion_keras.backbones.mobilenet_v2 import Unit, inverted_residual, make_divisible
from fusion_keras.backbones.sources import FromPreset
from fusion_keras.data.log_mel import BANDS, VGGISH
from fusion_keras.errors import UsageError

# (channels before the width multiplier, stride) of blocks 1..8: MobileNetV2's stages (Sandler
# et al. 2018, table 2), fewer blocks in each.
_BLOCKS = ((24, 2), (24, 1), (32, 2), (32, 1), (64, 2), (64, 1), (96, 1), (160, 2))
_STEM_CHANNELS, _STEM_OUTPUT, _SUMMARY_CHANNELS = 32, 16, 1280
_EXPANSION, _DIVISOR = 6, 8


@keras.saving.register_keras_serializable(package="fusion_keras")
class AudioCnnBackbone(FromPreset, keras_hub.models.Backbone):
    """MobileNetV2-like, half as wide and half as deep, over time and frequency.

    Input: float [B, F, 64], see `data.log_mel`.
    Output: the summary.

    Attributes:
        taps: {0: stem, 1..8: output of inverted residual block k}, each [B, t, f, C], time
            first; the stem is the first convolution with an expansion-free block.
        summary: [B, D], a 1x1 convolution (BN, ReLU6) averaged over time and frequency.
        num_depths: 8.
        front_end: what makes the input.
    """

    num_depths = len(_BLOCKS)
    front_end = VGGISH

    def __init__(
        self, frames=398, depth_multiplier=0.5, batch_norm_momentum=0.9, dtype=None, **kwargs
    ):
        """Build the graph.

        Args:
            frames: F; 398 are 4 s.
            depth_multiplier: width of every layer relative to MobileNetV2's.
            batch_norm_momentum: share kept of the moving statistics at each step.
            dtype: dtype policy of every layer.

        Raises:
            UsageError: no frames, or no width.
        """
        if frames < 1 or not depth_multiplier > 0:
            raise UsageError(
                f"got {frames} frames and depth_multiplier {depth_multiplier}, wanted at least one "
                "frame and a multiplier above 0."
            )

        def width(channels, factor=depth_multiplier):
            return make_divisible(round(channels * factor), _DIVISOR, _DIVISOR)

        unit = Unit(True, 1e-3, batch_norm_momentum, dtype)

        # === Stem ===
        audio = keras.Input(shape=(frames, BANDS), name="audio")
        x = layers.Reshape((frames, BANDS, 1), dtype=dtype, name="channel")(audio)
        x = unit(x, width(_STEM_CHANNELS), kernel=3, stride=2, name="conv_stem.first_conv")
        x = unit(x, None, kernel=3, name="conv_stem.conv_3x3")
        x = unit(x, width(_STEM_OUTPUT), activate=False, name="conv_stem.reduce_1x1")
        taps = {0: x}

        # === Inverted residual blocks ===
        for depth, (channels, stride) in enumerate(_BLOCKS, start=1):
            inner = _EXPANSION * x.shape[-1]
            name = f"layer.{depth - 1}"
            x = inverted_residual(x, unit, inner, width(channels), stride, name=name)
            taps[depth] = x

        # === Summary ===
        x = unit(x, width(_SUMMARY_CHANNELS), name="conv_1x1")
        summary = layers.GlobalAveragePooling2D(name="pooler", dtype=dtype)(x)  # [B, D]

        super().__init__(inputs=audio, outputs=summary, dtype=dtype, **kwargs)
        self.taps = taps
        self.summary = summary
        self._arguments = {
            "frames": frames,
            "depth_multiplier": depth_multiplier,
            "batch_norm_momentum": batch_norm_momentum,
        }

    def get_config(self):
        """Return the arguments of the constructor."""
        return {**super().get_config(), **self._arguments}

    @classmethod
    def from_hf(cls, directory, **kwargs):
        """Refuse: Hugging Face has no such model. Raises UsageError."""
        raise UsageError(
            f"got {directory} for the audio backbone, wanted audio_cnn or a directory of one that "
            "was saved with save_to_preset."
        )
