"""Recipes: what `config.train`, `config.parent` and `config.augment` are, for each variant.

`paper` follows Willis and Bakos 2025, section 3.5. What that section leaves open, and
what we chose:
- Epochs of intermediate and early fusion: 100, as for late fusion.
- The optimiser of late fusion: SGD, as its momentum and weight decay suggest.
- `late_score`, `hybrid` and `input` are not in the paper: as late, early and early.
- Choice of the epoch: the best validation accuracy. The paper names no rule; the test
  split must not make the choice.
- No augmentation, no schedule, no clipping: none is mentioned.
- Sound and tables are not in the paper: as images.
- The parents of late fusion learn on one half of the training data and its head on the
  other: section 3.3.1 says "a subset" and "another subset".

`digits` follows Barnum, Talukder and Yue 2020 (arXiv 2011.07191), appendix A.2, for their
C-LSTMs: Adam at 0.001, nothing else. Open there, and ours: batches of 32, four passes, the
choice of the epoch as above. (A.2 speaks of 87516 examples. As many whole batches of 128 has
one pass over its 11,202,076 pairs; we take it at its word, and data.digits.train_pairs sets it.)

`best` is ours: AdamW with warm-up and decay to zero, so that the last epoch is the best and
a small validation split need not choose it; a small rate for pretrained text; augmentation;
and for models of both, a warm start of the images and modality dropout. Sound, whose encoder
has no pretrained weights, learns as images do, without augmentation; so do a table's columns, at
the rate of new parts. `distil` is `best` for a student: more passes, the epoch of the best
validation loss, nothing withheld or mixed. `demo` is for the built-in demo, whose image backbone
has no pretrained weights.
"""

from __future__ import annotations

from ml_collections import ConfigDict, FrozenConfigDict

from fusion_keras.config import copied, get_config
from fusion_keras.data import incomplete
from fusion_keras.data.augment import AugmentSpec
from fusion_keras.data.modalities import DROPS, MODALITIES
from fusion_keras.errors import UsageError
from fusion_keras.fusion.architectures import of_variant
from fusion_keras.fusion.variants import FROZEN
from fusion_keras.training import multi_label
from fusion_keras.training.optimizers import OPTIMIZERS
from fusion_keras.training.unread import check_read

_PYTORCH_SGD = {
    "optimizer": "sgd",
    "learning_rate": 1e-4,
    "text_rate": 1e-4,
    "image_rate": 1e-4,
    "audio_rate": 1e-4,
    "tabular_rate": 1e-4,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-8,
    "schedule": "constant",
    "warmup": 0.0,
    "clip_norm": 0.0,
    "label_smoothing": 0.0,
    "patience": 0,
    "select": "accuracy",
    "epochs": 100,
}


def _paper(variant: str) -> dict:
    if variant == "text":
        rates = {"learning_rate": 1e-5, "text_rate": 1e-5, "image_rate": 1e-5}
        return {**_PYTORCH_SGD, **rates, "optimizer": "adam", "weight_decay": 0.0, "epochs": 12}
    if variant in ("image", "audio", "tabular"):
        return {**_PYTORCH_SGD, "epochs": 150}
    if variant in ("late", "late_score"):
        return {**_PYTORCH_SGD, "learning_rate": 1e-3}
    return _PYTORCH_SGD


_ADAMW = {
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "text_rate": 3e-5,
    "image_rate": 3e-5,
    "audio_rate": 3e-5,
    "tabular_rate": 1e-3,
    "momentum": 0.9,
    "weight_decay": 0.05,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-8,
    "schedule": "cosine",
    "warmup": 0.1,
    "clip_norm": 1.0,
    "label_smoothing": 0.1,
    "patience": 0,
    "select": "last",
    "epochs": 5,
}


def _best(variant: str) -> dict:
    if variant in ("late", "late_score"):
        # Each epoch has four augmented images of every row: a hundred passes.
        return {**_ADAMW, "epochs": 25}
    if variant == "text":
        return {**_ADAMW, "learning_rate": 5e-4, "schedule": "linear", "epochs": 4}
    if variant in ("image", "audio", "tabular"):
        return {**_ADAMW, f"{variant}_rate": 1e-3, "epochs": 30}
    # The images have been learned already, and move as little as the text. A small rate times
    # a large decay leaves the backbones alone; joints would learn the training sentences by heart.
    return {**_ADAMW, "weight_decay": 10.0}


def _demo(variant: str) -> dict:
    plain = {
        "schedule": "linear",
        "weight_decay": 0.01,
        "label_smoothing": 0.0,
        "select": "accuracy",
    }
    if variant in ("late", "late_score"):
        return {**_ADAMW, **plain, "schedule": "cosine", "epochs": 25}
    # The small MobileNetV2 starts from nothing: a large rate, and alone, at its full depth,
    # more passes.
    epochs = 12 if variant in ("image", "audio", "tabular") else 4
    rates = {"text_rate": 5e-5, "image_rate": 3e-3, "audio_rate": 3e-3, "tabular_rate": 3e-3}
    return {**_ADAMW, **plain, **rates, "epochs": epochs}


def _distil(variant: str) -> dict:
    # The teacher's answers do not run out: more passes, and no rate that has fallen to zero need
    # make the choice. Smoothing would say what the teacher says better.
    taught = {"text_rate": 5e-5, "label_smoothing": 0.0, "select": "nll", "patience": 4}
    plain = {**_best(variant), **taught, "epochs": 12}
    return plain if variant in MODALITIES else {**plain, "weight_decay": 1.0}


def _digits(variant: str) -> dict:
    rates = {"learning_rate": 1e-3, "text_rate": 1e-3, "image_rate": 1e-3}
    return {**_PYTORCH_SGD, **rates, "optimizer": "adam", "weight_decay": 0.0, "epochs": 4}


RECIPES = {
    "paper": _paper,
    "best": _best,
    "distil": _distil,
    "demo": _demo,
    "digits": _digits,
}
_PARENT_SHARE = {"paper": 0.5, "best": 1.0, "distil": 1.0, "demo": 1.0, "digits": 1.0}
# Text is learned in three passes, images and sound in thirty: trained together from the start,
# the sentences are known by heart before the others are of any use.
_WARM_START = {
    "paper": (),
    "best": ("image", "audio"),
    "distil": ("image", "audio"),
    "demo": (),
    "digits": (),
}

_MILD = {
    "enabled": True,
    "shift": 0.1,
    "scale": (0.9, 1.1),
    "rotate": 10.0,
    "brightness": 0.2,
    "contrast": 0.2,
    "saturation": 0.2,
    "erase": 0.0,
    "mixup": 0.0,
    "drop_text": 0.0,
    "drop_image": 0.0,
}
_STRONG = {**_MILD, "scale": (0.85, 1.25), "rotate": 15.0, "contrast": 0.3, "erase": 0.3}
AUGMENT = {
    "paper": {**_MILD, "enabled": False},
    "best": {**_STRONG, "mixup": 0.3, "drop_text": 0.3, "drop_image": 0.1},
    # A teacher's answer is of both modalities, and of one image.
    "distil": _STRONG,
    "demo": _MILD,
    "digits": {**_MILD, "enabled": False},
}
_CHOICES = {
    "optimizer": tuple(OPTIMIZERS),
    "schedule": ("constant", "linear", "cosine"),
    "select": ("accuracy", "nll", "last"),
}


def resolve(config: ConfigDict) -> FrozenConfigDict:
    """The config with every open setting filled in by its recipe, not to be changed any more.

    Raises:
        UsageError: unknown recipe or variant, or a setting outside its range.
    """
    if config.recipe not in RECIPES:
        raise UsageError(
            f"Unknown recipe {config.recipe!r}; one of {', '.join(RECIPES)} is wanted."
        )
    of_variant(config.variant).modalities(config)  # an unknown variant, junctions that are none
    config = _filled(config)
    check_read(config, _filled)
    _check(config)
    return FrozenConfigDict(config)


def _filled(config: ConfigDict) -> ConfigDict:
    config = copied(config)
    taken = of_variant(config.variant).backbones(config)
    # Rates of backbones that are not there stay open, but for those of text and images, which the
    # runs of every version have.
    open_rates = {f"{m}_rate" for m in MODALITIES if m not in ("text", "image", *taken)}
    for name, value in RECIPES[config.recipe](config.variant).items():
        if config.train[name] is None and name not in open_rates:
            config.train[name] = value
    if config.variant in MODALITIES:
        # What others join means nothing to it: they can all start from the same run.
        config.fusion.modalities = get_config().fusion.modalities
    if config.parent.share is None:
        config.parent.share = _PARENT_SHARE[config.recipe]
    if config.parent.warm_start is None:
        joint = config.variant not in (*MODALITIES, *FROZEN)
        warm = _WARM_START[config.recipe] if joint else ()
        config.parent.warm_start = tuple(m for m in warm if m in ("text", "image", *taken))
    for name, value in AUGMENT[config.recipe].items():
        if config.augment[name] is None:
            config.augment[name] = value
    return config


def _check(config: ConfigDict) -> None:
    AugmentSpec(**{name: value for name, value in config.augment.items() if name != "enabled"})
    taken = of_variant(config.variant).modalities(config)
    # Those of text and images stand in recipes, for all variants.
    for modality in (m for m in MODALITIES if m not in ("text", "image", *taken)):
        if config.augment[DROPS[modality]]:
            raise UsageError(
                f"config.augment.{DROPS[modality]} is {config.augment[DROPS[modality]]}, and this "
                f"{config.variant} takes no {modality}: leave it out."
            )
    if config.data.incomplete not in incomplete.CHOICES:
        raise UsageError(
            f"config.data.incomplete is {config.data.incomplete!r}; one of "
            f"{', '.join(incomplete.CHOICES)} is wanted."
        )
    rows_lack = config.data.incomplete == "keep"
    if config.fusion.stand_ins:
        drops = [DROPS[modality] for modality in taken]
        withheld = rows_lack or any(config.augment[name] for name in drops)
        if not (config.augment.enabled and withheld):
            flags = " ".join(f"--config.augment.{name}=0.3" for name in drops)
            raise UsageError(
                f"config.fusion.stand_ins is set, but nothing is withheld in training: set {flags} "
                "(and --config.augment.enabled; where rows lack a modality, "
                "--config.data.incomplete=keep will do), or leave it off."
            )
    elif rows_lack and len(taken) > 1:
        raise UsageError(
            f"config.data.incomplete is keep, and this {config.variant} has nothing to put in the "
            "place of what a row lacks: set --config.fusion.stand_ins, too."
        )
    _check_teacher(config.teacher)
    _check_further(config)
    _check_labels(config)
    train = config.train
    for name, choices in _CHOICES.items():
        if train[name] not in choices:
            raise UsageError(
                f"config.train.{name} is {train[name]!r}; one of {', '.join(choices)} is wanted."
            )
    for name in ("batch_size", "epochs", "learning_rate", "epsilon"):
        if not train[name] > 0:
            raise UsageError(f"config.train.{name} is {train[name]}; more than 0 is wanted.")
    if train.accumulate < 1 or train.batch_size % train.accumulate:
        raise UsageError(
            f"config.train.accumulate is {train.accumulate}, parts of each batch of "
            f"{train.batch_size}; a number from 1 that divides it is wanted."
        )
    rates = [f"{m}_rate" for m in MODALITIES if train[f"{m}_rate"] is not None]
    for name in (*rates, "weight_decay", "clip_norm", "patience", "score_loss"):
        if not train[name] >= 0:
            raise UsageError(f"config.train.{name} is {train[name]}; 0 or more is wanted.")
    if train.patience and train.select == "last":
        raise UsageError(
            f"config.train.patience is {train.patience} and config.train.select last, by which "
            "every epoch is better than those before: set --config.train.select=nll, or "
            "--config.train.patience=0."
        )
    for name in ("warmup", "momentum", "beta_1", "beta_2", "label_smoothing"):
        if not 0 <= train[name] < 1:
            raise UsageError(f"config.train.{name} is {train[name]}; a share in [0, 1) is wanted.")
    if not 0 < config.parent.share <= 1:
        raise UsageError(
            f"config.parent.share is {config.parent.share}; a share in (0, 1] is wanted."
        )
    if not set(config.parent.warm_start) <= set(MODALITIES):
        raise UsageError(
            f"config.parent.warm_start is {config.parent.warm_start!r}; some of "
            f"{', '.join(MODALITIES)} are wanted."
        )
    if not 0 <= config.text.dropout < 1:
        raise UsageError(
            f"config.text.dropout is {config.text.dropout}; a share in [0, 1) is wanted."
        )
    if not 0 <= config.seed < 2**32:
        raise UsageError(f"config.seed is {config.seed}; 0 to {2**32 - 1} is wanted.")
    if config.dtype not in ("float32", "bfloat16"):
        raise UsageError(f"config.dtype is {config.dtype!r}; float32 or bfloat16 is wanted.")


def _check_labels(config: ConfigDict) -> None:
    kind, separator = config.data.label_kind, config.data.label_separator
    if kind not in ("single", "multi"):
        raise UsageError(f"config.data.label_kind is {kind!r}; single or multi is wanted.")
    if kind == "single" and separator != get_config().data.label_separator:
        raise UsageError(
            f"config.data.label_separator is {separator!r}, and a row has a single label: set "
            "--config.data.label_kind=multi, or leave it out."
        )
    multi_label.refuse(config, config.variant)
    if config.regression:
        multi_label.refuse(config, "regression")
    if config.teacher.runs:
        multi_label.refuse(config, "--teacher")


def _check_teacher(teacher: ConfigDict) -> None:
    if not teacher.runs and teacher.to_dict() != get_config().teacher.to_dict():
        raise UsageError(
            "Settings under config.teacher are set, and no teacher: name finished runs with "
            "--teacher=RUN, or leave the settings out."
        )
    if not 0 <= teacher.share <= 1:
        raise UsageError(f"config.teacher.share is {teacher.share}; a share in [0, 1] is wanted.")
    if not teacher.temperature > 0:
        raise UsageError(
            f"config.teacher.temperature is {teacher.temperature}; more than 0 is wanted."
        )
    if not 0 <= teacher.edits < 1:
        raise UsageError(f"config.teacher.edits is {teacher.edits}; a share in [0, 1) is wanted.")
    if teacher.edits and not teacher.pairs:
        raise UsageError(
            f"config.teacher.edits is {teacher.edits} and config.teacher.pairs 0: it changes the "
            "sentences of these rows; set config.teacher.pairs, or leave it out."
        )
    for name in ("pairs", "heads", "taps"):
        if teacher[name] < 0:
            raise UsageError(f"config.teacher.{name} is {teacher[name]}; 0 or more is wanted.")


def _check_further(config: ConfigDict) -> None:
    """Of heads and taps: that a backbone learns from them what it would not learn otherwise."""
    teacher, variant = config.teacher, config.variant
    if teacher.edits and "text" not in of_variant(variant).modalities(config):
        raise UsageError(
            f"config.teacher.edits is {teacher.edits}, and this {variant} takes no text: leave it "
            "out."
        )
    named = [name for name in ("heads", "taps") if teacher[name]]
    if not named:
        return
    given = f"config.teacher.{named[0]} is {teacher[named[0]]}"
    taken = of_variant(variant).modalities(config)
    if teacher.heads and len(taken) == 1:
        raise UsageError(
            f"{given}, and this {variant} takes {taken[0]} alone, whose head its own is: leave it "
            "out."
        )
    if variant in FROZEN or not any(config.train[f"{m}_rate"] for m in taken):
        raise UsageError(
            f"{given}, and the backbones of this {variant} are frozen, so that none would learn "
            "from it: leave it out."
        )
