"""A Ray cluster on this machine: `python -m tests.support.ray_nodes COUNT` says its address.

A process of its own, as nodes are made by forks, which JAX's threads would not survive. It ends,
and its nodes with it, when its standard input does; a line there kills one of the nodes.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support import compiled


class Nodes:
    """Nodes with one CPU each, beside a head that trains nothing.

    Attributes:
        address: of the head.
    """

    def __init__(self, process: subprocess.Popen):
        self._process = process
        line = process.stdout.readline()
        if not line.startswith("address "):
            raise RuntimeError(f"no cluster: {line}{process.stdout.read()}")
        self.address = line.split()[1]

    def kill_one(self) -> None:
        """As if it lost its power."""
        print("kill", file=self._process.stdin, flush=True)


@contextlib.contextmanager
def nodes(count: int, hidden: Path | None = None) -> Iterator[Nodes]:
    """So many, as long as the block.

    Args:
        hidden: a folder in whose place they see an empty one of their own.
    """
    command = [sys.executable, "-m", "tests.support.ray_nodes", str(count)]
    if hidden:
        mount = 'mount -t tmpfs none "$0" && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", mount, str(hidden), *command]
    quiet = {"RAY_BACKEND_LOG_LEVEL": "error", "RAY_USAGE_STATS_ENABLED": "0"}
    environment = {**os.environ, **compiled.fast(), **quiet}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as process:
        try:
            yield Nodes(process)
        finally:
            process.stdin.close()
            process.wait()


def main() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    alive = [cluster.add_node(num_cpus=1) for _ in range(int(sys.argv[1]))]
    print("address", cluster.address, flush=True)
    for _ in sys.stdin:
        cluster.remove_node(alive.pop(), allow_graceful=False)
    cluster.shutdown()


if __name__ == "__main__":
    main()
