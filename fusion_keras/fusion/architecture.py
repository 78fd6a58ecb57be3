"""What builds a variant's model and reads its data: the contract of an architecture.

There are two: junctions between taps of backbones, as a fusion spec describes them, and the
C-LSTMs, whose layers are the fusion. What one does not support is refused here.

Nothing here imports Keras: what needs it does so when it is called.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusion_keras.errors import UsageError

if TYPE_CHECKING:
    import keras

    from fusion_keras.data.records import Dataset, Reader
    from fusion_keras.fusion.describe import Part
    from fusion_keras.fusion.graph import Graph


class Architecture(abc.ABC):
    """One way to build a model.

    A spec is a value that describes one of its models whole; `values` are its spec as plain JSON
    types, as `config.json` holds it.

    Attributes:
        name: what it is, "... is a NAME".
        variants: of `--variant`, that it builds.
        reads: settings, fields or whole sections, that others do not read.
        unsupported: what it does not support -> why, as the end of a sentence.
    """

    name: str
    variants: tuple[str, ...]
    reads: tuple[str, ...]
    unsupported: Mapping[str, str] = {}

    @property
    @abc.abstractmethod
    def sources(self) -> dict[str, tuple[str, ...]]:
        """`config.data.source` that it learns from -> the fields of `config.data` that not every
        source reads."""

    @abc.abstractmethod
    def check(self, config) -> None:
        """Raises UsageError for a source or a recipe that it is not for, or an unknown source."""

    def refuse(self, variant: str, feature: str) -> None:
        """Raises UsageError if this architecture does not support a feature."""
        if feature in self.unsupported:
            raise UsageError(f"{variant} is a {self.name}: {self.unsupported[feature]}.")

    @abc.abstractmethod
    def to_dict(self, spec) -> dict:
        """The values of a spec."""

    @abc.abstractmethod
    def from_dict(self, values: dict):
        """The spec of values."""

    @abc.abstractmethod
    def modalities(self, config) -> tuple[str, ...]:
        """What a config's variant takes.

        Raises:
            UsageError: junctions that cannot be read.
        """

    @abc.abstractmethod
    def backbones(self, config) -> tuple[str, ...]:
        """The modalities that have a backbone of their own."""

    @abc.abstractmethod
    def spec(self, config):
        """The spec of a resolved config; nothing is loaded.

        Raises:
            UsageError: settings that cannot be, or a preset that cannot be found.
        """

    @abc.abstractmethod
    def readers(self, config) -> dict[str, Reader]:
        """Modality -> what reads it, those of files first; empty for examples that are drawn.

        Raises:
            UsageError: settings of an input that cannot be.
        """

    @abc.abstractmethod
    def check_data(self, config) -> tuple[str, ...]:
        """Look at the source's files as far as it takes seconds; gives the names of the classes.

        Raises:
            UsageError: a file or a folder that is not there, or a table that cannot be used.
        """

    @abc.abstractmethod
    def data(self, config) -> Dataset:
        """The data set of a resolved config, read for what its models take.

        Raises:
            UsageError: whatever is wrong with the data.
        """

    @abc.abstractmethod
    def presets(self, config, encodings: Mapping[str, dict]) -> dict[str, Any]:
        """Modality -> its preset, loaded; empty where models have no backbones.

        Args:
            config: the resolved config.
            encodings: of the data set.
        """

    @abc.abstractmethod
    def arrays(self, dataset: Dataset, spec) -> dict[str, Any]:
        """A model's input -> [N, ...] of every row."""

    @abc.abstractmethod
    def inputs(self, spec, presets: Mapping[str, Any], config) -> dict[str, dict]:
        """A model's input -> how one example becomes it, for `config.json` and the device."""

    @abc.abstractmethod
    def build(
        self,
        spec,
        presets: Mapping[str, Any],
        *,
        num_classes: int,
        sequence_length: int | None = None,
        regression: bool = False,
    ) -> Graph:
        """The model of a spec; see `graph.build`."""

    @abc.abstractmethod
    def rebuilt(self, model: keras.Model, spec) -> Graph:
        """The graph of a model that was read from a file, over its own layers and weights."""

    @abc.abstractmethod
    def weights(self, model: keras.Model, spec) -> dict:
        """PyTorch's name -> `layouts.Weight`, in the order of the reference's modules."""

    @abc.abstractmethod
    def describe(self, spec, graph: Graph) -> list[Part]:
        """What each part of a model costs, and all of it last."""

    def draw(self, spec, config, parts: list[Part], title: str, path: Path) -> bool:
        """Draw a model into a .png or .svg file, if there is a picture of it; whether there is."""
        return False

    @abc.abstractmethod
    def next_steps(self, description: dict, given: Sequence[str]) -> str:
        """What to run after a training.

        Args:
            description: what `config.json` of the run holds.
            given: the flags of the training that others like it share.
        """

    @abc.abstractmethod
    def backbone_names(self, inputs: Mapping[str, dict], config: dict) -> dict[str, str]:
        """Modality -> how reports call its backbone, of a run's inputs and plain config."""

    @abc.abstractmethod
    def ask(self, inputs: Mapping[str, dict]) -> str:
        """The flags by which `bench.predict` is asked; "" where examples are no files."""
