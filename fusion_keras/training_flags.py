"""The flags that say what is trained: of `train`, and of each run of a sweep."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from fusion_keras import cli
from fusion_keras.errors import UsageError
from fusion_keras.setting_names import check_names

FRAMEWORKS = ("keras", "pytorch")
# What is also a setting of the config.
_SETTINGS = ("variant", "recipe", "seed", "dtype", "parents")


def define(values: flags.FlagValues, argv: Sequence[str]) -> flags.FlagHolder:
    """Define the flags, and give that of the config, which reads its file at once.

    Args:
        values: where they are defined.
        argv: the command line, its name first; the config's flags depend on its file.

    Raises:
        UsageError: a setting that there is not.
        Exception: whatever an experiment file raises; `cli.parsing_sentence` tells of it.
    """
    argv = cli.spelled(argv)
    check_names(argv)
    holder = config_flags.DEFINE_config_file(
        "config", str(cli.CONFIG_FILE), flag_values=values, sys_argv=list(argv)
    )
    text = {
        "variant": "Which fusion.",
        "recipe": "How to train: best, paper, distil, demo or digits.",
        "dtype": "float32 or bfloat16.",
    }
    for name, meaning in text.items():
        flags.DEFINE_string(name, None, meaning, flag_values=values)
    meaning = "Seed of weights, data order, dropout, augmentation."
    flags.DEFINE_integer("seed", None, meaning, flag_values=values)
    meaning = "Finished runs of one modality each to start from."
    flags.DEFINE_list("parents", None, meaning, flag_values=values)
    meaning = "Finished runs whose answers it learns from."
    flags.DEFINE_list("teacher", None, meaning, flag_values=values)
    meaning = "Devices that share each batch, or all."
    flags.DEFINE_string("devices", "1", meaning, flag_values=values)
    flags.DEFINE_enum("framework", "keras", FRAMEWORKS, "What trains it.", flag_values=values)
    cli.define_verbosity(values)
    return holder


def config_of(holder: flags.FlagHolder, values: flags.FlagValues) -> ConfigDict:
    """The config that the flags describe."""
    config = cli.read_config(holder)
    for name in _SETTINGS:
        value = values[name].value
        if value is not None:
            config[name] = tuple(value) if name == "parents" else value
    if values["teacher"].value is not None:
        config.teacher.runs = tuple(values["teacher"].value)
    return config


def parse(arguments: Sequence[str]) -> tuple[ConfigDict, str]:
    """(config, framework) of a training's command line, without its name.

    Raises:
        UsageError: a flag that there is not, or a value that it does not take.
    """
    values, argv = flags.FlagValues(), ["train", *arguments]
    try:
        holder = define(values, argv)
        rest = values(cli.spelled(argv))
    except Exception as error:
        raise UsageError(cli.parsing_sentence(error)) from error
    if len(rest) > 1:
        raise UsageError(f"Could not understand {rest[1]!r}: settings are given as --name=value.")
    return config_of(holder, values), values["framework"].value


def define_for_entry() -> flags.FlagHolder:
    """Define them as this program's own; a mistyped field ends it with a sentence."""
    cli.show_notes()
    try:
        return define(flags.FLAGS, sys.argv)
    except Exception as error:
        cli.stop(cli.parsing_sentence(error))


def shared(given: Sequence[str]) -> list[str]:
    """Of the flags of a training those that a comparison with other variants takes over."""
    own = ("variant", "seed", "run", "workdir", "parents", "teacher", "devices", "quiet", "verbose")
    own += ("coordinator", "processes", "process")
    of_variant = (
        "config.variant",
        "config.seed",
        "config.parent.",
        "config.teacher.",
        "config.fusion.",
    )
    name, of_flag = "", dict[str, list[str]]()
    for argument in given:
        if argument.startswith("-"):  # else the value of the flag before it
            name = argument.lstrip("-").partition("=")[0]
            # Of a training the last counts; a sweep refuses what is given twice.
            of_flag.pop(name, None)
        of_flag.setdefault(name, []).append(argument)
    return [
        argument
        for name, arguments in of_flag.items()
        if name in ("config.fusion.modalities", "config.fusion.stand_ins")
        or not (name in own or name.startswith(of_variant) or arguments == ["--recipe=distil"])
        for argument in arguments
    ]
