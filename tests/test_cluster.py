"""Runs on the nodes of a Ray cluster: those of one machine, whatever dies, each trained once."""

import itertools
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from fusion_keras import cli, cluster, cluster_node, jobs
from fusion_keras.cluster_needs import Address, filled
from fusion_keras.errors import UsageError
from tests.support import compiled, tiny
from tests.support.ray_nodes import nodes

SEEDS = "0,1,2,3"


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> tiny.Bench:
    return tiny.beside(tmp_path_factory.mktemp("cluster"))


@pytest.fixture
def driver(bench):
    """Starts a sweep over text, a run on a node; what it says goes to a file beside its folder."""
    started = []

    def start(address: str, workdir: Path, **axes) -> subprocess.Popen:
        given = [f"--workdir={workdir}", f"--ray={address}", "--num_cpus=1", "--memory_gb=0.5"]
        flags = bench.flags(**axes)
        with workdir.with_suffix(".said").open("w") as said:
            command = [sys.executable, "-m", "fusion_keras.sweep", *given, *flags]
            process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def complete(workdir: Path) -> list[str]:
    found = workdir.glob("*/metrics.json")
    return sorted(f.parent.name for f in found if f.parent.suffix != ".partial")


def wait_for(what, process: subprocess.Popen, said: Path) -> None:
    while not what():
        assert process.poll() is None, said.read_text()
        time.sleep(0.1)


def test_nll(run: Path) -> float:
    splits = json.loads((run / "metrics.json").read_text())["splits"]
    return splits["test"]["metrics"]["nll"]["value"]


test_nll.__test__ = False


@pytest.mark.slow
def test_whatever_dies_the_runs_are_those_of_one_machine(driver, bench, entries, tmp_path):
    workdir = tmp_path / "runs"
    said = workdir.with_suffix(".said")
    axes = {"variant": "text", "seed": SEEDS, "train__epochs": 4}
    with nodes(2) as three:
        first = driver(three.address, workdir, **axes)
        wait_for(lambda: complete(workdir), first, said)
        first.kill()  # nobody tidies up
        first.wait()
        before = {name: (workdir / name).stat().st_mtime_ns for name in complete(workdir)}

        sizes = {log: log.stat().st_size for log in workdir.glob("*.log")}

        def training() -> int:
            said = [log.read_text()[sizes.get(log, 0) :] for log in workdir.glob("*.log")]
            return sum("Begun on" in text and "Run: " not in text for text in said)

        asked = driver(three.address, workdir, **axes)
        wait_for(lambda: training() == 2, asked, said)  # on each node one
        asked.terminate()
        assert asked.wait() == 130, said.read_text()
        assert said.read_text().endswith("\n" + cli.INTERRUPTED + "\n")
        sizes = {log: log.stat().st_size for log in workdir.glob("*.log")}

        second = driver(three.address, workdir, **axes)
        wait_for(lambda: training() == 2, second, said)
        three.kill_one()
        assert second.wait() == 0, said.read_text()

    assert "Ray: 3 nodes; they see the run's folder" in said.read_text()
    assert complete(workdir) == ["s0", "s1", "s2", "s3"]
    assert {name: (workdir / name).stat().st_mtime_ns for name in before} == before
    assert "attempt 2: its node or its process had died" in "".join(
        log.read_text() for log in workdir.glob("*.log")
    )
    assert list(workdir.glob(".*")) == []
    for name in complete(workdir):
        here = tmp_path / "here" / name
        given = bench.flags(run=here, **{**axes, "seed": name.removeprefix("s")})
        done = entries.run("fusion_keras.train", *given, environment=compiled.fast())
        assert done.returncode == 0, done.stderr
        assert test_nll(workdir / name) == pytest.approx(test_nll(here), abs=1e-6)


@pytest.mark.slow
def test_where_nodes_do_not_see_the_folder_runs_are_sent_and_brought_home(driver, tmp_path):
    workdir = tmp_path / "hidden" / "runs"
    workdir.parent.mkdir()
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here (unshare): nodes would see the folder")
    with nodes(1, hidden=workdir.parent) as two:
        # As long as its parents are trained by recipe: late takes text over.
        axes = {"variant": "text,late", "train__epochs": 4}
        process = driver(two.address, workdir, **axes)
        said = workdir.with_suffix(".said")
        assert process.wait() == 0, said.read_text()

    assert "not all see the run's folder" in said.read_text()
    assert complete(workdir) == ["late", "text"]
    assert (workdir / "late" / "model.keras").is_file()
    log = (workdir / "late.log").read_text()
    assert f"The parent of late is there already: {workdir / 'text'}" in log
    assert list(workdir.glob("*.partial")) == []


class Stored(bytes):
    """An object in Ray's store, as a node has it."""

    def future(self):
        return self

    def result(self):
        return bytes(self)


def test_a_node_replaces_older_copies_and_never_a_run_of_its_own(tmp_path):
    def finished(folder, model):
        folder.mkdir(parents=True)
        (folder / "model.keras").write_bytes(model)
        return folder

    def sent(model):
        source = finished(tmp_path / "driver" / model.decode(), model)
        packed = Stored(cluster_node.packed_run(source))
        return cluster_node.Sent(packed, cluster_node.model_of(source))

    there = tmp_path / "node" / "runs" / "text-s0"
    for model in (b"one", b"two"):
        cluster_node._receive(sent(model), there)
        assert (there / "model.keras").read_bytes() == model
    # What goes home from there is no copy.
    cluster_node.unpack(cluster_node.packed_run(there), tmp_path / "home")
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["model.keras"]
    own = finished(there.with_name("text-s1"), b"its own")
    with pytest.raises(FileExistsError, match=r"has a run of its own at .*text-s1"):
        cluster_node._receive(sent(b"three"), own)
    assert (own / "model.keras").read_bytes() == b"its own"
    assert {p.name for p in there.parent.iterdir()} == {"text-s0", "text-s1"}


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--ray=127.0.0.1:9"], "No Ray cluster could be joined at --ray=127.0.0.1:9 ("),
        (["--ray=here"], "--ray is 'here'; HOST:PORT, or auto, is wanted."),
        (["--ray="], "--ray is ''; HOST:PORT, or auto, is wanted."),
        (["--ray=127.0.0.1:99999"], "--ray is '127.0.0.1:99999'; HOST:PORT, or auto, is wanted."),
        (["--ray=auto", "--memory_gb=inf"], "--memory_gb is inf; more than 0 is wanted."),
        (["--ray=auto", "--num_cpus=0"], "--num_cpus is 0; at least 1 is wanted."),
        (["--ray=auto", "--num_gpus=1.5"], "--num_gpus is 1.5; a part of one, say 0.5, or a"),
        (["--ray=auto", "--memory_gb=-1"], "--memory_gb is -1; more than 0 is wanted."),
        (["--ray=auto", "--jobs=2"], "--jobs is given with --ray"),
        (["--num_cpus=2"], "are of a cluster: give --ray, too."),
    ],
)
def test_what_cannot_be_is_one_sentence(entries, tmp_path, flags, sentence):
    done = entries.run(
        "fusion_keras.sweep", f"--workdir={tmp_path / 'w'}", *flags, "--variant=text,late"
    )

    assert done.returncode == 2
    assert sentence in done.stderr
    assert not (tmp_path / "w").exists()


def test_without_ray_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)

    with (
        pytest.raises(UsageError, match=r"Ray is not installed: pip install -e '\.\[ray\]'"),
        cluster.connected(Address("auto"), tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("asked", "nodes", "wanted"),
    [
        ((), [{"CPU": 2.0, "memory": 3e9}, {"CPU": 16.0, "memory": 64e9}], (4, 0, 8)),
        ((), [{"CPU": 2.0, "memory": 3e9}], (2, 0, 3)),
        ((), [{"CPU": 8.0, "memory": 64e9}, {"CPU": 8.0, "GPU": 4.0, "memory": 64e9}], (4, 1, 8)),
        ((8, 0.5, 20.0), [{"CPU": 8.0, "GPU": 4.0, "memory": 64e9}], (8, 0.5, 20)),
        ((), [], (4, 0, 8)),
    ],
)
def test_a_training_takes_what_is_asked_or_what_the_nodes_have(asked, nodes, wanted):
    assert filled(Address("auto", *asked), nodes) == Address("auto", *wanted)


def test_a_folder_is_of_one_driver_at_a_time(tmp_path):
    (tmp_path / ".driver").write_text("of one that was killed")
    with cluster._marked(tmp_path) as (mark, token):
        assert cluster_node.seen(mark, token)[1]
        assert not cluster_node.seen(mark, "other")[1]
        with pytest.raises(UsageError, match="Another process has runs of"):
            cluster._marked(tmp_path).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_a_run_arrives_whole_or_not_at_all(tmp_path):
    run = tmp_path / "run"
    (run / "parents").mkdir(parents=True)
    (run / "parents" / "model").write_bytes(b"weights")
    packed = cluster_node.packed_run(run)

    with pytest.raises(tarfile.ReadError):
        cluster_node.unpack(packed[:-9000], tmp_path / "home")
    assert not (tmp_path / "home").exists()

    cluster_node.unpack(packed, tmp_path / "home")
    assert (tmp_path / "home" / "parents" / "model").read_bytes() == b"weights"
    cluster_node.unpack(packed, tmp_path / "home")  # another one was faster
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "run"]


@pytest.mark.skipif(len(jobs._cores()) < 2, reason="wants two cores")
def test_cores_are_taken_by_one_at_a_time(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(jobs, "_cores", lambda: [0, 1, 2])

    with jobs.taken(2) as first, jobs.taken(1) as second, jobs.taken(1) as third:
        assert (first.cores, second.cores) == ((0, 1), (2,))
        assert third.cores == (0, 1, 2)  # none is free
    with jobs.taken(3) as all_of_them:
        assert all_of_them.cores == (0, 1, 2)


@pytest.mark.slow
def test_no_more_trainings_at_a_time_than_a_node_has_cores_for(tmp_path):
    begun = "from pathlib import Path; import time; file = Path('times'); begin = time.time(); "
    train = begun + "time.sleep(3); file.open('a').write(f'{begin} {time.time()}\\n')"
    program = f"""
import os, sys, time
from pathlib import Path
from fusion_keras import cluster
from fusion_keras.cluster_needs import Address
os.chdir({str(tmp_path)!r})
with cluster.connected(Address(sys.argv[1], 1, 0, 0.1), Path("runs")) as nodes:
    command = [sys.executable, "-c", {train!r}]
    runs = [nodes.start([*command, f"--run=runs/{{i}}"], Path(f"{{i}}.log")) for i in range(4)]
    while any(run.poll() is None for run in runs):
        time.sleep(0.1)
"""
    with nodes(1) as two:
        subprocess.run([sys.executable, "-c", program, two.address], check=True)
    times = [line.split() for line in (tmp_path / "times").read_text().splitlines()]
    ends = sorted((float(begin), float(end)) for begin, end in times)
    assert len(ends) == 4
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ends))
