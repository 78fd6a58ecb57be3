"""What the command line of a training says of its flags."""

import subprocess
import sys

import pytest

from fusion_keras.fusion.architectures import of_variant
from fusion_keras.training_flags import shared


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--config.train.epochs=many", "got 'many', wanted a whole number"),
        ("--config.train.learning_rate=fast", "got 'fast', wanted a number"),
        ("--seed=1.5", "got '1.5', wanted a whole number"),
    ],
)
def test_what_is_no_number_is_told_in_plain_words(flag, said):
    command = [sys.executable, "-m", "fusion_keras.train", flag]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert line.startswith(f"error: flag {flag}: {said} (--help")


def test_a_comparison_takes_over_what_is_not_of_one_variant():
    of_all = ["--config=mine.py", "--config.data.path=a b.csv", "--config.train.epochs=3"]
    of_one = ["--variant=early", "--run=there", "--config.fusion.blocks=2", "--recipe=distil"]
    taught = ["--teacher=late", "--config.teacher.temperature=2", "--seed", "1", "--quiet"]
    sound = ["--config.fusion.modalities=text+image+audio", "--recipe", "best"]
    assert shared([*of_one, *of_all, *taught, *sound]) == [*of_all, *sound]


def test_of_a_flag_given_twice_the_last_is_shared():
    given = ["--config.train.epochs", "3", "--recipe=best", "--config.train.epochs=1"]
    assert shared(given) == ["--recipe=best", "--config.train.epochs=1"]


def test_the_next_command_is_whole():
    data = {"source": "manifest", "manifest": {"text_column": "text", "audio_column": "sound"}}
    description = {"config": {"fusion": {"modalities": "text+audio"}, "data": data}}
    said = of_variant("early").next_steps(description, ["--config.data.path=a b.csv"])
    assert said.endswith(
        "python -m fusion_keras.sweep --variant=text,audio,late,inter,early --seed=0,1,2 "
        "'--config.data.path=a b.csv'"
    )
    said = of_variant("early").next_steps(description, ["--config.data.manifest.text_column=a,b"])
    assert said.endswith("'--config.data.manifest.text_column=(a,b)'")
    withheld = {**description, "spec": {"stand_ins": True}}
    said = of_variant("early").next_steps(withheld, ["--config.fusion.stand_ins"])
    assert "--variant=late,inter,early --seed=0,1,2 --config.fusion.stand_ins" in said
    data["manifest"]["text_column"] = ""
    said = of_variant("early").next_steps(description, [])
    assert said == "compare seeds with\n  python -m fusion_keras.sweep --variant=audio --seed=0,1,2"
