"""What a search has measured on another machine: a real sshd on loopback."""

import json
import shutil

import pytest

from bench.edge import artifact
from fusion_keras.config import get_config
from fusion_keras.errors import MachineError, UsageError
from fusion_keras.searching import prices
from fusion_keras.searching.crew import Crew
from fusion_keras.searching.latency import Meter
from fusion_keras.searching.measuring import Elsewhere, met
from tests.support.sshd import needs_sshd

# In a search JAX has computed nothing where processes begin; here other tests have.
pytestmark = [needs_sshd, pytest.mark.filterwarnings("ignore:os.fork")]


@pytest.fixture
def crew():
    with Crew() as made:
        yield made


def draft(folder, source):
    """A copy at fp32 alone, so that it is measured soon."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("saved_model", "*int8*"))
    meta = json.loads((folder / artifact.META).read_text())
    meta["models"] = {"fp32": meta["models"]["fp32"]}
    meta["files"] = {name: sha for name, sha in meta["files"].items() if (folder / name).exists()}
    meta["seal"] = artifact.seal_of(meta)
    (folder / artifact.META).write_text(json.dumps(meta))
    return folder


@pytest.mark.slow
def test_a_draft_is_measured_there_once_and_known_from_then_on(
    device, crew, tiny_artifact, tmp_path
):
    there = met(device.flags, tmp_path, crew)
    cache, log = tmp_path / "cache", tmp_path / "bench.log"
    made = draft(tmp_path / "draft", tiny_artifact)
    meter = Meter(cache, "2 classes", "r", crew, there)
    more = (("fp32",), log, lambda folder: draft(folder, tiny_artifact))
    # One that is off ends the search, and no trial of it fails.
    device.process.terminate()
    device.process.wait()
    with pytest.raises(MachineError, match=r"127\.0\.0\.1 cannot be reached"):
        meter.measured("a model", made, *more)
    assert not meter.known("a model", ("fp32",))
    device.start()
    found = meter.measured("a model", made, *more)
    assert found["fp32"]["p90"] > 0
    assert found["fp32"]["peak_mb"] > 1
    assert {path.name for path in (device.home / "artifacts").iterdir()} == {"draft", "reference"}
    again = Meter(cache, "2 classes", "r", crew, met(device.flags, tmp_path, crew))
    assert again.known("a model", ("fp32",)) == found
    assert Meter(cache, "2 classes", "r", crew).known("a model", ("fp32",)) is None
    # Set otherwise in the midst of a search.
    other = Meter(cache, "2 classes", "r", crew, Elsewhere(there.flags, {"power_mode": "30W"}))
    with pytest.raises(MachineError, match="The device was set otherwise, or exchanged"):
        other.measured("a model", made, *more)


def test_a_device_that_is_another_now_is_refused(device, crew, tmp_path):
    met(device.flags, tmp_path, crew)
    known = json.loads((tmp_path / "device.json").read_text())
    assert known["packages"]["numpy"]
    (tmp_path / "device.json").write_text(json.dumps({**known, "power_mode": "30W"}))
    with pytest.raises(UsageError, match=r"\(power_mode; power_mode was 30W, is None\): set it as"):
        met(device.flags, tmp_path, crew)
    device.known("other")
    with pytest.raises(UsageError, match="has another host key"):
        met(device.flags, tmp_path, crew)


@pytest.mark.slow
def test_prices_are_those_of_the_device(device, tmp_path):
    config = get_config()
    config.data.demo.size, config.data.max_length = 100, 8
    config.data.cache_dir = str(tmp_path / "cache")
    wanted, folder = [("text", "bert_tiny")], tmp_path / "prices"
    lines = prices.prices(wanted, config, folder, str, device.flags)
    assert [(line["name"], line["depth"]) for line in lines] == [("bert_tiny", 1), ("bert_tiny", 2)]
    assert all(line["latency"]["int8"]["p50"] > 0 for line in lines)
    assert "reference" in {path.name for path in (device.home / "artifacts").iterdir()}
    # Known from now on, and only as the device's.
    assert prices.prices(wanted, config, folder, str, device.flags) == lines
    with pytest.raises(UsageError, match="prices of another machine"):
        prices.prices(wanted, config, folder, str)
