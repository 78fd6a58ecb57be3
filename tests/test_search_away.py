"""A search whose models are trained on the nodes of a Ray cluster."""

import json
import subprocess
import time

import pytest

from fusion_keras.searching.outcome import TRAINED
from tests.support import tiny
from tests.support.killed_search import COUNT, asked_of, command, outcomes, searched
from tests.support.ray_nodes import nodes


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> tiny.Bench:
    return tiny.beside(tmp_path_factory.mktemp("away"))


@pytest.fixture(scope="module")
def here(bench, tmp_path_factory):
    """What a search without nodes finds; its latencies are kept, and known to the others."""
    workdir = tmp_path_factory.mktemp("here") / "search"
    searched(bench, workdir, 2, train__epochs=4)
    return workdir


def started(bench, workdir, cluster, said) -> subprocess.Popen:
    """A search on a cluster's nodes, once a model of it is there to be trained."""
    flags = [f for f in command(bench, workdir, train__epochs=4) if "--jobs" not in f]
    flags += [f"--ray={cluster.address}", "--num_cpus=1", "--memory_gb=0.5"]
    with said.open("a") as output:
        process = subprocess.Popen(flags, stdout=output, stderr=subprocess.STDOUT)
    while not list((workdir / "trials").glob("*/away.log")):
        assert process.poll() is None, said.read_text()
        time.sleep(0.1)
    return process


def relative(workdir, latency) -> dict[str, dict]:
    """Precision -> p50, p90, min in multiples of the search's scale, which are kept and known."""
    scale = json.loads((workdir / "scale.json").read_text())
    return {p: {which: of[which] / x for which, x in scale.items()} for p, of in latency.items()}


def assert_found(workdir, here):
    found, wanted = outcomes(workdir), outcomes(here)
    assert list(found) == list(wanted)
    for key, outcome in found.items():
        assert outcome.state == wanted[key].state == TRAINED
        known = relative(here, wanted[key].latency)
        for precision, times in relative(workdir, outcome.latency).items():
            assert times == pytest.approx(known[precision], rel=0.05)
        # With other cores sums are rounded otherwise.
        assert outcome.nll == pytest.approx(wanted[key].nll, abs=0.02)
        assert len(outcome.history) == len(wanted[key].history)
    assert json.loads((workdir / "front.json").read_text())


@pytest.mark.slow
def test_nodes_that_die_and_see_no_files_of_ours_train_what_is_trained_here(bench, here, tmp_path):
    workdir, said = tmp_path / "hidden" / "search", tmp_path / "said"
    workdir.parent.mkdir()
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here (unshare): nodes would see the folder")
    with nodes(2, hidden=workdir.parent) as two:
        process = started(bench, workdir, two, said)
        two.kill_one()
        assert process.wait() == 0, said.read_text()
    assert_found(workdir, here)
    printed = said.read_text()
    assert "not all see the run's folder" in printed
    assert "a node on this machine trains while models are measured here" in printed


@pytest.mark.slow
@pytest.mark.large
def test_a_killed_search_goes_on_with_what_its_nodes_had_begun(bench, here, tmp_path):
    workdir, said = tmp_path / "search", tmp_path / "said"
    with nodes(2) as two:
        process = started(bench, workdir, two, said)
        process.kill()
        process.wait()
        assert len(list((workdir / "trials").glob("*/outcome.json"))) < COUNT
        assert started(bench, workdir, two, said).wait() == 0, said.read_text()
    assert_found(workdir, here)
    assert all(trial.state.is_finished() for trial in asked_of(workdir))
