"""The C-LSTMs of images and sound, as what the rest knows of a fusion architecture.

A fusion spec describes taps and junctions of two backbones; these have none, their layers are
the fusion (`backbones.clstm`). So their spec is a name and sizes. What stands between spec
and files goes through here for both kinds.
"""

from __future__ import annotations

import dataclasses

import keras

from fusion_keras.backbones.clstm import Sizes, build_clstm
from fusion_keras.data.digit_files import RATE
from fusion_keras.data.spectrogram import STRIDE, WINDOW
from fusion_keras.errors import UsageError
from fusion_keras.fusion import graph, spec
from fusion_keras.fusion.graph import Graph
from fusion_keras.fusion.spec import FusionSpec

FEATURES = "features"


@dataclasses.dataclass(frozen=True)
class ClstmSpec:
    """Which architecture, a key of `backbones.clstm.ARCHITECTURES`, of what sizes."""

    architecture: str
    sizes: Sizes
    modalities = ("image", "audio")
    frozen = False


def spec_of(variant: str, clstm) -> ClstmSpec:
    """The spec of a variant with the sizes of `config.clstm`."""
    return ClstmSpec(variant, Sizes(**clstm.to_dict()))


def to_dict(of: FusionSpec | ClstmSpec) -> dict:
    """A spec of either kind as plain JSON types, for `config.json`."""
    return dataclasses.asdict(of) if isinstance(of, ClstmSpec) else spec.to_dict(of)


def build(of: ClstmSpec) -> Graph:
    """Build the model; see `backbones.clstm.build_clstm`.

    Returns:
        The model; `encoders`, all in front of the dense layers, gives `features` float32 [B, D].

    Raises:
        UsageError: sizes that cannot be.
    """
    return _halves(build_clstm(of.architecture, of.sizes))


def rebuilt(model: keras.Model, values: dict) -> Graph:
    """The graph of a model that was read from a run, of either kind.

    Args:
        model: as `build` or `graph.build` made it, saved and loaded again; on any backend.
        values: the spec in the run's `config.json`.
    """
    if is_clstm(values):
        return _halves(model)
    return graph.rebuilt(model, spec.from_dict(values))


def is_clstm(values: dict) -> bool:
    """Whether a spec in a run's `config.json` is a C-LSTM's."""
    return "architecture" in values


def refuse_clstm(values: dict, what: str) -> None:
    """Raises UsageError for a C-LSTM's spec: `what`, a sentence's end, is not for it."""
    if is_clstm(values):
        raise UsageError(f"{values['architecture']} is a C-LSTM of images and sound: {what}.")


def inputs_of(of: ClstmSpec) -> dict:
    """How an image and a recording become the model's inputs, for `config.json`."""
    sound = {"rate": RATE, "window": WINDOW, "stride": STRIDE}
    sizes = of.sizes
    return {
        "image": {"size": sizes.image},
        "spectrogram": {"steps": sizes.steps, "bins": sizes.bins, **sound},
    }


def _halves(model: keras.Model) -> Graph:
    inputs = {x.name: x for x in model.inputs}
    features = model.get_layer(FEATURES).output
    given = keras.Input(features.shape[1:], dtype=features.dtype, name=FEATURES)
    logits = model.get_layer("logits")(model.get_layer("hidden")(given))
    return Graph(
        model=model,
        encoders=keras.Model(inputs, {FEATURES: features}, name="encoders"),
        fusion=keras.Model({FEATURES: given}, {"logits": logits}, name="fusion"),
    )
