"""A device that OpenSSH reaches: its address, calls of `there`, and what a failed one means."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from bench.edge.entry import Progress, tell
from bench.edge.errors import BenchError
from bench.remote import there
from bench.remote.receiving import Receiving

FOLDER = "fusion_keras_bench"
# In the end of the command line, so that what the user's own file says of a host still holds but
# for these: no questions, and a dead connection is noticed within half a minute.
_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "3",
}
_KEPT = "it goes on there: type the same command to go on with it"
# One line for any login shell: no newline, no backslash, no exclamation mark. $1: the folder.
_FIND_PYTHON = (
    "d=$1; case $d in /*) ;; *) d=$HOME/$d;; esac; "
    'p=$d/.venv/bin/python; [ -x "$p" ] || p=python3; '
    'v=$("$p" -c "import sys; print(sys.version.split()[0])" 2>/dev/null); '
    'if "$p" -c "import sys; sys.exit(sys.version_info < (3, 10))" 2>/dev/null; '
    'then exec "$p" -c "$2" "$d"; fi; '
    'printf "%s{%s: %s, %s: %s%s%s}" "$3" "$4" "$5" "$6" "$7" "$v" "$7"; echo'
)


@dataclasses.dataclass(frozen=True)
class Address:
    """Where: `folder` is relative to the user's home, or absolute. Empty user, port: ssh's own."""

    user: str
    host: str
    port: int | None
    folder: str

    @property
    def destination(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def name(self) -> str:
        """Of a machine, as a part of a file's name."""
        plain = re.sub(r"[^A-Za-z0-9.]+", "-", self.host)
        return f"{plain}-{self.port}" if self.port else plain


def address(text: str) -> Address:
    """Read ssh://[USER@]HOST[:PORT][/DIR]; DIR is in the user's home, //DIR is absolute.

    Raises:
        BenchError: it is none.
    """
    wanted = f"--device={text} is no device: give ssh://USER@HOST[:PORT][/DIR]"
    try:
        url = urllib.parse.urlsplit(text)
        port = url.port
    except ValueError as error:
        raise BenchError(f"{wanted} ({error}).") from None
    if url.scheme != "ssh":
        raise BenchError(f"{wanted}.")
    if url.password is not None:
        raise BenchError(
            "--device has a password in it, which the list of processes would show: use a key "
            "(ssh-keygen, then ssh-copy-id USER@HOST)."
        )
    user, host = url.username or "", url.hostname or ""
    # As it was typed: a name in ssh's own file may have capitals.
    host = re.sub(r":\d*$", "", url.netloc.rpartition("@")[2]).strip("[]") if host else ""
    names = re.fullmatch(r"[\w.:%-]+", host) and re.fullmatch(r"[\w.@+-]*", user)
    if not names or host.startswith("-") or user.startswith("-") or url.query or url.fragment:
        raise BenchError(f"{wanted}.")
    folder = urllib.parse.unquote(url.path[1:]).rstrip("/")
    if ".." in folder.split("/") or any(ord(c) < 32 for c in folder):
        raise BenchError(
            f"{wanted}, with a DIR that is in the home folder, or //DIR from the root."
        )
    return Address(user, host, port, folder or FOLDER)


def each(text: str) -> dict[str, str]:
    """Of several devices, with commas between: `Address.name` -> the device.

    Raises:
        BenchError: one is none, or two are on one machine, where they would disturb each other.
    """
    devices = [device.strip() for device in text.split(",")]
    names = [address(device).name for device in devices]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BenchError(f"--device names {twice[0]} twice: name each machine once.")
    return dict(zip(names, devices, strict=True))


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to run there.

    Attributes:
        arguments: of `python -m`; stdin: the name there of a file, or "".
        places: name there -> what it writes, here: a file, or a folder for its files.
        ours: how names there are called in what it prints.
    """

    arguments: list[str]
    stdin: str
    places: dict[str, Path]
    ours: Callable[[str], str]

    def asked(self) -> dict:
        """As `there` is told of it."""
        return {"arguments": self.arguments, "stdin": self.stdin, "brought": list(self.places)}


class Device:
    """Calls of `there`, each one ssh."""

    def __init__(self, where: Address, ssh: str, key: str):
        self.where, self.key = where, key
        port = ["-p", str(where.port)] if where.port else []
        self.ssh = shlex.split(ssh)
        if not self.ssh:
            raise BenchError("--ssh is empty: give a command, as in --ssh='ssh -F FILE'.")
        self.reach = [*self.ssh, *port, where.destination]  # as a user types it
        options = [part for name, value in _OPTIONS.items() for part in ("-o", f"{name}={value}")]
        code = base64.b64encode(Path(there.__file__).read_bytes()).decode()
        # Quotes as JSON wants them are handed over: they would have to be escaped in the script.
        told = (there.MARK, '"error"', '"python"', '"said"', '"')
        program = f"import base64; exec(base64.b64decode('{code}'))"
        script = shlex.join(["sh", "-c", _FIND_PYTHON, "sh", where.folder, program, *told])
        self.command = [*self.ssh, "-T", *options, *port, "--", where.destination, f"exec {script}"]

    def ask(
        self,
        do: str,
        send: Callable = lambda stdin: None,
        heard: Callable[[dict], None] = lambda said: None,
        lost: str = "type the same command again",
        **request,
    ) -> dict:
        """One call; the last answer.

        Args:
            send: writes to the other's stdin what comes after the request.
            heard: told every answer but the last.
            lost: what to do when the connection is lost.

        Raises:
            BenchError: no answer, or one that says what is wrong.
        """
        with tempfile.TemporaryFile() as errors:
            try:
                # A session of its own: Ctrl-C is for us, who tell the device.
                process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    start_new_session=True,
                )
            except OSError as error:
                raise BenchError(
                    f"{self.ssh[0]} cannot be run ({error.strerror}): install OpenSSH's client, or "
                    "name it with --ssh."
                ) from None
            last = None
            with process:
                try:
                    # It may have ended before: then its answer says why.
                    with contextlib.suppress(BrokenPipeError):
                        request = {"do": do, "job": self.key, **request}
                        process.stdin.write(json.dumps(request).encode() + b"\n")
                        send(process.stdin)
                        process.stdin.close()
                    for line in process.stdout:
                        said = _said(line)
                        if said is not None and ("done" in said or "error" in said):
                            last = said
                        elif said:
                            heard(said)
                except BaseException:
                    process.kill()
                    raise
                finally:
                    with contextlib.suppress(BrokenPipeError):
                        process.stdin.close()
            errors.seek(0)
            told = errors.read().decode("utf-8", "replace").strip()
        if last is None:
            raise BenchError(self._no_answer(told, process.returncode, lost))
        if "error" in last:
            raise BenchError(self._refused(last))
        return last

    def copy(self, names: list[str], sources: dict[str, Path]) -> None:
        if not names:
            return
        total = sum(sources[name].stat().st_size for name in names)
        say = Progress()

        def send(stdin) -> None:
            sent = 0
            with tarfile.open(fileobj=stdin, mode="w|") as tar:
                for name in names:
                    say(f"copying {name}, {sent / 1e6:.0f} of {total / 1e6:.0f} MB ...")
                    tar.add(sources[name], name, recursive=False)
                    sent += sources[name].stat().st_size

        kept = "what has arrived whole stays there: type the same command to go on"
        self.ask("take", send, lost=kept)
        say("")
        tell(f"Copied to {self.where.host}: {len(names)} files, {total / 1e6:.1f} MB")

    def follow(self, job: Job, receiving: Receiving) -> dict:
        """Until it has ended; what it prints is printed here, with our names for our files."""
        printed = {"out": _Lines(sys.stdout, job.ours), "err": _Lines(sys.stderr, job.ours)}

        def heard(said: dict) -> None:
            for name, lines in printed.items():
                lines.add(said.get(name, ""))
            receiving(said)

        try:
            return self.ask("follow", heard=heard, lost=_KEPT, **job.asked())
        except KeyboardInterrupt:
            print(f"\nEnding it on {self.where.host} ...", file=sys.stderr, flush=True)
            return {**self.stop(job, receiving), "interrupted": True}
        finally:
            for lines in printed.values():
                lines.end()

    def start(self, job: Job) -> None:
        self.ask("start", lost=_KEPT, **job.asked())

    def stop(self, job: Job, receiving: Receiving) -> dict:
        return self.ask("stop", heard=receiving, lost=_KEPT, **job.asked())

    def _no_answer(self, told: str, code: int, lost: str) -> str:
        host = self.where.host
        line = told.splitlines()[-1] if told else f"{self.ssh[0]} ended with {code}"
        typed = shlex.join(self.reach)
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in told:
            return (
                f"{host} has another host key than the one known here: it was set up anew, or "
                f"another machine answers for it. If you know why, ssh-keygen -R {host}, then "
                f"`{typed}` once to accept the new one."
            )
        if "Host key verification failed" in told:
            return f"The host key of {host} is not known here: type `{typed}` once and compare it."
        if "Permission denied" in told:
            return (
                f"{host} does not let {self.where.user or 'you'} in ({line}): a key is wanted, as "
                f"no password is asked for; see that `{typed}` works without one (ssh-copy-id)."
            )
        if re.search(r"^ssh: (connect to|Could not resolve)", told, re.MULTILINE) or (
            "timed out during banner exchange" in told
        ):
            return (
                f"{host} cannot be reached ({line}): see that it is on, in this network, and that "
                f"`{typed}` works; then type the same command."
            )
        if code == 255:
            return f"The connection to {host} was lost ({line}): {lost}."
        return f"{host} gave no answer ({line}): see that `{typed} python3 --version` works."

    def _refused(self, answer: dict) -> str:
        host, said = self.where.host, answer.get("said", "")
        if answer["error"] == "busy":
            return (
                f"Another measurement or build is running on {host}, and two would disturb each "
                "other: wait until it has ended, then type the same command."
            )
        if answer["error"] == "python":
            has = f"has Python {said}" if said else "has no python3"
            return (
                f"{host} {has}, 3.10 or newer is wanted: install one there, or make a venv of one "
                f"in {self.where.folder}/.venv, then type the same command."
            )
        if answer["error"] == "full":
            return f"The disk of {host} is full ({said}): make room, then type the same command."
        return f"{host} cannot do it ({said}): see to that folder, or give another DIR in --device."


class _Lines:
    """Prints line by line: a name that has come in part is not known yet."""

    def __init__(self, stream, ours: Callable[[str], str]):
        self._stream, self._ours, self._rest = stream, ours, ""

    def add(self, text: str) -> None:
        whole, newline, self._rest = (self._rest + text).rpartition("\n")
        print(self._ours(whole + newline), end="", file=self._stream, flush=True)

    def end(self) -> None:
        print(self._ours(self._rest), end="", file=self._stream, flush=True)


def _said(line: bytes) -> dict | None:
    """None of what a login shell prints, and of a line that was cut short."""
    text = line.decode("utf-8", "replace")
    if not text.startswith(there.MARK):
        return None
    try:
        return json.loads(text[len(there.MARK) :])
    except ValueError:
        return None
