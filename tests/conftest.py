"""Fixtures shared by all tests: where the real data is, and quiet libraries."""

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest

import fusion_keras  # noqa: F401  (sets Keras's backend before anything imports keras)
from tests.support.tiny import Bench, command

# TensorFlow (which keras-hub imports) and Triton (which PyTorch imports) each bring an LLVM,
# and the process aborts when Triton's comes second. PyTorch on a CPU does without Triton.
sys.modules["triton"] = None

DATA_ROOT = Path(
    os.environ.get("FUSION_KERAS_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")
).resolve()


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real data sets; the test is skipped where it is absent."""
    if not DATA_ROOT.is_dir():
        pytest.skip(f"no real data at {DATA_ROOT}: set FUSION_KERAS_DATA to the folder that has it")
    return DATA_ROOT


@pytest.fixture(scope="session")
def weights_root() -> Path:
    """The folder with real pretrained weights, beside the data."""
    folder = DATA_ROOT.parent / "weights"
    if not folder.is_dir():
        pytest.skip(f"no pretrained weights at {folder}: set FUSION_KERAS_DATA beside them")
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Bench:
    """The folder that `tiny_run` and `tiny_artifact` come from."""
    return Bench.make(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_run(tiny) -> Path:
    """A trained run of inter, with modality dropout; to be read only."""
    folder = tiny.folder / "runs" / "inter"
    drops = {"augment__drop_text": 0.2, "augment__drop_image": 0.2}
    flags = tiny.flags(
        variant="inter", run=folder, fusion__junctions="1+1:linear,2+2:attention", **drops
    )
    done = subprocess.run(command("train", *flags), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def tiny_artifact(tiny_run) -> Path:
    """It, exported at every precision for one example at a time, in two lengths; read only."""
    folder = tiny_run.parent / "artifact"
    flags = (f"--run={tiny_run}", f"--out={folder}", "--buckets=6")
    asked = [*flags, "--precisions=fp16,int8,int8_static"]
    done = subprocess.run([sys.executable, "-m", "export", *asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith('--text "..." --image FILE')
    return folder
