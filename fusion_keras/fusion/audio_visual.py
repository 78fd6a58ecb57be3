"""The C-LSTMs of images and sound, as an architecture beside the fusion spec.

A fusion spec describes taps and junctions of backbones; these have none, their layers are
the fusion (`backbones.clstm`). So their spec is a name and sizes.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from fusion_keras.errors import UsageError
from fusion_keras.fusion.architecture import Architecture

if TYPE_CHECKING:
    import keras

    from fusion_keras.backbones.clstm import Sizes
    from fusion_keras.fusion.graph import Graph

FEATURES = "features"


@dataclasses.dataclass(frozen=True)
class ClstmSpec:
    """Which architecture, a key of `backbones.clstm.ARCHITECTURES`, of what sizes."""

    architecture: str
    sizes: Sizes
    modalities = ("image", "audio")
    frozen = False
    stand_ins = False


class ClstmArchitecture(Architecture):
    """Convolutional LSTMs of written and spoken digits (Barnum, Talukder and Yue 2020)."""

    name = "C-LSTM of images and sound"
    variants = ("clstm_initial", "clstm_second", "clstm_fc")
    reads = ("clstm",)
    unsupported = {  # noqa: RUF012
        "port": "its weights are not carried over yet",
        "reliance": "its two inputs meet at once; figures 3 and 4 of fusion_keras.digits take one "
        "away",
        "robustness": "fusion_keras.digits draws its accuracy under noise",
        "pytorch": "it is trained by Keras alone, and the PyTorch reference has none",
        "ask": "it is asked about the rows of its data alone, evaluate(split)",
        "without": "it always takes both, leave --without out",
    }

    @property
    def sources(self):
        from fusion_keras.data.digit_set import READS

        return {"digits": READS}

    def check(self, config):
        if config.data.source not in self.sources:
            raise UsageError(
                f"{config.variant} takes images and sound, and data.source is "
                f"{config.data.source!r}: start from --config=configs/digits_small.py, or "
                "configs/digits.py for the full size."
            )
        if config.recipe != "digits":
            raise UsageError(
                f"config.recipe is {config.recipe!r}; {config.variant} is trained with recipe "
                "digits, whose settings --config.train.* changes."
            )

    def describes(self, values: dict) -> bool:
        """Whether these are values of one of its specs."""
        return "architecture" in values

    def to_dict(self, spec):
        return dataclasses.asdict(spec)

    def from_dict(self, values):
        from fusion_keras.backbones.clstm import Sizes

        return ClstmSpec(values["architecture"], Sizes(**values["sizes"]))

    def modalities(self, config):
        return ClstmSpec.modalities

    def backbones(self, config):
        return ()

    def spec(self, config):
        from fusion_keras.backbones.clstm import Sizes

        return ClstmSpec(config.variant, Sizes(**config.clstm.to_dict()))

    def readers(self, config):
        return {}

    def check_data(self, config):
        from fusion_keras.data.digit_set import CLASSES, check_folder

        check_folder(config.data)
        return CLASSES

    def data(self, config):
        from fusion_keras.data.digit_set import load_digit_set

        sizes = self.spec(config).sizes
        return load_digit_set(config.data, sizes.image, sizes.steps)

    def presets(self, config, encodings):
        return {}

    def arrays(self, dataset, spec):
        return {"image": dataset.inputs["image"], "spectrogram": dataset.inputs["audio"]}

    def inputs(self, spec, presets, config):
        from fusion_keras.data.digit_files import RATE
        from fusion_keras.data.spectrogram import STRIDE, WINDOW

        sound = {"rate": RATE, "window": WINDOW, "stride": STRIDE}
        sizes = spec.sizes
        return {
            "image": {"size": sizes.image},
            "spectrogram": {"steps": sizes.steps, "bins": sizes.bins, **sound},
        }

    def build(self, spec, presets, *, num_classes, sequence_length=None, regression=False):
        return build(spec)

    def rebuilt(self, model, spec):
        return _halves(model)

    def weights(self, model, spec):
        from fusion_keras.fusion.state_dict import clstm_weights

        return clstm_weights(model)

    def describe(self, spec, graph):
        from fusion_keras.fusion.describe import describe_layers

        return describe_layers(graph.model)

    def next_steps(self, description, given):
        return (
            "compare the three levels of fusion under noise with\n"
            "  python -m fusion_keras.digits --figure=1 --config.data.path="
            f"{description['config']['data']['path']}"
        )

    def backbone_names(self, inputs, config):
        return {}

    def ask(self, inputs):
        return ""


def build(of: ClstmSpec) -> Graph:
    """Build the model; see `backbones.clstm.build_clstm`.

    Returns:
        The model; `encoders`, all in front of the dense layers, gives `features` float32 [B, D].

    Raises:
        UsageError: sizes that cannot be.
    """
    from fusion_keras.backbones.clstm import build_clstm

    return _halves(build_clstm(of.architecture, of.sizes))


def _halves(model: keras.Model) -> Graph:
    import keras

    from fusion_keras.fusion.graph import Graph

    inputs = {x.name: x for x in model.inputs}
    features = model.get_layer(FEATURES).output
    feature_input = keras.Input(features.shape[1:], dtype=features.dtype, name=FEATURES)
    logits = model.get_layer("logits")(model.get_layer("hidden")(feature_input))
    return Graph(
        model=model,
        encoders=keras.Model(inputs, {FEATURES: features}, name="encoders"),
        fusion=keras.Model({FEATURES: feature_input}, {"logits": logits}, name="fusion"),
        tap_names={},
    )
