"""A real sshd on loopback, of the user who runs the tests, with keys of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = os.environ.get("FUSION_KERAS_SSHD") or shutil.which(
    "sshd", path=f"/usr/sbin:/usr/local/sbin:{os.environ.get('PATH', '')}"
)
needs_sshd = pytest.mark.skipif(
    not PROGRAM, reason="no sshd: apt-get install openssh-server, or FUSION_KERAS_SSHD=PATH"
)
_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
SetEnv TMPDIR={folder}/tmp
"""
_CLIENT = """
Host *
  IdentityFile {folder}/user
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
"""


class Sshd:
    """Starts with `with`; `device` is what --device takes, `flags` what a command needs of it.

    Attributes:
        folder: of its keys and files; home: DIR on the device, whose Python is this one.
        largest_file: that may be written there, in blocks as `ulimit` counts; for a full disk.
    """

    def __init__(self, folder: Path, largest_file: str = "unlimited"):
        self.folder, self.home, self.largest_file = folder, folder / "device", largest_file
        (folder / "tmp").mkdir()
        for name in ("host", "user", "other"):
            made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
            subprocess.run(made, check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "sshd_config").write_text(_CONFIG.format(port=self.port, folder=folder))
        (folder / "ssh_config").write_text(_CLIENT.format(folder=folder))
        self.known("host")
        self.python(f'exec {sys.executable} "$@"')

    def known(self, name: str) -> None:
        """The key that is known as the device's."""
        key = (self.folder / f"{name}.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {key}")

    def python(self, script: str) -> None:
        """What the device has in its .venv."""
        place = self.home / ".venv" / "bin" / "python"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"#!/bin/sh\n{script}\n")
        place.chmod(0o755)

    @property
    def flags(self) -> list[str]:
        device = f"--device=ssh://127.0.0.1:{self.port}/{self.home}"
        return [device, f"--ssh=ssh -F {self.folder / 'ssh_config'}"]

    def __enter__(self) -> Sshd:
        self.start()
        return self

    def start(self) -> None:
        """Also again, after its process has ended."""
        config = self.folder / "sshd_config"
        checked = subprocess.run([PROGRAM, "-t", "-f", config], capture_output=True, text=True)
        if checked.returncode:
            pytest.skip(f"sshd does not start here: {checked.stderr.strip()}")
        with (self.folder / "log").open("wb") as log:
            limited = f'ulimit -f {self.largest_file}; exec "$0" -D -e -f "$1"'
            self.process = subprocess.Popen(["sh", "-c", limited, PROGRAM, config], stderr=log)
        while True:
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.02)

    def __exit__(self, *error) -> None:
        self.cut()
        self.process.terminate()
        self.process.wait()

    def cut(self) -> None:
        """End every connection, as a pulled cable does."""
        listener = self.process.pid
        children = Path(f"/proc/{listener}/task/{listener}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
