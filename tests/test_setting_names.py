"""A mistyped setting is told by its whole name, with what it was meant for."""

import pytest

from fusion_keras.errors import UsageError
from fusion_keras.setting_names import check_names


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("data.manifest.path", "--config.data.path"),
        ("data.encoding", "--config.data.manifest.encoding"),
        ("train.epoch", "--config.train.epochs"),
        ("epochs", "--config.train.epochs"),
    ],
)
def test_what_it_was_meant_for(given, meant):
    with pytest.raises(UsageError, match=rf"--config\.{given} is no setting.*{meant}\b"):
        check_names(["train", "--variant=inter", f"--config.{given}=3"])


def test_a_name_like_no_other_is_guessed_at_by_nobody():
    with pytest.raises(
        UsageError,
        match=r"^--config\.zzz is no setting\. python -m fusion_keras\.train --help_settings lists",
    ):
        check_names(["train", "--config.zzz=1"])


def test_settings_sections_and_names_of_before_are_taken():
    check_names(["train", "--config=configs/small.py", "--config.train.epochs=3"])
    check_names(["train", "--noconfig.regression", "--config.data.manifest=1", "config.no"])
    check_names(["train", "--config.data.text_column", "x"])
