"""`python -m bench.predict ARTIFACT --device=ssh://...`: a model is asked on another machine.

The files that a question names travel into `inputs/` there, a folder for each folder here, and stay
for the next time. The answers name them as they are called here.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.edge import artifact, elsewhere, inputs, tables
from bench.edge.inputs.given import require_file
from bench.remote import session

# Flag of a file -> what a row of it is called.
_FILES = {"image": "image", "audio": "recording"}
# Input of the model -> the module it needs there and what `pip install` calls it.
_NEEDED = {"token_ids": ("tokenizers", "tokenizers"), "image": ("PIL", "pillow")}


def ask(options: argparse.Namespace, columns: tables.Columns, runner: str) -> int:
    """
    Args:
        options: of `bench.predict`, checked.
        columns: of the table.
        runner: what runs the model there.

    Returns:
        The exit code of the command there.

    Raises:
        BenchError: what hinders it, and what to do.
    """
    meta = artifact.read(options.artifact)
    sent, words = _Sent(), []
    writes, given = {}, None
    with tempfile.TemporaryDirectory() as folder:
        if options.table:
            words = [f"--table={sent.add(options.table)}"]
            for path, relative in tables.files_named(meta, options.table, columns):
                sent.beside(options.table, path, relative)
            writes = {"out": options.out}
        elif options.jsonl:
            given = Path(folder) / "stdin"
            given.write_bytes(b"".join(_line(line, sent) for line in sys.stdin.buffer))
        else:
            words = _words(options, sent)
        wanted = elsewhere.Wanted(
            command="bench.predict",
            called="prediction",
            runners=[runner],
            artifacts=[options.artifact],
            needs=dict(_NEEDED[name] for name in inputs.kinds_of(meta) if name in _NEEDED),
            words=words,
            left_out=(
                "text",
                "tabular",
                *_FILES,
                "table",
                *([] if options.threads else ["threads"]),
            ),
            sends=sent.files,
            gone=tuple(sent.gone),
            ours=sent.ours(escaped=options.jsonl),
            stdin=given,
            writes=writes,
            edit=_reworded,
        )
        return session.run(wanted, options)


class _Sent:
    """Files here, by their names there."""

    def __init__(self):
        self.files: dict[str, Path] = {}
        self.gone: set[str] = set()
        self._folders: dict[str, Path] = {}

    def add(self, path: Path) -> str:
        """Its name there, whether it is a file or not."""
        place = hashlib.sha256(str(path.parent.resolve()).encode()).hexdigest()[:12]
        self._folders[f"inputs/{place}/"] = path.parent
        return self._named(f"inputs/{place}/{path.name}", path)

    def _named(self, name: str, path: Path) -> str:
        if path.is_file():
            self.files[name] = path
        else:
            # There one from before may be.
            self.gone.add(name)
        return name

    def beside(self, other: Path, path: Path, relative: str) -> None:
        """A file that is named relative to the folder of another."""
        self._named(f"{self.add(other).rpartition('/')[0]}/{relative}", path)

    def ours(self, *, escaped: bool) -> dict[str, str]:
        """Folder there -> here, as both begin a path; escaped: as JSON writes it."""
        begins = {name: str(folder / "x")[:-1] for name, folder in self._folders.items()}
        return {n: json.dumps(b)[1:-1] if escaped else b for n, b in begins.items()}


def _words(options: argparse.Namespace, sent: _Sent) -> list[str]:
    """One example, as a command line has it there."""
    words = [f"--text={text}" for text in options.text or ()]
    for flag, called in _FILES.items():
        if getattr(options, flag):
            path = require_file(getattr(options, flag), called)
            words.append(f"--{flag}={sent.add(path)}")
    return [*words, "--tabular", *options.tabular] if options.tabular else words


def _line(line: bytes, sent: _Sent) -> bytes:
    """A line of JSON with its files as they are called there; what is none is told there."""
    try:
        row = json.loads(line)
        for name in _FILES:
            if isinstance(row, dict) and isinstance(row.get(name), str):
                row[name] = sent.add(Path(row[name]))
        return json.dumps(row).encode() + b"\n"
    except (OSError, RuntimeError, ValueError):  # deep, a name that no file has, a loop of links
        return line


def _reworded(answers: Path, ours: Callable[[str], str]) -> None:
    """The reasons in a table of answers name our files."""
    with answers.open(newline="", encoding="utf-8") as file:
        text = file.read()
    try:
        lines = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error:  # a cell as long as a book
        return
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(_with_reasons(lines, ours))
    answers.write_bytes(written.getvalue().encode())


def _with_reasons(lines: Iterable[list[str]], ours: Callable[[str], str]) -> Iterable[list[str]]:
    for line in lines:
        yield [*line[:-1], ours(line[-1])]
