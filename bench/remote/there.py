"""What `--device` of the bench runs on the device: sent with each call, nothing of it stays.

    python3 -c <this file> FOLDER

One line of JSON on stdin says what to do; the answers are lines of JSON that begin with `MARK`, the
last one has "done" or "error". A job (a measurement, a build, ...) is a process of its own that
outlives the connection, in `FOLDER/jobs/<its key>`: out, err (what it prints), what it is told to
write there, and rc when it has ended. What is for it alone is in `FOLDER/given/<its key>`.
Standard library alone, Python 3.10.
"""

from __future__ import annotations

import base64
import codecs
import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

# What a login shell prints of its own stands in other lines.
MARK = "fusion_keras: "
# One for the machine, whatever the folder: two measurements disturb each other.
LOCK = "fusion_keras_bench.lock"
_POLL = 1.0
_STOPPING = 60.0
# $0 is the job's folder; a Ctrl-C is for the measurement, its exit code is kept nevertheless.
_KEPT = (
    'trap : INT; "$@" >"$0/out" 2>"$0/err"; echo $? >"$0/rc.partial"; mv "$0/rc.partial" "$0/rc"'
)


class Refused(Exception):
    """Its name is what the other side makes a sentence of."""


def say(**fields) -> None:
    sys.stdout.write(f"{MARK}{json.dumps(fields)}\n")
    sys.stdout.flush()


def look(folder: Path, request: dict) -> None:
    """How the job stands; of a new one what has to be copied, and which modules are not there."""
    job = folder / "jobs" / request["job"]
    state = _state(job)
    found = {"state": state, "python": sys.executable}
    if state in ("running", "ended"):
        began = job / "began"
        say(done=True, **found, began=began.read_text() if began.exists() else "")
        return
    if request["files"]:  # something is to be done
        os.close(_locked())
        for name in request.get("gone", ()):
            with contextlib.suppress(OSError):
                (folder / name).unlink()
    sys.path[0:1] = []  # the home folder is none of the modules' places
    say(
        done=True,
        **found,
        missing=[name for name in request["modules"] if importlib.util.find_spec(name) is None],
        differing=[n for n, sha256 in request["files"].items() if _digest(folder / n) != sha256],
    )


def take(folder: Path, request: dict) -> None:
    """Files from a tar stream, each whole or not at all."""
    lock = _locked()
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as tar:
        for member in tar:
            target = folder / member.name
            partial = target.with_name(f"{target.name}.partial")
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("wb") as file:
                    shutil.copyfileobj(tar.extractfile(member), file)
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)
    os.close(lock)
    say(done=True)


def start(folder: Path, request: dict) -> None:
    """Start the job unless it has been."""
    job = folder / "jobs" / request["job"]
    if _state(job) not in ("running", "ended"):
        _start(folder, job, request)
    say(done=True)


def follow(folder: Path, request: dict) -> None:
    """Start the job unless it has been, say what it prints, and in the end give what it wrote."""
    job = folder / "jobs" / request["job"]
    if _state(job) not in ("running", "ended"):
        _start(folder, job, request)
    streams = {
        name: (job / name, codecs.getincrementaldecoder("utf-8")("replace")) for name in _TOLD
    }
    files = {}
    while True:
        over = _state(job) != "running"  # asked first: what is printed until then is told
        for name, (path, decoder) in streams.items():
            if name not in files and path.exists():
                files[name] = path.open("rb")
            if name in files and (text := decoder.decode(files[name].read())):
                say(**{name: text})
        if over:
            break
        say()  # so that this process ends with the connection
        time.sleep(_POLL)
    _outcome(folder, job, request)


_TOLD = ("out", "err")


def stop(folder: Path, request: dict) -> None:
    """Ctrl-C for the job; then give what it wrote."""
    job = folder / "jobs" / request["job"]
    if _state(job) == "running":
        os.killpg(int((job / "pid").read_text()), signal.SIGINT)
        until = time.monotonic() + _STOPPING
        while _state(job) == "running" and time.monotonic() < until:
            time.sleep(0.1)
        if _state(job) == "running":
            os.killpg(int((job / "pid").read_text()), signal.SIGKILL)
            time.sleep(_POLL)
    _outcome(folder, job, request)


def forget(folder: Path, request: dict) -> None:
    """Remove a job that has ended, and what was given to it alone."""
    job = folder / "jobs" / request["job"]
    if _state(job) != "running":
        shutil.rmtree(job, ignore_errors=True)
        shutil.rmtree(folder / "given" / request["job"], ignore_errors=True)
    say(done=True)


def _outcome(folder: Path, job: Path, request: dict) -> None:
    """Give what is asked for, files or the files of folders, as far as the job wrote it."""
    began, code = job / "began", job / "rc"
    for name in request["brought"] if began.exists() else ():
        place = folder / name
        for path in sorted(place.iterdir()) if place.is_dir() else [place]:
            # One clock, the file system's, made both times.
            written = path.is_file() and path.stat().st_mtime_ns >= began.stat().st_mtime_ns
            if written and path.suffix != ".partial":
                give(path, path.relative_to(folder).as_posix())
    say(done=True, rc=int(code.read_text()) if code.exists() else None)


def give(path: Path, name: str) -> None:
    """A file, in pieces that are lines, and its sha256."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        say(file=name, bytes=os.fstat(file.fileno()).st_size)
        while piece := file.read(1 << 20):
            sha.update(piece)
            say(piece=base64.b64encode(piece).decode())
    say(whole=sha.hexdigest())


def _start(folder: Path, job: Path, request: dict) -> None:
    lock = _locked()
    shutil.rmtree(job, ignore_errors=True)
    job.mkdir(parents=True)
    own = os.open(job / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(own, fcntl.LOCK_EX)
    (job / "began").write_text(time.strftime("%Y-%m-%d %H:%M"))
    # A server that was started in the background ignores Ctrl-C, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    given = os.open(folder / request["stdin"] if request["stdin"] else os.devnull, os.O_RDONLY)
    process = subprocess.Popen(
        ["sh", "-c", _KEPT, str(job), sys.executable, "-m", *request["arguments"]],
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=given,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=[lock, own],  # held by all of it, released when it is no more, however it ends
    )
    (job / "pid").write_text(str(process.pid))
    for descriptor in (given, lock, own):
        os.close(descriptor)


def _state(job: Path) -> str:
    """none, running, ended, or dead: it was ended without a word, as a restart does."""
    if not (job / "lock").exists():
        return "none"
    with (job / "lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "running"
    return "ended" if (job / "rc").exists() else "dead"


def _locked() -> int:
    """A descriptor of the machine's lock, held."""
    path = os.path.join(tempfile.gettempdir(), LOCK)
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    except PermissionError:  # another user's, in a folder that all may write
        lock = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused("busy") from None
    return lock


def _digest(path: Path) -> str:
    if not path.is_file():
        return ""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            sha.update(piece)
    return sha.hexdigest()


def main() -> None:
    request = json.loads(sys.stdin.buffer.readline())
    try:
        {f.__name__: f for f in (look, take, start, follow, stop, forget)}[request["do"]](
            Path(sys.argv[1]), request
        )
    except Refused as refused:
        say(error=str(refused))
    except BrokenPipeError:
        os._exit(1)  # the connection is no more
    except tarfile.ReadError:
        pass  # nor is it here, half-way through a copy
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        where = error.filename or sys.argv[1]
        say(error="full" if full else "os", said=f"{where}: {error.strerror or error}")


if __name__ == "__main__":
    main()
