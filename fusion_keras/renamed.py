"""The names that settings had before: they go on working, with a note, for one release more."""

from __future__ import annotations

import warnings

from ml_collections import ConfigDict

# Of `config.data`: the name before it had sections -> today's.
RENAMED = {
    "text_column": "manifest.text_column",
    "image_column": "manifest.image_column",
    "audio_column": "manifest.audio_column",
    "label_column": "manifest.label_column",
    "split_column": "manifest.split_column",
    "id_column": "manifest.id_column",
    "group_column": "manifest.group_column",
    "score_column": "manifest.score_column",
    "classes": "manifest.classes",
    "raw_dir": "mosi.raw_dir",
    "frames_dir": "mosi.frames_dir",
    "demo_size": "demo.size",
    "demo_noise": "demo.noise",
    "demo_seed": "demo.seed",
    "split": "digits.split",
    "image_snr": "digits.image_snr",
    "audio_snr": "digits.audio_snr",
    "train_pairs": "digits.train_pairs",
    "valid_pairs": "digits.valid_pairs",
    "test_pairs": "digits.test_pairs",
}


class RenamedSetting(FutureWarning):
    """A setting was named as it was before; the message has today's name."""


class DataSection(ConfigDict):
    """`config.data`, which flags and experiment files may also call by the names of before."""

    def __getitem__(self, key):
        return super().__getitem__(_today(key))

    def __setitem__(self, key, value):
        section, _, field = _today(key).rpartition(".")
        if section:
            self[section][field] = value
        else:
            super().__setitem__(key, value)

    def get_type(self, key):
        section, _, field = _today(key).rpartition(".")
        return self[section].get_type(field) if section else super().get_type(key)


def _today(key: str) -> str:
    if key not in RENAMED:
        return key
    message = (
        f"config.data.{key} is now config.data.{RENAMED[key]}; the old name works in this release "
        "and not in the next."
    )
    warnings.warn(message, RenamedSetting, stacklevel=3)
    return RENAMED[key]


def with_todays_names(config: dict) -> dict:
    """The config of an older run's `config.json` under today's names, without a note.

    A comma in the name of the text column was one of the name; today it divides names.

    Args:
        config: as it was read; what is no config comes back as it is.
    """
    data = config.get("data")
    if not isinstance(data, dict):
        return config
    today = {name: value for name, value in data.items() if name not in RENAMED}
    for old in (name for name in data if name in RENAMED):
        section, field = RENAMED[old].split(".")
        today[section] = {**today.get(section, {}), field: data[old]}
    manifest = today.get("manifest")
    if isinstance(manifest, dict) and "text_join" not in manifest:
        today["manifest"] = {**manifest, **_quoted(manifest.get("text_column", ""))}
    return {**config, "data": today}


def _quoted(column: str) -> dict[str, str]:
    if "," not in column and not column.startswith('"'):
        return {}
    return {"text_column": '"' + column.replace('"', '""') + '"'}
