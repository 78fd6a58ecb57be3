"""The process that makes drafts and asks them while a search lasts; see `export.draft`."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from fusion_keras import huge_pages, jobs
from fusion_keras.errors import UsageError
from fusion_keras.files import last_line


def check_there() -> None:
    """Raises UsageError where the packages that export and measure cannot be imported."""
    missing = [name for name in ("export", "bench") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{' and '.join(missing)} cannot be found, which stand in the repository: type this in "
            "its root, or with it in PYTHONPATH."
        )


class Converter:
    """Started with the first task, and anew where it was lost.

    Without this process it ends, too: nobody writes to it any more.
    """

    def __init__(self, member: Callable[[int], AbstractContextManager], share: jobs.Share):
        """
        Args:
            member: see `crew.Crew.member`.
            share: its cores.
        """
        self._member, self._share, self._process = member, share, None
        self._membership = contextlib.ExitStack()

    def end(self) -> None:
        """End the process, if there is one."""
        if self._process is None:
            return
        self._process.kill()
        # Closes its pipes; what is still to be written there has no reader.
        with contextlib.suppress(BrokenPipeError), self._process:
            pass
        self._membership.close()

    def make(self, made: Path, target: Path, precisions: tuple[str, ...], log: Path) -> None:
        """See `export.draft.make`; `log` is what it said.

        Raises:
            UsageError: it failed; its own sentence, or its last line, and where its log is.
        """
        self._do("make", [made, target], precisions, log)

    def answer(self, paths: list[Path], precisions: tuple[str, ...], log: Path) -> None:
        """See `export.draft.answer`, as `make`."""
        self._do("answer", paths, precisions, log)

    def _do(self, task: str, paths: list[Path], precisions: tuple[str, ...], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        absolute = [str(path.absolute()) for path in (log, *paths)]
        line = json.dumps([absolute[0], task, *absolute[1:], ",".join(precisions)])
        code = self._answered(line) or self._answered(line)
        if code == "0":
            return
        said = last_line(log).removeprefix("error: ") if log.is_file() else ""
        if not code or code.startswith("-"):
            said = f"killed, perhaps out of memory; signal {code[1:] or 'unknown'}"
        raise UsageError(f"export.draft failed ({said}); all it said is in {log}")

    def _answered(self, line: str) -> str:
        """The exit code; "" where the process was lost."""
        if self._process is None or self._process.poll() is not None:
            self.end()
            self._start()
        try:
            print(line, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            return ""
        return self._process.stdout.readline().strip()

    def _start(self) -> None:
        with self._share.held():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "export.draft"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                # Ctrl-C is for the one who asks, who decides what becomes of it.
                process_group=0,
                env={
                    # A person who exports has no large pages either.
                    **huge_pages.without(os.environ),
                    "KERAS_BACKEND": "tensorflow",
                    "CUDA_VISIBLE_DEVICES": "-1",
                    "TF_CPP_MIN_LOG_LEVEL": "3",
                },
            )
        self._membership.enter_context(self._member(self._process.pid))
