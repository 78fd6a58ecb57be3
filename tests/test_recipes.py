"""Recipes: the paper's numbers, who wins, what is refused, and the help on settings."""

import functools

import pytest
from ml_collections import ConfigDict

from fusion_keras import cli
from fusion_keras.config import copied, get_config
from fusion_keras.errors import UsageError
from fusion_keras.fusion.architectures import ARCHITECTURES
from fusion_keras.fusion.variants import VARIANTS
from fusion_keras.training.plan import make_plan
from fusion_keras.training.recipes import RECIPES, resolve

# Willis and Bakos 2025, section 3.5. MobileNetV2: "150 epochs ... stochastic gradient descent
# ... learning rate of 1e-4, momentum of 0.9 and weight decay of 1e-4"; BERT: "12 epochs ...
# Adam ... 1e-5, beta coefficients 0.9 and 0.999 and epsilon of 1e-8"; late: "100 epochs ...
# 1e-3 with a momentum of 0.9 and a weight decay of 1e-4"; intermediate and early: "stochastic
# gradient descent ... 1e-4, momentum of 0.9, and weight decay 1e-4".
SGD = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-4}
SECTION_3_5 = {
    "image": {**SGD, "epochs": 150, "learning_rate": 1e-4, "image_rate": 1e-4},
    "text": {
        "optimizer": "adam",
        "epochs": 12,
        "learning_rate": 1e-5,
        "text_rate": 1e-5,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
        "weight_decay": 0.0,
    },
    "late": {**SGD, "epochs": 100, "learning_rate": 1e-3},
    "inter": {**SGD, "learning_rate": 1e-4, "text_rate": 1e-4, "image_rate": 1e-4},
    "early": {**SGD, "learning_rate": 1e-4, "text_rate": 1e-4, "image_rate": 1e-4},
}


def config_of(**changes) -> ConfigDict:
    """The default config; `train__epochs=3` sets config.train.epochs."""
    config = get_config()
    config.update_from_flattened_dict({n.replace("__", "."): v for n, v in changes.items()})
    return config


def fields(config: ConfigDict, prefix="config"):
    """(dotted name, value) of every leaf."""
    for name in config:
        value = config[name]
        if isinstance(value, ConfigDict):
            yield from fields(value, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", value


@pytest.mark.parametrize("variant", SECTION_3_5)
def test_paper_recipe_is_section_3_5(variant):
    train = resolve(config_of(recipe="paper", variant=variant)).train
    assert train.batch_size == 32
    assert {name: train[name] for name in SECTION_3_5[variant]} == SECTION_3_5[variant]


def test_stand_ins_on_the_demo_have_parents_of_the_demo():
    config = config_of(recipe="best", variant="late")
    config.fusion.stand_ins = True
    config.augment.drop_text = config.augment.drop_image = 0.3
    assert set(make_plan(config).parents) == {"text", "image"}


def test_a_part_of_the_rows_is_refused_where_they_are_divided_anyway():
    config = config_of(recipe="paper", variant="late")
    config.data.part = "first"
    with pytest.raises(UsageError, match=r"leave part out, or set --config.parent.share=1"):
        make_plan(config)


@pytest.mark.parametrize("variant", VARIANTS)
def test_paper_recipe_adds_nothing_that_the_paper_does_not_name(variant):
    config = resolve(config_of(recipe="paper", variant=variant))
    train = config.train
    assert (train.schedule, train.warmup) == ("constant", 0.0)
    assert (train.clip_norm, train.label_smoothing, train.patience) == (0.0, 0.0, 0)
    assert not config.augment.enabled
    assert config.parent.share == 0.5


def test_best_recipe_has_a_small_rate_for_pretrained_text_and_augments():
    config = resolve(config_of(recipe="best", variant="inter"))
    assert config.train.text_rate < config.train.learning_rate
    assert config.augment.enabled
    assert config.parent.share == 1.0


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_recipe_fills_every_open_setting(recipe, variant):
    given = config_of(recipe=recipe, variant=variant)
    # The parents of late fusion ask their own recipe.
    still_open = {name for name, value in fields(resolve(given)) if value is None}
    # Without sound or a table there is no rate of its backbone.
    absent = {f"config.train.{m}_rate" for m in ("audio", "tabular") if m != variant}
    assert still_open == {"config.parent.epochs"} | absent
    assert given.train.epochs is None, "resolve must not change the config that was given"


def test_sound_is_learned_ahead_and_at_a_rate_of_its_own():
    given = config_of(recipe="best", variant="inter", fusion__modalities="text+image+audio")
    config = resolve(given)
    assert config.parent.warm_start == ("image", "audio")
    assert config.train.audio_rate == config.train.image_rate
    alone = resolve(config_of(recipe="best", variant="audio"))
    assert alone.train.audio_rate == 1e-3


def test_a_run_of_one_modality_is_the_same_whatever_others_join():
    one, other = (
        resolve(config_of(variant="text", fusion__modalities=named))
        for named in ("text+image", "text+image+audio")
    )
    assert one.to_dict() == other.to_dict()


def test_values_of_the_user_win_over_the_recipe():
    given = {
        "train__epochs": 3,
        "train__optimizer": "sgd",
        "train__learning_rate": 0.25,
        "train__text_rate": 0.0,
        "train__warmup": 0.0,
        "train__select": "nll",
        "parent__share": 0.75,
        "augment__enabled": False,
    }
    config = resolve(config_of(recipe="best", **given))
    for name, value in given.items():
        section, field = name.split("__")
        assert config[section][field] == value
    assert config.train.image_rate == 3e-5


def test_a_resolved_config_is_not_changed_by_another_recipe():
    once = resolve(config_of(recipe="paper", variant="early"))
    again = copied(once)
    again.recipe = "best"
    assert resolve(again).to_dict() == again.to_dict()


def test_a_resolved_config_cannot_be_changed():
    config = resolve(config_of())
    with pytest.raises(AttributeError, match="immutable"):
        config.train.epochs = 3
    copied(config).train.epochs = 3
    assert config.train.epochs == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data__path": "my.csv"}, r"data\.path is set, and the source demo reads no"),
        ({"data__source": "mosi", "data__manifest__id_column": "n"}, r"\(manifest reads it\)"),
        ({"data__source": "mosi", "data__split_fractions": (0.5, 0.2, 0.3)}, "source mosi"),
        ({"data__source": "manifest", "data__mosi__raw_dir": "Raw"}, r"\(mosi reads it\)"),
        ({"data__source": "manifest", "data__demo__size": 50}, r"data\.demo\.size is set"),
        ({"data__digits__train_pairs": 7}, r"\(digits reads it\)"),
    ],
)
def test_a_setting_of_another_source_is_refused(changes, said):
    with pytest.raises(UsageError, match=said):
        resolve(config_of(**changes))


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_a_sweep_over_variants_passes_on_is_taken_by_each(variant):
    passed = {"image__size": 96, "text__dropout": 0.1, "audio__seconds": 2.0, "fusion__blocks": 2}
    passed |= {"train__image_rate": 1e-3, "parent__share": 0.5, "data__part_share": 0.25}
    resolve(config_of(variant=variant, **passed))


def test_who_reads_a_setting_is_said_of_settings_there_are():
    of_sources = [f"data.{f}" for a in ARCHITECTURES for fs in a.sources.values() for f in fs]
    config = get_config()
    for name in (*of_sources, *(name for a in ARCHITECTURES for name in a.reads)):
        assert functools.reduce(lambda section, part: section[part], name.split("."), config) != {}


def test_an_unknown_source_ends_with_a_sentence():
    with pytest.raises(UsageError, match="'mosei', wanted one of demo, manifest, mosi, or digits"):
        resolve(config_of(data__source="mosei"))


def test_unknown_recipe_lists_the_known_ones():
    with pytest.raises(UsageError, match="'quick'; one of paper, best, distil, demo"):
        resolve(config_of(recipe="quick"))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("train__optimizer", "lion", "optimizer is 'lion'; one of sgd, adam, adamw"),
        ("train__schedule", "step", "schedule is 'step'; one of constant, linear, cosine"),
        ("train__select", "f1", "select is 'f1'; one of accuracy, nll, last"),
        ("train__batch_size", 0, "batch_size is 0; more than 0"),
        ("train__accumulate", 0, "accumulate is 0, parts of each batch of 32; a number from 1"),
        ("train__accumulate", 5, "accumulate is 5, .* of 32; a number from 1 that divides it"),
        ("train__epochs", 0, "epochs is 0; more than 0"),
        ("train__learning_rate", 0.0, "learning_rate is 0.0; more than 0"),
        ("train__learning_rate", float("nan"), "learning_rate is nan; more than 0"),
        ("train__epsilon", 0.0, "epsilon is 0.0; more than 0"),
        ("train__text_rate", -1.0, "text_rate is -1.0; 0 or more"),
        ("train__image_rate", -1.0, "image_rate is -1.0; 0 or more"),
        ("train__weight_decay", -0.1, "weight_decay is -0.1; 0 or more"),
        ("train__clip_norm", -1.0, "clip_norm is -1.0; 0 or more"),
        ("train__patience", -1, "patience is -1; 0 or more"),
        ("train__clip_norm", float("nan"), "clip_norm is nan; 0 or more"),
        ("train__score_loss", -0.5, "score_loss is -0.5; 0 or more"),
        ("train__warmup", 1.0, "warmup is 1.0; a share"),
        ("train__momentum", 1.0, "momentum is 1.0; a share"),
        ("train__beta_1", 1.0, "beta_1 is 1.0; a share"),
        ("train__beta_2", -0.1, "beta_2 is -0.1; a share"),
        ("train__label_smoothing", 1.0, "label_smoothing is 1.0; a share"),
        ("augment__scale", (0.9,), r"scale \(0.9,\), wanted two numbers"),
        ("augment__scale", (0.9, float("inf")), r"scale \(0.9, inf\), wanted two numbers"),
        ("augment__shift", 2.0, "shift=2.0, wanted 0 to 1"),
        ("augment__rotate", -10.0, "rotate=-10.0, wanted 0 or more"),
        ("augment__mixup", float("nan"), "mixup=nan, wanted 0 or more"),
        ("variant", "intre", "intre"),
        ("parent__share", 0.0, "parent.share is 0.0; a share"),
        ("parent__share", 1.5, "parent.share is 1.5; a share"),
        ("dtype", "float16", "dtype is 'float16'; float32 or bfloat16"),
    ],
)
def test_a_value_out_of_range_is_refused(field, value, words):
    with pytest.raises(UsageError, match=words):
        resolve(config_of(**{field: value}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"edits": 1.0}, "edits is 1.0; a share"),
        ({"edits": -0.1}, "edits is -0.1; a share"),
        ({"edits": 0.3, "pairs": 0}, "edits is 0.3 and config.teacher.pairs 0"),
    ],
)
def test_changes_of_sentences_that_cannot_be_are_refused(changes, words):
    given = {f"teacher__{name}": value for name, value in changes.items()}
    with pytest.raises(UsageError, match=words):
        resolve(config_of(variant="early", teacher__runs=("late",), **given))


def test_sentences_of_a_model_without_text_are_not_changed():
    with pytest.raises(UsageError, match=r"edits is 0\.3, and this image takes no text"):
        resolve(config_of(variant="image", teacher__runs=("late",), teacher__edits=0.3))


def test_patience_is_refused_where_every_epoch_is_better():
    config = config_of(recipe="best", variant="inter", train__patience=3)
    with pytest.raises(UsageError, match=r"patience is 3 and config.train.select last"):
        resolve(config)
    config.train.select = "nll"
    assert resolve(config).train.patience == 3


def test_help_names_every_setting_once():
    lines = (line.strip() for line in cli.settings_help().splitlines())
    named = [line.split("=")[0] for line in lines if line.startswith("--config.")]
    assert sorted(named) == sorted(f"--{name}" for name, _ in fields(get_config()))


def test_help_explains_every_setting():
    lines = cli.settings_help().splitlines()
    named = [i for i, line in enumerate(lines) if line.startswith("  --config.")]
    unexplained = [lines[i] for i in named if not lines[i + 1 : i + 2][0].startswith("      ")]
    assert not unexplained


def test_help_shows_defaults_and_meaning():
    text = cli.settings_help()
    assert "--config.fusion.width=0\n      Joint width" in text
    assert "--config.train.epochs=(recipe)" in text
    assert "DATA.MANIFEST\n  --config.data.manifest.text_column=" in text
