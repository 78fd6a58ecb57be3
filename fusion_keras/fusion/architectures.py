"""The architectures: junctions between backbones, and the C-LSTMs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from fusion_keras.data.modalities import INPUT_OF, MODALITIES, PRESENT
from fusion_keras.errors import UsageError
from fusion_keras.fusion import spec as specs
from fusion_keras.fusion.architecture import Architecture
from fusion_keras.fusion.audio_visual import ClstmArchitecture, ClstmSpec
from fusion_keras.fusion.variants import VARIANTS, make_spec, modalities_of

# What `bench.predict` is given of each modality.
_ASKED = {
    "text": '--text "..."',
    "image": "--image FILE",
    "audio": "--audio FILE.wav",
    "tabular": "--tabular NAME=VALUE ...",
}


class FusionArchitecture(Architecture):
    """Backbones, one for each modality, and junctions between their taps: a `FusionSpec`."""

    name = "model of junctions between backbones"
    variants = tuple(VARIANTS)
    reads = (
        *("regression", "parents", "fusion", "parent", "teacher", "augment", "train.score_loss"),
        *("data.max_length", "data.part", "data.part_share", "data.split_seed"),
        *MODALITIES,
        *(f"train.{modality}_rate" for modality in MODALITIES),
    )

    @property
    def sources(self):
        from fusion_keras.data.load import SOURCES

        return {name: source.reads for name, source in SOURCES.items()}

    def check(self, config):
        source = config.data.source
        if source in CLSTM.sources:
            raise UsageError(
                f"data.source is {source!r}, which has no sentences for {config.variant}: one of "
                f"{', '.join(CLSTM.variants)} is wanted as --variant."
            )
        if source not in self.sources:
            raise UsageError(
                f"got data.source={source!r}, wanted one of {', '.join(self.sources)}, or "
                f"{', '.join(CLSTM.sources)} with a C-LSTM."
            )

    def to_dict(self, spec):
        return specs.to_dict(spec)

    def from_dict(self, values):
        return specs.from_dict(values)

    def modalities(self, config):
        return modalities_of(config.variant, config.fusion)

    backbones = modalities

    def spec(self, config):
        return make_spec(config.variant, config.fusion, self.facts(config))

    def facts(self, config) -> dict:
        """Modality -> what is known of its backbone without loading it."""
        from fusion_keras.modalities import MODALITY

        return {m: MODALITY[m].facts(config) for m in modalities_of(config.variant, config.fusion)}

    def readers(self, config):
        from fusion_keras.modalities import MODALITY

        taken = [MODALITY[m] for m in modalities_of(config.variant, config.fusion)]
        # Files first: an unusable one takes its row from the others, too.
        taken = sorted(taken, key=lambda modality: not modality.files)
        return {m.name: m.reader(config) for m in taken}

    def check_data(self, config):
        from fusion_keras.data.load import check_source

        readers, keep = self.readers(config), keeps_incomplete(config)
        return check_source(config.data, readers, scores=config.regression, keep_incomplete=keep)

    def data(self, config):
        from fusion_keras.data.load import load_dataset

        return load_dataset(config.data, self.readers(config), keeps_incomplete(config))

    def presets(self, config, encodings):
        from fusion_keras.modalities import MODALITY

        taken = modalities_of(config.variant, config.fusion)
        return {m: MODALITY[m].load(config, encodings.get(m)) for m in taken}

    def arrays(self, dataset, spec):
        import numpy as np

        arrays = {INPUT_OF[m]: dataset.inputs[m] for m in spec.modalities}
        if spec.stand_ins:
            present = {m: dataset.has(m)[:, None].astype(np.float32) for m in spec.modalities}
            arrays |= {PRESENT[m]: values for m, values in present.items()}
        return arrays

    def inputs(self, spec, presets, config):
        from fusion_keras.modalities import MODALITY

        taken = [MODALITY[m] for m in spec.modalities]
        inputs = {m.input: m.described(presets[m.name], config) for m in taken}
        if spec.stand_ins:
            inputs |= {m.present: {"present": 1, "missing": 0} for m in taken}
        return inputs

    def build(self, spec, presets, **options):
        from fusion_keras.fusion.graph import build

        return build(spec, presets, **options)

    def rebuilt(self, model, spec):
        from fusion_keras.fusion.graph import rebuilt

        return rebuilt(model, spec)

    def weights(self, model, spec):
        from fusion_keras.fusion.state_dict import junction_weights

        return junction_weights(model, spec)

    def describe(self, spec, graph):
        from fusion_keras.fusion.describe import describe

        return describe(spec, graph)

    def draw(self, spec, config, parts, title, path):
        from fusion_keras.fusion.draw import draw

        tops = {m: facts.num_depths for m, facts in self.facts(config).items()}
        draw(spec, tops, parts, title, path)
        return True

    def next_steps(self, description, given):
        config = description["config"]
        taken = [m for m in config["fusion"]["modalities"].split("+") if not _left_out(m, config)]
        fused = ["late", "inter", "early"] if len(taken) > 1 else []
        # Stand-ins are for what one modality alone cannot do without.
        variants = fused if description.get("spec", {}).get("stand_ins") else [*taken, *fused]
        what = "variants and seeds" if len(taken) > 1 else "seeds"
        # A sweep would divide them.
        whole = [re.sub(r"(text_column)=([^(].*,.*)", r"\1=(\2)", flag) for flag in given]
        return f"compare {what} with\n  python -m fusion_keras.sweep " + shlex.join(
            [f"--variant={','.join(variants)}", "--seed=0,1,2", *whole]
        )

    def backbone_names(self, inputs, config):
        taken = [m for m in MODALITIES if INPUT_OF[m] in inputs]
        return {m: Path(config[m]["preset"]).name for m in taken}

    def ask(self, inputs):
        asked = dict(_ASKED)
        if columns := inputs.get(INPUT_OF["text"], {}).get("columns"):
            asked["text"] = " ".join(f'--text "{column}=..."' for column in columns)
        return " ".join(asked[m] for m in MODALITIES if INPUT_OF[m] in inputs)


def _left_out(modality: str, config: dict) -> bool:
    """Whether a table has no column of it."""
    data = config["data"]
    return data["source"] == "manifest" and data["manifest"].get(f"{modality}_column") == ""


def keeps_incomplete(config) -> bool:
    """Whether a run keeps the rows of its data that lack a modality."""
    kept = config.data.incomplete
    return kept == "keep" or (kept == "auto" and config.fusion.stand_ins)


FUSION, CLSTM = FusionArchitecture(), ClstmArchitecture()
ARCHITECTURES: tuple[Architecture, ...] = (FUSION, CLSTM)


def of_variant(variant: str) -> Architecture:
    """The architecture that builds a variant.

    Raises:
        UsageError: there is no such variant.
    """
    for architecture in ARCHITECTURES:
        if variant in architecture.variants:
            return architecture
    known = ", ".join(v for a in ARCHITECTURES for v in a.variants)
    raise UsageError(f"Unknown variant {variant!r}; one of {known} is wanted.")


def of_spec(spec) -> Architecture:
    """The architecture of a spec."""
    return CLSTM if isinstance(spec, ClstmSpec) else FUSION


def of_values(values: Mapping) -> Architecture:
    """The architecture of a spec in a run's `config.json` or an artifact's `meta.json`."""
    return CLSTM if CLSTM.describes(values) else FUSION
