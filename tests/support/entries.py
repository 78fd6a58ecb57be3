"""Run modules many times in few seconds: a server imports the stack once, each run is a fork.

Flags are global and entry modules run once in a process, so that each run needs one of its own;
the imports take seconds, a fork nothing. A server has one Keras backend. It is shared by all who
name the same folder, pytest's workers too: the first starts it, and it ends with the session.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from fusion_keras import huge_pages

# The process id of the session.
OWNER = "FUSION_KERAS_TESTS_OWNER"
# What a server imports before it forks: what most of its runs would.
IMPORTS = {
    "jax": ("fusion_keras.training.sweeping", "fusion_keras.training.report", "export.pipeline"),
    "tensorflow": ("export.convert",),
}
# Those started here: Popen warns of a process that is forgotten while it runs.
_SERVERS = []


class Entries:
    """Client of the server of a backend; one call at a time.

    Args:
        folder: of the server's socket and log; the same for all who share it.
        backend: of Keras, "jax" or "tensorflow".
    """

    def __init__(self, folder: Path, backend: str = "jax"):
        self.folder, self.backend = folder, backend
        self._connection: socket.socket | None = None

    def run(self, module: str, *arguments: object, file_limit: int = 0, environment=None):
        """Run `python -m module arguments` in the folder that the server was started in.

        Args:
            module: its name, or "-c": then the first of the arguments is the program.
            file_limit: largest file in bytes that it may write, for a full disk; 0 for any.
            environment: variables to be set, name -> value.

        Returns:
            subprocess.CompletedProcess with what it printed, as text.
        """
        self._connection = self._connection or self._connect()
        command = [module, *map(str, arguments)]
        request = json.dumps([environment or {}, file_limit, *command]) + "\n"
        self._connection.sendall(request.encode())
        with self._connection.makefile() as answers:
            return subprocess.CompletedProcess(command, *json.loads(answers.readline()))

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def _connect(self) -> socket.socket:
        address = self.folder / f"{self.backend}.sock"
        with _locked(self.folder / f"{self.backend}.lock"):
            connection = _connected(address)
            if connection is None:
                address.unlink(missing_ok=True)
                _SERVERS.append(self._start())
                while connection is None:
                    assert _SERVERS[-1].poll() is None, f"no server: see {self.folder}"
                    time.sleep(0.02)
                    connection = _connected(address)
        return connection

    def _start(self) -> subprocess.Popen:
        # TensorFlow's lines about missing drivers, which a first import hides, come after a fork.
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "-1"}
        environment = {**os.environ, **quiet, "KERAS_BACKEND": self.backend}
        with (self.folder / f"{self.backend}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.support.entries", self.folder, self.backend],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # As the entries start themselves; a fork must not start anew.
                env=huge_pages.environment(environment),
                start_new_session=True,
            )


class Apart:
    """Stands for `subprocess` in `export.stages`: its parts run in forks of servers, too."""

    def __init__(self, folder: Path):
        self.folder = folder

    def run(self, command: list[str], *, env: dict[str, str], **_):
        _, _, module, *arguments = command
        client = Entries(self.folder, env["KERAS_BACKEND"])
        with contextlib.closing(client):
            return client.run(module, *arguments)


@contextlib.contextmanager
def _locked(path: Path):
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _connected(address: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(address))
    except OSError:
        connection.close()
        return None
    return connection


# --- The server ---------------------------------------------------------------------------------


def _serve(folder: Path, backend: str) -> None:
    """Fork for every line that a client sends, as long as the session runs."""
    owner = Path(f"/proc/{os.environ[OWNER]}")
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as clients:
        listener.bind(str(folder / f"{backend}.sock"))
        listener.listen()
        clients.register(listener, selectors.EVENT_READ)
        # Nobody waits for the forks that answer.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while owner.exists():
            for key, _ in clients.select(timeout=1):
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    clients.register(connection, selectors.EVENT_READ, connection.makefile())
                elif not (line := key.data.readline()):
                    clients.unregister(key.fileobj)
                    key.data.close()
                    key.fileobj.close()
                elif not os.fork():
                    _answer(folder, json.loads(line), key.fileobj)


def _answer(folder: Path, request: list, connection: socket.socket) -> None:
    """In a fork of the server: run it in another, wait for it, and tell the client."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    environment, file_limit, module, *arguments = request
    os.environ.update(environment)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            _run(folder, module, arguments, file_limit, out.fileno(), err.fileno())
        _, status = os.waitpid(child, 0)
        answer = [os.waitstatus_to_exitcode(status), _content(out), _content(err)]
    connection.sendall((json.dumps(answer) + "\n").encode())
    os._exit(0)


def _content(file) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _run(folder: Path, module: str, arguments: list, file_limit: int, out: int, err: int) -> None:
    os.dup2(out, 1)
    os.dup2(err, 2)
    code = 1
    try:
        if file_limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        if "export.stages" in sys.modules:
            sys.modules["export.stages"].subprocess = Apart(folder)
        sys.argv = [module, *arguments]
        if module == "-c":
            sys.argv = ["-c", *arguments[1:]]
            exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            if not hasattr(sys.modules.get(module), "__path__"):
                # As in a new process; runpy warns of a module that was imported before.
                sys.modules.pop(module, None)
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as stop:
        code = _exit_code(stop)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _exit_code(stop: SystemExit) -> int:
    """As the interpreter has it: a message is printed, and stands for 1."""
    if isinstance(stop.code, str):
        print(stop.code, file=sys.stderr)
        return 1
    return stop.code or 0


if __name__ == "__main__":
    from importlib import import_module

    for name in IMPORTS[sys.argv[2]]:
        import_module(name)
    _serve(Path(sys.argv[1]), sys.argv[2])
