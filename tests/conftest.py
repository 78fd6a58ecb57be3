"""Fixtures shared by all tests: where the real data is, runs made once, and quiet libraries."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest
from PIL import Image

import fusion_keras  # noqa: F401  (sets Keras's backend before anything imports keras)
from tests.support import compiled, sshd
from tests.support.entries import OWNER, Entries
from tests.support.shared import once, session_folder
from tests.support.tiny import Bench

# TensorFlow (which keras-hub imports) and Triton (which PyTorch imports) each bring an LLVM,
# and the process aborts when Triton's comes second. PyTorch on a CPU does without Triton.
sys.modules["triton"] = None

DATA_ROOT = Path(
    os.environ.get("FUSION_KERAS_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")
).resolve()


def pytest_configure(config) -> None:
    """Compiled programs are kept, for all processes of this session and for later ones.

    What quick tests compile runs a few times, and XLA's optimisation would take longer.
    """
    if not hasattr(config, "workerinput") and hasattr(config, "cache"):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")))
    os.environ.setdefault(OWNER, str(os.getpid()))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    if "not slow" in config.option.markexpr:
        for name, value in compiled.fast().items():
            os.environ.setdefault(name, value)


@pytest.fixture(autouse=True)
def float32():
    """What a training in half precision sets is not left to the next test."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].config.set_dtype_policy("float32")


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
def shared_folder(tmp_path_factory) -> Path:
    """What pytest's workers make once for all of them."""
    return session_folder(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def entries(shared_folder):
    """Runs modules as `python -m` does, in a fork of a process that has imported the stack."""
    client = Entries(shared_folder)
    yield client
    client.close()


@pytest.fixture(scope="session")
def convert(shared_folder):
    """The same on Keras's TensorFlow backend."""
    client = Entries(shared_folder, "tensorflow")
    yield client
    client.close()


@pytest.fixture(scope="session")
def tiny(shared_folder) -> Bench:
    """The folder that `tiny_run` and `tiny_artifact` come from; to be read only."""
    return Bench(once(shared_folder / "tiny", Bench.make))


@pytest.fixture(scope="session")
def tiny_run(tiny, entries) -> Path:
    """A trained run of inter, with modality dropout; to be read only."""

    def make(folder: Path) -> None:
        changes = {"augment__drop_text": 0.2, "augment__drop_image": 0.2}
        changes |= {"variant": "inter", "fusion__junctions": "1+1:linear,2+2:attention"}
        done = entries.run("fusion_keras.train", *tiny.flags(run=folder, **changes))
        assert done.returncode == 0, done.stderr

    return once(tiny.folder / "runs" / "inter", make)


@pytest.fixture(scope="session")
def tiny_artifact(tiny_run, entries) -> Path:
    """It, exported at every precision for one example at a time, in two lengths; read only."""

    def make(folder: Path) -> None:
        flags = (str(tiny_run), f"--out={folder}", "--buckets=6")
        done = entries.run("export", *flags, "--precisions=fp16,int8,int8_static")
        assert done.returncode == 0, done.stderr
        assert done.stdout.rstrip().endswith('--text "..." --image FILE')

    return once(tiny_run.parent / "artifact", make)


@pytest.fixture
def write(tmp_path):
    """write(*lines) -> a manifest beside a folder with two images."""
    (tmp_path / "data" / "images").mkdir(parents=True)
    for index in range(2):
        Image.new("RGB", (4, 4)).save(tmp_path / "data" / "images" / f"{index}.png")

    def write(*lines, name="set.csv", encoding="utf-8"):
        path = tmp_path / "data" / name
        path.write_bytes("\n".join(lines).encode(encoding) + b"\n")
        return path

    return write


@pytest.fixture
def device(tmp_path):
    """A machine that ssh reaches: a real sshd on loopback."""
    folder = tmp_path / "sshd"
    folder.mkdir()
    with sshd.Sshd(folder) as started:
        yield started
