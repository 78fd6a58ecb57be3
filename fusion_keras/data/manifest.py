"""Source `manifest`: any table of sentences, image paths and labels.

Columns are found by name and can be renamed. Files are relative to the table's folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fusion_keras.data.paths import inside, is_file
from fusion_keras.data.records import MAX_SKIPPED, Records, SkipLog
from fusion_keras.data.splits import check_records
from fusion_keras.data.table import Row, Table, parse_number, parse_split, read_table
from fusion_keras.errors import UsageError

# Whole numbers are labels also in the spelling of a float column: pandas writes 1.0 for 1
# as soon as another cell of the column is empty.
_INTEGER = re.compile(r"([+-]?\d{1,18})(\.0*)?")
_SENTIMENT_ORDER = ("negative", "neutral", "non-negative", "positive")


def read_manifest(
    path: str | Path,
    *,
    text_column: str = "text",
    image_column: str = "image",
    label_column: str = "label",
    split_column: str = "split",
    id_column: str = "id",
    group_column: str = "group",
    score_column: str = "score",
    audio_column: str = "",
    numbers: Sequence[str] = (),
    categories: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    max_skipped: float = MAX_SKIPPED,
) -> Records:
    """Reads a CSV, TSV or JSON-lines table (see `table.read_table`) into `Records`.

    The text and label columns must exist, the image column unless it is "" (text only), and the
    audio column, of files with a sound track, and those of numbers and categories, if they are
    named.
    The split, id, group and score columns are used where they exist under their default
    names; one that is named otherwise must exist; "" leaves it out. Without an id column a
    row is called by its line.

    Labels are names or integers. The order of the classes is `classes` if given (integers are
    then indices into it, unless it lists them); else ascending integers; else negative,
    neutral, non-negative, positive if all are among these; else alphabetical.

    A row is skipped and noted if its text, label, id or group is empty, its label is not in
    `classes`, its image or sound is missing, a cell of `numbers` is neither a number nor empty, or
    its length is wrong. Texts are kept as they are,
    be it one word, emoji or broken encoding.

    Args:
      max_skipped: the greatest share of rows that may be skipped (see `records.MAX_SKIPPED`).

    Raises:
      UsageError: the table cannot be read, a column is missing, a split is unknown, a score is
        no finite number, an id comes twice, a path leaves the folder, labels are real numbers,
        there are fewer than two classes, a split is empty or training lacks a class, or more
        rows than allowed cannot be used.
    """
    path = Path(path)
    skips = SkipLog(path.name, max_skipped)
    table = read_table(path, skips)
    table.require(text_column, "text")
    table.require(label_column, "label")
    if image_column:
        table.require(image_column, "image path", ', or "" for text only')
    if audio_column:
        table.require(audio_column, "sound path", ', or "" for none')
    for name in (*numbers, *categories):
        table.require(name, "number" if name in numbers else "category")
    split_column = _optional(table, split_column, "split")
    id_column = _optional(table, id_column, "id")
    group_column = _optional(table, group_column, "group")
    score_column = _optional(table, score_column, "score")

    rows, images, sounds, splits, scores = [], [], [], [], []
    for row in table.rows:
        where = f"{path.name} line {row.line}"
        # These end the run, whether or not the row is usable otherwise.
        split = parse_split(row.cells[split_column], where) if split_column else None
        score = _score(row.cells[score_column], where) if score_column else None
        image = _file(row.cells[image_column], path.parent, where) if image_column else None
        sound = _file(row.cells[audio_column], path.parent, where) if audio_column else None
        empty = [c for c in (text_column, label_column, id_column, group_column) if c]
        reason = next((f"empty {c}" for c in empty if not row.cells[c].strip()), "")
        if row.cells[label_column].strip().lower() == "nan":
            reason = f"no {label_column}: {row.cells[label_column]!r}"  # pandas' empty cell
        if not reason and image_column and (image is None or not is_file(image)):
            reason = f"no image file {row.cells[image_column]!r}"
        if not reason and audio_column and (sound is None or not is_file(sound)):
            reason = f"no sound file {row.cells[audio_column]!r}"
        for name in numbers if not reason else ():
            if row.cells[name].strip() and parse_number(row.cells[name]) is None:
                reason = f"{name} {row.cells[name]!r} is no number"
        if reason:
            skips.add(row.line, reason)
            continue
        rows.append(row)
        images.append(image)
        sounds.append(sound)
        splits.append(split)
        scores.append(score)
    if not rows:
        skips.check()
        raise UsageError(f"got no usable row in {path}, wanted at least one; do mend the file.")

    cells = [row.cells[label_column].strip() for row in rows]
    labels, names = _number_labels(cells, rows, tuple(classes or ()), skips)
    skips.check()
    raw: dict[str, list] = {"text": [row.cells[text_column] for row in rows]}
    if image_column:
        raw["image"] = images
    if audio_column:
        raw["audio"] = sounds
    if numbers or categories:
        raw["tabular"] = [{n: row.cells[n] for n in (*numbers, *categories)} for row in rows]
    records = Records(
        name=path.parent.resolve().name if path.stem == "manifest" else path.stem,
        ids=[row.cells[id_column].strip() if id_column else f"line{row.line}" for row in rows],
        splits=splits if split_column else None,
        raw=raw,
        labels=labels,
        classes=names,
        scores=np.array(scores, np.float32) if score_column else None,
        groups=[row.cells[group_column].strip() for row in rows] if group_column else None,
        origins=[f"{path.name} line {row.line}" for row in rows],
        skips=skips,
    )
    return check_records(records.select(np.flatnonzero(labels >= 0)))


def _optional(table: Table, name: str, default: str) -> str:
    """The column's name if it is to be used, "" if not."""
    if not name or (name == default and name not in table.columns):
        return ""
    return table.require(name, default)


def _score(cell: str, where: str) -> float:
    score = parse_number(cell)
    if score is None:
        raise UsageError(
            f"got the score {cell!r} in {where}, wanted a number; do mend it, or leave the column "
            'out with score_column="".'
        )
    return score


def _file(cell: str, folder: Path, where: str) -> Path | None:
    return inside(folder, cell.strip(), where) if cell.strip() else None


def _number_labels(
    cells: list[str], rows: list[Row], classes: tuple[str, ...], skips: SkipLog
) -> tuple[np.ndarray, tuple[str, ...]]:
    """int32 [N] indices, -1 for a label that `classes` lacks (then skipped), and the classes."""
    whole = [match and str(int(match[1])) for match in map(_INTEGER.fullmatch, cells)]
    if all(whole):
        cells = whole
    elif all(parse_number(cell) is not None for cell in cells):
        row, cell = next((r, c) for r, c, w in zip(rows, cells, whole, strict=True) if not w)
        raise UsageError(
            f"got the label {cell!r} in {skips.source} line {row.line}, wanted a class name or an "
            "integer; do name the column of classes as label_column, and this one as score_column."
        )
    if not classes:
        classes = _order(set(cells), integers=all(whole))
    elif len(set(classes)) < len(classes):
        raise UsageError(f"got classes {classes}, wanted distinct names; do remove the repetition.")
    index = {name: i for i, name in enumerate(classes)}
    if all(whole) and not any(cell in index for cell in cells):
        index = {str(i): i for i in range(len(classes))}
    labels = np.array([index.get(cell, -1) for cell in cells], np.int32)
    for row, cell, label in zip(rows, cells, labels, strict=True):
        if label < 0:
            skips.add(row.line, f"label {cell!r} is none of {', '.join(classes)}")
    return labels, classes


def _order(names: set[str], integers: bool) -> tuple[str, ...]:
    if integers:
        return tuple(sorted(names, key=int))
    if {name.lower() for name in names} <= set(_SENTIMENT_ORDER):
        return tuple(sorted(names, key=lambda name: (_SENTIMENT_ORDER.index(name.lower()), name)))
    return tuple(sorted(names))
