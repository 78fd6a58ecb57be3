"""Run entry modules many times in few seconds: one process imports, each run is a fork.

Started as `python -m tests.support.entries`; reads one JSON list of arguments a line, answers with
`{"code", "out", "err"}` a line. Flags are global and entry modules run once in a process,
so that each run needs one of its own; the imports take seconds, a fork nothing.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import traceback

from fusion_keras import huge_pages


class Entries:
    """Client of such a process."""

    def __init__(self, environment: dict[str, str]):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.entries"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # As the entries start themselves; a fork that started anew would wait here for lines.
            env=huge_pages.environment({**os.environ, **environment}),
            text=True,
        )

    def run(self, entry: str, *arguments: str, file_limit: int = 0) -> dict:
        """Run `python -m fusion_keras.<entry> arguments`.

        Args:
            entry: name of the module.
            arguments: its command line.
            file_limit: largest file in bytes that it may write, for a full disk; 0 for any.

        Returns:
            {"code": exit code, "out": stdout, "err": stderr}
        """
        self.process.stdin.write(json.dumps([file_limit, entry, *arguments]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    for request in sys.stdin:
        file_limit, entry, *arguments = json.loads(request)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if not child:
                _run(entry, arguments, file_limit, out.fileno(), err.fileno())
            _, status = os.waitpid(child, 0)
            texts = [_content(file) for file in (out, err)]
        answer = {"code": os.waitstatus_to_exitcode(status), "out": texts[0], "err": texts[1]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _content(file) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _run(entry: str, arguments: list[str], file_limit: int, out: int, err: int) -> None:
    os.dup2(out, 1)
    os.dup2(err, 2)
    code = 1
    try:
        if file_limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        sys.argv = [entry, *arguments]
        runpy.run_module(f"fusion_keras.{entry}", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    from fusion_keras.training import experiment, report, sweeping  # noqa: F401

    _serve()
