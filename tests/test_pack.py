"""What travels to a device: all that its commands need, and nothing else."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from bench import pack
from bench.edge import results
from bench.edge.errors import BenchError
from bench.remote import travelling

STACK = ("keras", "jax", "tensorflow", "torch", "absl", "fusion_keras", "export")
MEDIA = ("PIL", "tokenizers")
BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ImportError(name + " is not on this device")

sys.meta_path.insert(0, Blocked())
"""
# The oldest Python of a device has no numpy here: what is imported of it is of any kind.
IMPORTS = """
import importlib, sys
from unittest.mock import MagicMock
sys.modules["numpy"] = MagicMock()
for name in {names!r}:
    importlib.import_module(name)
"""


@pytest.fixture
def device(tmp_path, tiny_artifact):
    """A folder with the copy and an artifact, and a way to run a command in it."""
    pack.copy(tmp_path)
    shutil.copytree(tiny_artifact, tmp_path / "artifact")
    (tmp_path / "blocked").mkdir()

    def run(*arguments, absent=STACK) -> subprocess.CompletedProcess:
        text = BLOCKED.format(names=absent)
        (tmp_path / "blocked" / "sitecustomize.py").write_text(text)
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": "blocked", "PYTHONSAFEPATH": ""},
            capture_output=True,
            text=True,
        )

    assert "not on this device" in run("-c", "import absl").stderr
    return run


@pytest.mark.slow
def test_the_copy_alone_measures_an_artifact(device, tmp_path):
    done = device("-m", "bench", "artifact", "--precisions=fp32,int8", "--out=x.json")
    assert done.returncode == 0, done.stderr
    assert "artifact int8" in done.stdout
    assert done.stdout.rstrip().endswith("python -m bench.report x.json")
    measured = results.read(tmp_path / "x.json")
    assert [c["name"] for c in measured["contenders"]] == ["artifact fp32", "artifact int8"]
    for contender in measured["contenders"]:
        assert contender["complete"]
        assert contender["providers"] == ["CPUExecutionProvider"]
        assert contender["latency"]["count"] >= 64
        assert contender["latency"]["p90"] >= contender["latency"]["p50"] > 0
        assert set(contender["stages"]) == {"tokens", "image", "inference", "all"}
    assert measured["ratios"][0]["rounds"] >= 12
    assert measured["fingerprint"]["cores"] == len(os.sched_getaffinity(0))


@pytest.mark.slow
def test_without_pillow_and_tokenizers_the_copy_times_all_but_the_stages(device, tmp_path):
    done = device("-m", "bench", "artifact", "--out=x.json", absent=(*STACK, *MEDIA))
    assert done.returncode == 0, done.stderr
    (contender,) = results.read(tmp_path / "x.json")["contenders"]
    assert contender["complete"]
    assert "pip install tokenizers pillow" in contender["stages"]["skipped"]
    asked = device("-m", "bench.predict", "artifact", "--text=a", absent=(*STACK, *MEDIA))
    assert asked.returncode == 2
    assert "Traceback" not in asked.stderr


def test_an_application_on_a_device_asks_the_copy(device, tmp_path):
    asked = (
        "from bench.predictor import InputError, Predictor\n"
        "predictor = Predictor('artifact', precision='int8', threads=1)\n"
        "answer, error = predictor.predict_many([{'text': 'a good day'}, {'text': 5}])\n"
        "print(answer.label, isinstance(error, InputError))\n"
    )
    done = device("-c", asked)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() in (["negative", "True"], ["positive", "True"])


def commands(folder: Path) -> list[str]:
    """The copy's commands, as `python -m` takes them."""
    names = [path.stem for path in folder.glob("*.py") if path.stem != travelling.LIBRARY]
    return ["bench" if name == "__main__" else f"bench.{name}" for name in names]


def test_every_command_of_the_copy_starts_without_the_stack(device, tmp_path):
    assert len(commands(tmp_path / "bench")) == len(travelling.ENTRIES)
    for command in commands(tmp_path / "bench"):
        shown = device("-m", command, "--help", absent=(*STACK, *MEDIA, "onnxruntime", "tensorrt"))
        assert shown.returncode == 0, shown.stderr
        assert f"usage: python -m {command} " in shown.stdout


def python310() -> str | None:
    """Python 3.10, which JetPack 6 has; a name on the PATH may be nothing but a hint."""
    path = shutil.which("python3.10")
    works = path and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0
    return path if works else None


@pytest.mark.skipif(python310() is None, reason="no python3.10 that starts is on the PATH")
def test_python_3_10_imports_every_module_of_the_copy(tmp_path):
    pack.copy(tmp_path)
    modules = [
        ".".join(path.relative_to(tmp_path).with_suffix("").parts)
        for path in (tmp_path / "bench").rglob("*.py")
    ]
    done = subprocess.run(
        [python310(), "-c", IMPORTS.format(names=modules)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_file_holds_what_a_folder_does(tmp_path, capsys):
    target = tmp_path / "bench.tar.gz"
    assert pack.main([str(target)]) == 0
    with tarfile.open(target) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    assert pack.main([str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert f"Copy: {target}" in said
    assert f"Copy: {tmp_path / 'bench'}" in said
    assert said[-1].startswith(f"Next: scp -r {tmp_path / 'bench'} ARTIFACT")
    folders = (tmp_path / "bench", tmp_path / "unpacked" / "bench")
    copies = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.py")}
        for folder in folders
    ]
    assert copies[0] == copies[1]
    assert set(copies[0]) == set(travelling.travelling())


def test_another_kind_of_archive_is_refused(tmp_path, capsys):
    assert pack.main([str(tmp_path / "bench.zip")]) == 2
    assert "a file that ends in .tar.gz" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_copy_does_not_mix_with_what_is_there(tmp_path, capsys):
    (tmp_path / "bench").mkdir()
    with pytest.raises(BenchError, match="remove it, or give another folder"):
        pack.copy(tmp_path)
    assert pack.main([str(tmp_path)]) == 2
    assert "is there" in capsys.readouterr().err


def test_an_archive_that_is_there_stays(tmp_path):
    there = tmp_path / "bench.tar.gz"
    there.write_bytes(b"another's")
    with pytest.raises(BenchError, match="remove it, or give another name"):
        pack.archive(there)
    assert there.read_bytes() == b"another's"
