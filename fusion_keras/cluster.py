"""Trainings on the nodes of a Ray cluster: which node, and again where one dies, is Ray's to say.

A training is a process of its own there as it is here, with the same command, in a folder and with
data of the same paths. Where a node does not see the driver's files, finished runs that a training
needs are sent along and what it has trained is brought home, through Ray's object store. What a
training says is sent to the driver, who adds it to the log.

Ray: Moritz et al. 2018, "Ray: A Distributed Framework for Emerging AI Applications", OSDI.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import fusion_keras
from fusion_keras import cluster_needs, cluster_node, files
from fusion_keras.cluster_needs import Address
from fusion_keras.errors import UsageError

# Seconds for the head's first answer, and a node's: a process starts there.
_REACHED, _ANSWER = 10, 120
# That a run directory of one modality is sent to a node that needs it, too.
_SENT = ("text", "image", "audio", "tabular")


class Cluster:
    """A driver's end of a cluster.

    Attributes:
        nodes: how many answered.
        shared: whether all of them see the driver's files.
    """

    def __init__(self, ray, needs: Address, mark: Path, token: str):
        self._ray, self._mark, self._token = ray, mark, token
        self._sent: dict[Path, cluster_node.Sent] = {}
        self._tasks: dict[str, Task] = {}
        self._looked = 0.0
        self._needs = cluster_needs.filled(needs, self._alive())
        here = ray.get_runtime_context().get_node_id()
        self._board = _remote(ray, cluster_node.Board, here, soft=False).remote()
        self.nodes, self.shared = self._asked()

    def described(self) -> str:
        """One sentence of what there is and what a training takes."""
        seen = (
            "they see the run's folder"
            if self.shared
            else "not all see the run's folder, so that finished runs are sent to them and back"
        )
        needs = self._needs
        cores = "1 CPU" if needs.cpus == 1 else f"{needs.cpus} CPUs"
        taken = f"{cores}, {needs.gpus:g} GPUs and {needs.gigabytes:g} GB"
        waits = (
            ""
            if any(cluster_needs.room(node, needs) for node in self._alive())
            else " No node has as much now, so that all wait for one that has: give --num_cpus, "
            "--num_gpus or --memory_gb less, unless the cluster grows by itself."
        )
        count = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        return f"Ray: {count}; {seen}. A training takes {taken}.{waits}"

    def start(self, command: Sequence[str], log: Path) -> Task:
        """Have a training started on a node as soon as one is free.

        Args:
            command: `[python, "-m", module, flags ...]`, of which `--run=DIR` is one.
            log: what it says is added to it.
        """
        run = Path(next(x for x in command if x.startswith("--run=")).removeprefix("--run="))
        work = cluster_node.Work(
            name=str(run),
            arguments=tuple(command[1:]),
            here=Path.cwd(),
            run=run.absolute(),
            mark=self._mark,
            token=self._token,
            cpus=self._needs.cpus,
            gpus=self._needs.gpus,
            sent={} if self.shared else self._sent_with(run, command),
        )
        carry_out = self._ray.remote(
            num_cpus=self._needs.cpus,
            num_gpus=self._needs.gpus,
            memory=self._needs.gigabytes * 1e9,
            # A node's or a process's death; what the training itself says is final.
            max_retries=cluster_node.ATTEMPTS - 1,
            retry_exceptions=False,
            # A new process each.
            max_calls=1,
        )(cluster_node.carried_out)
        task = Task(self, carry_out.remote(work, self._board), run, log)
        self._tasks[work.name] = task
        return task

    def room(self) -> int:
        """How many trainings the nodes have room for at a time; at least one, which may wait."""
        return max(1, sum(cluster_needs.room(node, self._needs) for node in self._alive()))

    def trains_here(self) -> bool:
        """Whether a node on this machine trains."""
        here = self._ray.get_runtime_context().get_node_id()
        host = {n["NodeID"]: n["NodeManagerHostname"] for n in self._ray.nodes()}[here]
        return any(
            n["Alive"]
            and n["NodeManagerHostname"] == host
            and cluster_needs.room(n["Resources"], self._needs)
            for n in self._ray.nodes()
        )

    def slots(self, count: int) -> list[Cluster]:
        """As `jobs.shares`: what so many trainings are started with. Ray lets them wait."""
        return [self] * count

    def look(self) -> None:
        """Add what was said meanwhile to the logs; at most once a second."""
        if time.monotonic() - self._looked < cluster_node.LOOK:
            return
        self._looked = time.monotonic()
        for name, (where, said) in self._ray.get(self._board.taken.remote()).items():
            task = self._tasks[name]
            task.where = where
            task.says(said)

    def _alive(self) -> list[dict[str, float]]:
        """What each node has."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _asked(self) -> tuple[int, bool]:
        """How many nodes there are, and whether all see our files.

        Raises:
            UsageError: one cannot train with this version.
        """
        ray, answers = self._ray, {}
        for node in (n for n in ray.nodes() if n["Alive"]):
            answer = _remote(ray, cluster_node.seen, node["NodeID"], soft=False).remote(
                self._mark, self._token
            )
            answers[answer] = node["NodeManagerHostname"]
        ready, late = ray.wait(list(answers), num_returns=len(answers), timeout=_ANSWER)
        if late:
            raise UsageError(
                f"Ray's node {answers[late[0]]} did not answer within {_ANSWER} s: look at "
                "`ray status`, and remove it or start it again."
            )
        seen = []
        for answer in ready:
            try:
                version, sees = ray.get(answer)
            except ray.exceptions.RayError as error:
                raise UsageError(
                    f"Ray's node {answers[answer]} cannot train ({_first_line(error)}): install "
                    f"fusion_keras {fusion_keras.__version__} there, in the environment that Ray "
                    "was started in."
                ) from None
            if version != fusion_keras.__version__:
                raise UsageError(
                    f"Ray's node {answers[answer]} has fusion_keras {version}, this driver "
                    f"{fusion_keras.__version__}: install the same version everywhere."
                )
            seen.append(sees)
        return len(seen), all(seen)

    def _sent_with(self, run: Path, command: Sequence[str]) -> dict[Path, cluster_node.Sent]:
        """Path -> finished run that a training may start from or learn from."""
        named = [
            Path(folder)
            for flag in command
            if flag.startswith(("--parents=", "--teacher="))
            for folder in flag.partition("=")[2].split(",")
        ]
        beside = [f.parent for f in run.absolute().parent.glob("*/metrics.json")]
        needed = [f.absolute() for f in named if f.is_dir()]
        needed += [f for f in beside if f.suffix != ".partial" and _variant(f) in _SENT]
        for folder in needed:
            if folder not in self._sent:
                packed = self._ray.put(cluster_node.packed_run(folder))
                self._sent[folder] = cluster_node.Sent(packed, cluster_node.model_of(folder))
        return {folder: self._sent[folder] for folder in needed}


class Task:
    """A training on some node; used as `jobs.Process` is.

    Attributes:
        where: host that trains it; None before there is one.
        returncode: None until it has ended.
    """

    def __init__(self, cluster: Cluster, answer, run: Path, log: Path):
        self._cluster, self._answer, self._run, self._log = cluster, answer, run, log
        self.where: str | None = None
        self.returncode: int | None = None
        self.says(b"")

    def says(self, said: bytes) -> None:
        with files.disk_errors(self._log), self._log.open("ab") as log:
            log.write(said)

    def poll(self) -> int | None:
        """The exit code, 0 for none wrong; None while it waits or trains."""
        self._cluster.look()
        ray = self._cluster._ray
        if self.returncode is None and ray.wait([self._answer], timeout=0)[0]:
            self.returncode = self._result(ray)
        return self.returncode

    def terminate(self) -> None:
        """Have it stopped; its checkpoint stays where it trained."""
        with contextlib.suppress(Exception):  # of a cluster that is gone
            self._cluster._ray.cancel(self._answer)

    def wait(self) -> None:
        """Until it has stopped, but not for a node that does not answer."""
        ray = self._cluster._ray
        with contextlib.suppress(Exception):
            if self._answer and not ray.wait([self._answer], timeout=30)[0]:
                ray.cancel(self._answer, force=True)

    def _result(self, ray) -> int:
        try:
            code, said, packed = ray.get(self._answer)
        except ray.exceptions.RayError as error:
            self.says(f"error: Ray could not train it: {_first_line(error)}\n".encode())
            return cluster_node.LOST
        self._answer = None  # else Ray keeps what came home
        self._cluster._looked = 0.0
        self._cluster.look()
        self.says(said)
        if packed is not None:
            with files.disk_errors(self._run):
                cluster_node.unpack(packed, self._run)
                # What an earlier training of it here had begun.
                shutil.rmtree(self._run.with_name(self._run.name + ".partial"), ignore_errors=True)
        return code


def asked(
    address: str | None, needs: tuple, jobs: str, folder: Path, *, connect: bool = True
) -> contextlib.AbstractContextManager[Cluster | None]:
    """The cluster that flags ask for, if any, as long as the block; see `connected`.

    Args:
        address: --ray.
        needs: --num_cpus, --num_gpus, --memory_gb.
        jobs: --jobs.
        folder: that all runs are in.
        connect: else the flags are looked at alone.

    Raises:
        UsageError: flags that contradict each other; and as in `connected`.
    """
    if address is None:
        if any(need is not None for need in needs):
            raise UsageError(
                "--num_cpus, --num_gpus and --memory_gb are of a cluster: give --ray, too."
            )
        return contextlib.nullcontext()
    if jobs != "1":
        raise UsageError(
            "--jobs is given with --ray, which decides how many runs are trained at a time: leave "
            "--jobs out."
        )
    if not connect:
        return contextlib.nullcontext()
    return connected(Address(address, *needs), folder)


@contextlib.contextmanager
def connected(address: Address, folder: Path) -> Iterator[Cluster]:
    """The cluster at an address; left when the block ends, with whatever still trains there.

    Args:
        address: which, and what a training takes of a node.
        folder: that all runs are in.

    Raises:
        UsageError: Ray is not installed, no cluster is there, or a node cannot train.
    """
    named = re.fullmatch(r".+:(\d{1,5})", address.of)
    if address.of != "auto" and not (named and 0 < int(named[1]) < 2**16):
        raise UsageError(f"--ray is {address.of!r}; HOST:PORT, or auto, is wanted.")
    cluster_needs.check(address)
    ray = _ray()
    try:
        _join(ray, address.of)
    except (RuntimeError, ValueError, OSError) as error:
        raise UsageError(
            f"No Ray cluster could be joined at --ray={address.of} ({_first_line(error)}): "
            "start one with `ray start --head`, and give the address that it names."
        ) from None
    try:
        with _marked(folder.absolute()) as (mark, token):
            yield Cluster(ray, address, mark, token)
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _marked(folder: Path) -> Iterator[tuple[Path, str]]:
    """A file that this driver alone has, and what stands in it: who reads it sees our files.

    Raises:
        UsageError: another driver has it.
    """
    mark, token = folder / ".driver", secrets.token_hex(16)
    with files.disk_errors(mark):
        folder.mkdir(parents=True, exist_ok=True)
        lock = mark.open("a")
    with lock:
        try:
            # Released by the kernel when this process ends, however it ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"Another process has runs of {folder} trained: wait for it, or give another "
                "--workdir."
            ) from None
        with files.disk_errors(mark):
            lock.truncate(0)
            lock.write(token)
            lock.flush()
        try:
            yield mark, token
        finally:
            mark.unlink(missing_ok=True)


def _ray():
    # Nothing is reported to anybody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise UsageError("Ray is not installed: pip install -e '.[ray]', on each node.") from None
    return ray


def _join(ray, address: str) -> None:
    more = {"log_to_driver": False, "logging_level": "ERROR"}
    # Ray takes SIGTERM for itself, and ends with a trace.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if address != "auto":
            # Ray itself would try for five minutes.
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=_REACHED).close()
            ray.init(address=address, **more)
            return
        try:
            ray.init(address="auto", **more)
        except ConnectionError:
            ray.init(address="local", include_dashboard=False, **more)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _remote(ray, what, node: str, *, soft: bool):
    """A function or a class on one node, which takes nothing of it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(node, soft=soft)
    return ray.remote(num_cpus=0, scheduling_strategy=strategy)(what)


def _variant(folder: Path) -> str:
    try:
        return json.loads((folder / "config.json").read_text())["config"]["variant"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # whatever else lies beside the runs


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Of a task's error Ray gives the trace first.
    return (lines[-1] if "ray::" in lines[0] else lines[0])[:300] if lines else type(error).__name__
