"""A table of rows -> a table of answers: `python -m bench.predict ARTIFACT --table=... --out=...`.

Columns are called as in the manifest that training reads. Every row keeps its place: one that
cannot be answered has the reason instead.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.edge import inputs, scores
from bench.edge.errors import BenchError, InputError
from bench.edge.predictor import Answer, Predictor

# What training takes for a missing value, where the artifact does not say.
MISSING = ("nan", "<na>", "#n/a", "n/a", "none", "null")
# Of these, what training may have met as a category.
PERHAPS_LEVELS = frozenset({"n/a", "none", "null"})
# The most that Python's csv module can be told; without, it refuses cells of 128 KiB.
_LONGEST_CELL = 2**31 - 1
# Seconds between two lines that show progress.
_SHOW_EVERY = 0.2


@dataclass(frozen=True)
class Columns:
    """Names of columns. text is "" where the artifact says which columns are joined."""

    text: str = ""
    image: str = "image"
    audio: str = "audio"
    label: str = "label"
    score: str = "score"
    id: str = "id"
    label_separator: str = ";"
    missing: tuple[str, ...] = MISSING


@dataclass(frozen=True)
class Row:
    """cells: column -> cell; reason: why there are none, or ""."""

    line: int
    cells: dict[str, str]
    reason: str = ""


@dataclass(frozen=True)
class Answered:
    """A table's answers.

    Attributes:
        csv: a line for each row, in order: id, target (where the table has labels), predicted, the
            probability of each class, predicted_score, milliseconds, note, error.
        rows, failed, noted: how many, in all, without an answer, with a note.
        first: the first reasons, with their lines.
        notes: what is odd about the table.
        metrics: name -> value, of the rows that have both an answer and a label.
        scored: how many those are.
        ended: what came before the last row was answered: Ctrl-C, or an engine that failed.
    """

    csv: str
    rows: int
    failed: int
    noted: int
    first: tuple[str, ...]
    notes: tuple[str, ...]
    metrics: dict[str, float]
    scored: int
    ended: KeyboardInterrupt | BenchError | None = None


def answer(
    predictor: Predictor, path: Path, columns: Columns, say: Callable[[str], None]
) -> Answered:
    """Ask a model for every row of a CSV file.

    Files of images and sounds are named relative to the table's folder, and lie inside.

    Args:
        say: told how far it is, in a line that the next one replaces.

    Returns:
        All answers; after Ctrl-C, or where the engine failed, those until then.

    Raises:
        BenchError: the table cannot be read, or has not the columns that the model takes.
    """
    names, rows = _read(path)
    taken = _Taken.of(predictor.meta, columns, names, path)
    truth = scores.Truth.of(predictor.meta, columns, names)
    found: list[Answer | InputError] = []
    start = shown = time.monotonic()
    ended = None
    for row in rows:
        try:
            found.append(_answer_of(predictor, taken, row))
        except (KeyboardInterrupt, BenchError) as error:
            ended = error
            found += [InputError("not asked") for _ in rows[len(found) :]]
            break
        now = time.monotonic()
        if now > shown + _SHOW_EVERY:
            left = (now - start) / len(found) * (len(rows) - len(found))
            say(f"{len(found)} of {len(rows)} rows, {int(left) // 60}:{int(left) % 60:02} left")
            shown = now
    say("")
    failed = [(r.line, a) for r, a in zip(rows, found, strict=True) if isinstance(a, InputError)]
    metrics, scored, notes = truth.scores(rows, found)
    return Answered(
        _written(predictor, columns, names, rows, found),
        len(rows),
        len(failed),
        sum(bool(a.notes) for a in found if isinstance(a, Answer)),
        tuple(f"line {line}: {reason}" for line, reason in failed[:3]),
        (*taken.notes, *notes),
        metrics,
        scored,
        ended,
    )


def files_named(meta: dict, path: Path, columns: Columns) -> list[tuple[Path, str]]:
    """The files that the rows of a table name, there or not, each once: where, and how it is named,
    relative to the table's folder.

    Args:
        meta: of the artifact that is to be asked.

    Raises:
        BenchError: as `answer`.
    """
    names, rows = _read(path)
    taken = _Taken.of(meta, columns, names, path)
    found = {}
    for row in rows:
        # What cannot be used is told where the row is answered.
        with contextlib.suppress(InputError):
            given = {} if row.reason else taken.given(row.cells)
            for file in (given.get("image"), given.get("audio")):
                with contextlib.suppress(OSError, ValueError):  # a name that no file has
                    if file is not None and (file.is_file() or not file.exists()):
                        found[file] = file.relative_to(path.parent).as_posix()
    return list(found.items())


def _answer_of(predictor: Predictor, taken: _Taken, row: Row) -> Answer | InputError:
    try:
        if row.reason:
            raise InputError(row.reason)
        given = taken.given(row.cells)
    except InputError as error:
        return error
    return predictor.predict_many([given])[0]


# --- What is read ---------------------------------------------------------------------------------


def _read(path: Path) -> tuple[list[str], list[Row]]:
    """The names of the columns, and the rows that are not blank."""
    if path.suffix.lower() != ".csv":
        raise BenchError(
            f"{path} is no .csv: give a table with commas, or JSON lines to --jsonl on standard "
            "input."
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise BenchError(f"{path} is not UTF-8 (byte {error.start}): convert it.") from None
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        # strict: a quote that is not closed would otherwise swallow the rest in silence.
        header, *lines = _lines(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise BenchError(f"{path} is no table: {error}. Close every quote.") from None
    except ValueError:
        lines = []
    finally:
        csv.field_size_limit(limit)
    if not lines:
        raise BenchError(f"{path} has no rows: a line of names and one or more below is wanted.")
    names = [name.strip() for name in header[1]]
    return names, [_row(names, line, cells) for line, cells in lines]


def _lines(reader) -> Iterator[tuple[int, list[str]]]:
    """(where it begins, its cells) of each line that is not blank."""
    begin = 1
    for cells in reader:
        if cells:
            yield begin, cells
        begin = reader.line_num + 1


def _row(names: list[str], line: int, cells: list[str]) -> Row:
    if len(cells) == len(names):
        return Row(line, dict(zip(names, cells, strict=True)))
    reason = f"{len(cells)} cells under {len(names)} columns (unquoted comma?)."
    return Row(line, {}, reason)


@dataclass(frozen=True)
class _Taken:
    """What of a row goes to the model: columns of each of its inputs, by `predict`'s names."""

    columns: dict[str, list[str]]
    # Of the text and the features: given by the names of their columns.
    by_name: frozenset[str]
    # (keyword of `predict`, column) -> what is a missing value in it.
    missing: dict[tuple[str, str], frozenset[str]]
    may_lack: tuple[str, ...]
    folder: Path
    notes: tuple[str, ...]

    @classmethod
    def of(cls, meta: dict, columns: Columns, names: list[str], path: Path) -> _Taken:
        """
        Raises:
            BenchError: a column is not there without which the model cannot do, or it is twice.
        """
        spec, wanted, notes = meta["inputs"], {}, []
        takes, may_lack = inputs.keywords(meta)
        joined = [] if columns.text else spec.get("token_ids", {}).get("columns", [])
        tabular = spec.get("tabular", {})
        cells = [c["name"] for kind in ("numbers", "categories") for c in tabular.get(kind, [])]
        of_input = {
            "text": joined or [columns.text or "text"],
            "image": [columns.image],
            "audio": [columns.audio],
            "features": cells,
        }
        for keyword in takes:
            lacking = [name for name in of_input[keyword] if name not in names]
            if not lacking:
                wanted[keyword] = of_input[keyword]
            elif keyword in may_lack and len(lacking) == len(of_input[keyword]):
                notes.append(
                    f"{path.name} has no column {lacking[0]!r}: all answers lack {keyword}"
                )
            else:
                raise BenchError(
                    f"{path} has no column {lacking[0]!r} for {keyword} (it has "
                    f"{', '.join(names)}): name the right one"
                    + ("." if keyword == "features" else f" with --{keyword}_column.")
                )
        twice = [n for found in wanted.values() for n in found if names.count(n) > 1]
        if twice:
            raise BenchError(f"{path} has the column {twice[0]!r} twice: rename one.")
        by_name = frozenset({"features"} | ({"text"} if joined else set()))
        usual = frozenset(word.strip().casefold() for word in columns.missing)
        words = {(keyword, name): usual for keyword in wanted for name in wanted[keyword]}
        # What the artifact says of its own columns goes before.
        words |= {("text", name): frozenset(spec["token_ids"]["missing"]) for name in joined}
        told = frozenset(tabular.get("missing", usual))
        words |= {("features", c["name"]): told for c in tabular.get("numbers", [])}
        levels = tabular.get("categories", [])
        words |= {("features", c["name"]): told - PERHAPS_LEVELS for c in levels}
        return cls(wanted, by_name, words, may_lack, path.parent, tuple(notes))

    def given(self, cells: Mapping[str, str]) -> dict[str, Any]:
        """The arguments of `predict`; a modality whose cells are empty or missing is left out.

        Raises:
            InputError: a path leaves the table's folder.
        """
        given: dict[str, Any] = {}
        for keyword, names in self.columns.items():
            empty = all(self._is_missing(keyword, name, cells[name]) for name in names)
            # An empty row of features is one of means, where the model may not lack them.
            if empty and not (keyword == "features" and keyword not in self.may_lack):
                continue
            if keyword in self.by_name:
                given[keyword] = {name: cells[name] for name in names}
            elif keyword == "text":
                given[keyword] = cells[names[0]]
            else:
                given[keyword] = self._inside(cells[names[0]].strip())
        return given

    def _is_missing(self, keyword: str, name: str, cell: str) -> bool:
        return not cell.strip() or cell.strip().casefold() in self.missing[keyword, name]

    def _inside(self, relative: str) -> Path:
        """A table may come from anyone: no cell of it may make the program read elsewhere."""
        path = self.folder / relative
        try:
            inside = path.resolve().is_relative_to(self.folder.resolve())
        except (OSError, RuntimeError, ValueError):  # a loop of links, a name that no file has
            inside = False
        if not inside:
            raise InputError(f"The path {relative!r} leaves the table's folder.")
        return path


# --- What is written ------------------------------------------------------------------------------


def _written(predictor: Predictor, columns: Columns, names, rows, found) -> str:
    """As `predictions.csv` of a run has it, and with what it cost, notes and reasons."""
    classes = predictor.meta["classes"]
    labelled, called = columns.label in names, columns.id in names
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["id", *(["target"] if labelled else []), "predicted", *(f"p_{c}" for c in classes)]
    writer.writerow([*head, "predicted_score", "milliseconds", "note", "error"])
    for row, answer in zip(rows, found, strict=True):
        name = row.cells.get(columns.id, "").strip() if called else ""
        target = [row.cells.get(columns.label, "")] if labelled else []
        writer.writerow([name or f"line{row.line}", *target, *_cells(answer, len(classes))])
    return text.getvalue()


def _cells(answer: Answer | InputError, classes: int) -> list[str]:
    if isinstance(answer, InputError):
        return [*[""] * (classes + 4), str(answer)]
    predicted = json.dumps(answer.labels, ensure_ascii=False) if answer.several else answer.label
    shares = [f"{share:.7g}" for share in answer.probabilities.values()]
    score = "" if answer.score is None else f"{answer.score:.7g}"
    spent = f"{answer.milliseconds['all']:.3f}"
    return [predicted, *shares, score, spent, " ".join(answer.notes), ""]
