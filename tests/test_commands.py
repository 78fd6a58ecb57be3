"""`python -m fusion_keras` lists the commands."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def listed(*arguments: str, folder=ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "fusion_keras", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_every_command_is_there_with_what_it_is_for():
    done = listed()

    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "python -m" in line]
    said = dict(re.fullmatch(r"  python -m (\S+) +(\w.+)", line).groups() for line in lines)
    run = {
        f"fusion_keras.{path.stem}"
        for path in (ROOT / "fusion_keras").glob("[a-z]*.py")
        if '\nif __name__ == "__main__":' in path.read_text()
    }
    assert "fusion_keras.train" in run
    assert run <= set(said)
    assert {"export", "bench", "bench.study", "bench.report"} <= set(said)
    assert max(map(len, lines)) <= 121
    assert listed("--help").stdout == done.stdout
    assert listed("--version").stdout == f"{done.stdout.split('.  ')[0].split('. Each')[0]}\n"


def test_something_else_is_refused_with_what_to_do():
    done = listed("train")

    assert done.returncode == 2
    assert "got 'train'; commands are modules: python -m fusion_keras.train --help" in done.stderr
