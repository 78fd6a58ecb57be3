"""The convolutional LSTM of Barnum, Talukder and Yue 2020 (arXiv 2011.07191), three ways.

At every step of the sound and at every place of the image an LSTM sees the patch of the image
around it, the patch of the hidden state, and the spectrogram's column of that step, all places
with the same weights (section 3, appendix A.1). The three architectures differ in the layer
where the modalities meet; their sizes are those of appendix A.2.

What the paper leaves open, and what is done here:
- Convolutions are padded to keep the size of the map, so that the patch of the image and the
  patch of the hidden state have one centre. Steps are of one pixel, biases one per gate.
- Later layers have the same equations with the pooled hidden state of the layer before, a new
  map at each step, in place of image and sound; state starts at zero in every layer.
- Classification is by the state behind the last step, as A.2 says of the audio stream: sound
  is padded in front, so that is where it has been heard.
- The convolutions of separate visual streams have a ReLU and a 2 x 2 max pool each. A.2 lists
  pools for the C-LSTM layers only, but calls the models analogous (section 6): so the three
  have maps of one size at each depth, and differ in where they fuse, not in how much they keep.
- Weights start as Keras's recurrent layers do: Glorot uniform, recurrent ones orthogonal, the
  forget gate's bias at one (Jozefowicz et al. 2015, section 2.2).
"""

import dataclasses

import keras
from keras import layers

from fusion_keras.backbones.conv_lstm import LSTM, POOL, ConvLSTM, PaddedConv2D, SquarePool
from fusion_keras.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the three architectures share.

    image: edge of the square image; steps, bins: of the spectrogram; units: of every
    convolution and LSTM; kernel: edge of every convolution's; hidden: of the dense layer.
    The defaults are the paper's, 91 steps those of the longest spoken digit (2.3 s).
    """

    image: int = 28
    steps: int = 91
    bins: int = 201
    units: int = 64
    kernel: int = 3
    hidden: int = 128
    classes: int = 10


FULL = Sizes()
# For a CPU: half a second of sound.
REDUCED = Sizes(image=14, steps=19, units=16)


def build_clstm(architecture: str, sizes: Sizes = FULL, every_step: bool = False) -> keras.Model:
    """Build one of ARCHITECTURES.

    Args:
        architecture: where the modalities meet: "clstm_initial" in the first layer,
            "clstm_second" in the second, "clstm_fc" in the fully connected ones.
        sizes: of its layers and inputs.
        every_step: a second output for looking inside, see `with_steps`.

    Returns:
        A model of {"image": float or uint8 [B, image, image, 1] in 0 to 255,
        "spectrogram": float32 [B, steps, bins]} -> {"logits": float32 [B, classes]}, and
        with every_step "steps", float32 [B, steps, classes].

    Raises:
        UsageError: another name, or an image too small to be pooled twice.
    """
    if architecture not in ARCHITECTURES:
        raise UsageError(
            f"got architecture {architecture!r}, wanted one of {', '.join(ARCHITECTURES)}."
        )
    if sizes.image < POOL**2 or min(dataclasses.astuple(sizes)) < 1:
        raise UsageError(
            f"got {sizes}, wanted positive sizes and an image of at least {POOL**2} pixels a side."
        )
    image = keras.Input((sizes.image, sizes.image, 1), name="image")
    spectrogram = keras.Input((sizes.steps, sizes.bins), name="spectrogram")
    seen = layers.Rescaling(1 / 255, name="image_scaling")(image)
    features = ARCHITECTURES[architecture](seen, spectrogram, sizes, every_step)
    x = layers.Dense(sizes.hidden, activation="relu", name="hidden")(features)
    # float32 also under a bfloat16 policy: losses and probabilities need the digits.
    logits = layers.Dense(sizes.classes, dtype="float32", name="logits")
    if every_step:
        steps = logits(x)  # [B, T, classes]
        outputs = {"logits": LastStep(dtype="float32", name="last_logits")(steps), "steps": steps}
    else:
        outputs = {"logits": logits(x)}
    inputs = {"image": image, "spectrogram": spectrogram}
    return keras.Model(inputs, outputs, name=architecture)


def with_steps(model: keras.Model, architecture: str, sizes: Sizes) -> keras.Model:
    """The same weights, with the logits after every step as a second output, "steps".

    These are the activations over time of figures 11 to 16 (appendix A.5): the dense layers,
    trained on the last state, applied to each. With `architecture` and `sizes` of the model.
    """
    timed = build_clstm(architecture, sizes, every_step=True)
    timed.set_weights(model.get_weights())
    return timed


def _initial(image, spectrogram, sizes, every_step):
    """Features [B, D], or [B, T, D]: two C-LSTM layers, the first of both modalities."""
    x = ConvLSTM(sizes.units, sizes.kernel, True, name="clstm1")(image, spectrogram)
    x = ConvLSTM(sizes.units, sizes.kernel, every_step, name="clstm2")(x)
    return _flat(x, every_step, "features")


def _second(image, spectrogram, sizes, every_step):
    """A convolution and an LSTM, each of one modality, and a C-LSTM layer of both."""
    seen = _visual_layer(image, sizes, "visual1")
    heard = LSTM(sizes.units, return_sequences=True, name="audio1")(spectrogram)
    x = ConvLSTM(sizes.units, sizes.kernel, every_step, name="clstm2")(seen, heard)
    return _flat(x, every_step, "features")


def _fully_connected(image, spectrogram, sizes, every_step):
    """Two convolutions and two LSTMs, side by side."""
    seen = _visual_layer(_visual_layer(image, sizes, "visual1"), sizes, "visual2")
    seen = layers.Flatten(name="visual_features")(seen)
    heard = LSTM(sizes.units, return_sequences=True, name="audio1")(spectrogram)
    heard = LSTM(sizes.units, return_sequences=every_step, name="audio2")(heard)
    if every_step:
        seen = layers.RepeatVector(sizes.steps, name="visual_repeated")(seen)
    return layers.Concatenate(name="features")([seen, heard])


def _visual_layer(x, sizes, name):
    x = PaddedConv2D(sizes.units, sizes.kernel, activation="relu", name=name)(x)
    return SquarePool(name=f"{name}_pool")(x)


def _flat(x, every_step, name):
    return layers.Reshape((x.shape[1], -1) if every_step else (-1,), name=name)(x)


@keras.saving.register_keras_serializable(package="fusion_keras")
class LastStep(layers.Layer):
    """[B, T, D] -> [B, D], the last step."""

    def call(self, x):
        """Return [B, D]."""
        return x[:, -1]


ARCHITECTURES = {
    "clstm_initial": _initial,
    "clstm_second": _second,
    "clstm_fc": _fully_connected,
}
