"""From a resolved config to everything a training needs: presets, data set, spec, model."""

from __future__ import annotations

import dataclasses
import warnings

import jax
import keras
import numpy as np

from fusion_keras.backbones.presets import (
    AudioPreset,
    ImagePreset,
    TextPreset,
    load_audio,
    load_image,
    load_text,
)
from fusion_keras.data.augment import AugmentSpec
from fusion_keras.data.cache import cache_dir
from fusion_keras.data.digit_set import load_digit_set
from fusion_keras.data.load import load_dataset
from fusion_keras.data.modalities import PRESENT
from fusion_keras.data.records import SPLITS, Dataset
from fusion_keras.data.splits import halve
from fusion_keras.errors import UsageError
from fusion_keras.fusion import audio_visual
from fusion_keras.fusion.audio_visual import ClstmSpec
from fusion_keras.fusion.graph import Graph, build, part_name
from fusion_keras.fusion.spec import FusionSpec
from fusion_keras.fusion.variants import AUDIO_VISUAL, Depths, make_spec, modalities_of


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained, on what.

    Attributes:
        config: the resolved config.
        dataset: decoded, tokenised and split.
        rows: split -> int [n]; "train" is the part that this model learns on.
        arrays: input name -> [N, ...], with `label` and perhaps `score`; of drawn examples
            `data.records.Column`s.
        spec: the architecture.
        graph: freshly built, with pretrained weights where the presets have them.
        text, image, audio: the presets, None where the spec leaves a modality out.
    """

    config: object
    dataset: Dataset
    rows: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]
    spec: FusionSpec | ClstmSpec
    graph: Graph
    text: TextPreset | None
    image: ImagePreset | None
    audio: AudioPreset | None = None

    @property
    def augment(self) -> AugmentSpec | None:
        values = self.config.augment.to_dict()
        return AugmentSpec(**values) if values.pop("enabled") else None


def set_up_keras(config) -> None:
    """Seed everything random and set the precision, before any layer is made.

    Compiled programs are kept in the cache folder: a repeated or resumed run of the same
    shapes starts at once.
    """
    jax.config.update("jax_compilation_cache_dir", str(cache_dir(config.data.cache_dir) / "jax"))
    # Without the cache, on a full disk, training is only slower.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    # Also the many small ones: a backbone's initialisers are a hundred programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if config.dtype == "bfloat16" else config.dtype)


def load_presets(config) -> tuple[TextPreset | None, ImagePreset | None, AudioPreset | None]:
    """The backbones that the variant needs: of text, of images, of sound."""
    needed = modalities_of(config.variant, config.fusion)
    text = load_text(config.text.preset, config.text.dropout) if "text" in needed else None
    image = None
    if "image" in needed:
        image = load_image(config.image.preset, config.image.size or None)
        if config.image.resize:
            changed = dataclasses.replace(image.image_spec, resize=config.image.resize)
            image = dataclasses.replace(image, image_spec=changed)
    audio = None
    if "audio" in needed:
        audio = load_audio(config.audio.preset, config.audio.seconds)
    return text, image, audio


def depths_of(
    text: TextPreset | None, image: ImagePreset | None, audio: AudioPreset | None = None
) -> Depths:
    """What the named variants must know of the backbones."""
    return Depths(
        text=text.backbone.num_depths if text else 0,
        image=image.backbone.num_depths if image else 0,
        # A transformer's taps are sequences, a convolutional backbone's are maps.
        image_scales=bool(image) and len(image.backbone.taps[0].shape) == 3,
        audio=audio.backbone.num_depths if audio else 0,
    )


def spec_of(config) -> FusionSpec:
    """The architecture of a config; loads the backbones to learn their depths.

    Raises:
        UsageError: a preset that cannot be loaded, or a spec that does not fit it.
    """
    return make_spec(config.variant, config.fusion, depths_of(*load_presets(config)))


def load_data(
    config,
    text: TextPreset | None,
    image: ImagePreset | None,
    audio: AudioPreset | None = None,
) -> Dataset:
    """The data set of a config, for what its backbones take.

    Raises:
        UsageError: whatever is wrong with the data, or sentences longer than BERT takes.
    """
    check_length(config, text)
    return load_dataset(
        config.data,
        tokenizer_dir=text.tokenizer_dir if text else None,
        image_spec=image.image_spec if image else None,
        seconds=audio.seconds if audio else None,
    )


def check_length(config, text: TextPreset | None) -> None:
    """Check the tokens of a sentence against what the text backbone takes.

    Raises:
        UsageError: too few for a single word between [CLS] and [SEP], or too many.
    """
    length = config.data.max_length
    if text and not 3 <= length <= text.backbone.max_sequence_length:
        raise UsageError(
            f"config.data.max_length is {length}; {config.text.preset} takes 3 to "
            f"{text.backbone.max_sequence_length} tokens."
        )


def prepare(config) -> Task:
    """Load presets and data, build the model.

    Raises:
        UsageError: whatever is wrong with the config or the data.
    """
    set_up_keras(config)
    if config.variant in AUDIO_VISUAL:
        return _prepare_clstm(config)
    text, image, audio = load_presets(config)
    spec = make_spec(config.variant, config.fusion, depths_of(text, image, audio))
    dataset = load_data(config, text, image, audio)
    regression = config.regression
    if regression and dataset.scores is None:
        raise UsageError(
            f"config.regression is set, but {dataset.name} has no scores: name its score column, "
            "or leave regression off."
        )
    graph = build(
        spec,
        text,
        image,
        audio,
        num_classes=len(dataset.classes),
        # Open: an exported model may take shorter inputs than training has.
        sequence_length=None,
        regression=regression,
    )
    for part in spec.modalities:
        if config.train[f"{part}_rate"] == 0:
            graph.model.get_layer(part_name(part)).trainable = False
    arrays = _arrays(dataset, spec, regression)
    return Task(config, dataset, _rows(config, dataset), arrays, spec, graph, text, image, audio)


def _prepare_clstm(config) -> Task:
    spec = audio_visual.spec_of(config.variant, config.clstm)
    graph = audio_visual.build(spec)
    dataset = load_digit_set(config.data, spec.sizes.image, spec.sizes.steps)
    rows = {split: dataset.rows(split) for split in SPLITS}
    arrays = {"label": dataset.labels, **dataset.inputs}
    return Task(config, dataset, rows, arrays, spec, graph, None, None)


def _arrays(dataset, spec, regression) -> dict[str, np.ndarray]:
    arrays = {"label": dataset.labels}
    if regression:
        arrays["score"] = dataset.scores
    if "text" in spec.modalities:
        arrays["token_ids"] = dataset.token_ids
    if "image" in spec.modalities:
        arrays["image"] = dataset.images
    if "audio" in spec.modalities:
        arrays["audio"] = dataset.audio
    if spec.stand_ins:
        there = np.ones((len(dataset), 1), np.float32)
        arrays |= {PRESENT[modality]: there for modality in spec.modalities}
    return arrays


def _rows(config, dataset) -> dict[str, np.ndarray]:
    rows = {split: dataset.rows(split) for split in SPLITS}
    part, share = config.data.part, config.data.part_share
    if part not in ("all", "first", "second"):
        raise UsageError(f"config.data.part is {part!r}; all, first or second is wanted.")
    if part != "all":
        train = rows["train"]
        groups = [dataset.groups[r] for r in train] if dataset.groups else None
        halves = halve(dataset.labels[train], groups, config.data.split_seed, share)
        rows["train"] = train[halves[0 if part == "first" else 1]]
    return rows
