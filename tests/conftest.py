"""Fixtures shared by all tests: where the real data is, and quiet libraries."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest

import fusion_keras  # noqa: F401  (sets Keras's backend before anything imports keras)

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
