"""What README tells its reader to type runs: with tiny settings, or dry, where it takes minutes."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.mosi_layout import FRAMES, write_clip

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# Command -> what makes it quick.
TINY = (
    *("--config.data.demo.size=60", "--config.text.preset=random:tiny_bert"),
    *("--config.image.preset=random:tiny_mobilenet", "--config.train.epochs=1"),
)
QUICKLY = {"fusion_keras": (), "fusion_keras.train": TINY, "bench.study": ("--dry_run",)}


def commands() -> list[list[str]]:
    """The module and the arguments of each."""
    blocks = re.findall(r"(?ms)^```(?:bash)?\n(.*?)^```", README)
    lines = [*"\n".join(blocks).splitlines(), *re.findall(r"`(python -m [^`]+)`", README)]
    typed = [line for line in lines if line.startswith("python -m ")]
    return [shlex.split(line)[2:] for line in typed]


def test_every_command_is_known_here():
    assert {module for module, *_ in commands()} == set(QUICKLY)


@pytest.mark.parametrize("command", commands(), ids=lambda command: command[0])
def test_a_command_runs(entries, tmp_path, command):
    module, *arguments = command
    folder = [] if module == "fusion_keras" else [f"--workdir={tmp_path / 'runs'}"]
    done = entries.run(module, *arguments, *QUICKLY[module], *folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_program_answers_each_picture_of_a_clip(tiny_artifact, tmp_path):
    [program] = re.findall(r"(?ms)^```python\n(.*?)^```", README)
    (tmp_path / "study" / "artifacts").mkdir(parents=True)
    (tmp_path / "study" / "artifacts" / "inter-s0").symlink_to(tiny_artifact)
    write_clip(tmp_path / "clip.mp4", np.full((32, 32, 3), 200, np.uint8))
    done = subprocess.run(
        [sys.executable, "-c", program, "clip.mp4"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == FRAMES
    assert all(re.fullmatch(r" *\d (negative|positive) [\d.]+ % in [\d.]+ ms", a) for a in answers)
