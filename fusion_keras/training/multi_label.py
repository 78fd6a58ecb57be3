"""What models of several labels a row do not support, each with why: refused here, and only here.

Sources other than a table name the settings that they read, and label_kind is none of theirs.
"""

from __future__ import annotations

from fusion_keras.errors import UsageError

UNSUPPORTED = {
    "late_score": "it averages the probabilities of classes of which one is right; "
    "--variant=late fuses the same models",
    "regression": "a score is learned beside one label a row; leave --config.regression off",
    "robustness": "it counts which class is answered; fusion_keras.reliance says what a modality "
    "is worth",
    "--teacher": "a teacher's answer is one of several classes; train without it",
    "classifier": "such a classifier tells classes apart of which one is right; train with "
    "--config.text.preset or --config.image.preset",
}


def refuse(config, feature: str) -> None:
    """Raises UsageError if the config is of several labels a row, which a feature does not take."""
    if config.data.label_kind == "multi" and feature in UNSUPPORTED:
        raise UsageError(
            f"config.data.label_kind is multi, which {feature} does not support: "
            f"{UNSUPPORTED[feature]}."
        )
