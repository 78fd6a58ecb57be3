"""A search whose models are trained on the nodes of a Ray cluster."""

import json
import subprocess
import time

import pytest

from fusion_keras.searching.outcome import TRAINED
from tests.support import tiny
from tests.support.killed_search import command, outcomes, searched
from tests.support.ray_nodes import nodes


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> tiny.Bench:
    return tiny.beside(tmp_path_factory.mktemp("away"))


@pytest.mark.slow
def test_nodes_that_die_and_see_no_files_of_ours_train_what_is_trained_here(bench, tmp_path):
    workdir, here = tmp_path / "hidden" / "search", tmp_path / "here"
    workdir.parent.mkdir()
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here (unshare): nodes would see the folder")
    # Its latencies are kept, and known to the other one.
    searched(bench, here, 2, train__epochs=4)

    with nodes(2, hidden=workdir.parent) as two:
        flags = [f for f in command(bench, workdir, train__epochs=4) if "--jobs" not in f]
        flags += [f"--ray={two.address}", "--num_cpus=1", "--memory_gb=0.5"]
        with (tmp_path / "said").open("w") as said:
            process = subprocess.Popen(flags, stdout=said, stderr=subprocess.STDOUT)
        begun = workdir / "trials"
        while not list(begun.glob("*/away.log")):
            assert process.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.1)
        two.kill_one()
        assert process.wait() == 0, (tmp_path / "said").read_text()

    found, wanted = outcomes(workdir), outcomes(here)
    assert list(found) == list(wanted)
    for key, outcome in found.items():
        assert outcome.state == wanted[key].state == TRAINED
        assert outcome.latency == wanted[key].latency
        # With other cores sums are rounded otherwise.
        assert outcome.nll == pytest.approx(wanted[key].nll, abs=0.02)
        assert len(outcome.history) == len(wanted[key].history)
    printed = (tmp_path / "said").read_text()
    assert "not all see the run's folder" in printed
    assert "a node on this machine trains while models are measured here" in printed
    assert json.loads((workdir / "front.json").read_text())
