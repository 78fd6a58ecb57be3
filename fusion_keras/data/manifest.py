"""Source `manifest`: any table of sentences, image paths and labels.

Columns are found by name and can be renamed. Files are relative to the table's folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fusion_keras.data.label_sets import number_label_sets
from fusion_keras.data.labels import Labels, number_labels
from fusion_keras.data.numbering import place, unit
from fusion_keras.data.odd_classes import SPLITS_CELLS
from fusion_keras.data.paths import Files
from fusion_keras.data.records import MAX_SKIPPED, Records, SkipLog
from fusion_keras.data.splits import check_records
from fusion_keras.data.table import (
    MISSING,
    PERHAPS_NAMES,
    Table,
    parse_number,
    parse_split,
    read_table,
)
from fusion_keras.data.target_leaks import giveaways, refuse_targets
from fusion_keras.data.text_columns import JOIN, TextColumns, folded
from fusion_keras.errors import UsageError


def read_manifest(
    path: str | Path,
    *,
    text_column: str = "text",
    text_join: str = JOIN,
    text_names: bool = False,
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
    join_classes: bool = False,
    label_kind: str = "single",
    label_separator: str = ";",
    missing: Sequence[str] = MISSING,
    encoding: str = "",
    max_skipped: float = MAX_SKIPPED,
    keep_incomplete: bool = False,
    files: Files | None = None,
) -> Records:
    """Reads a table (see `table.read_table`) into `Records`.

    The label column must exist, the text column unless it is "" (images, sound or cells alone), the
    image column unless it is "" (text only), and the audio column, of files with a sound track, and
    those of numbers and categories, if they are named.
    The split, id, group and score columns are used where they exist under their default
    names; one that is named otherwise must exist; "" leaves it out. Without an id column a
    row is called by its line, or its number.

    Labels are names or integers, one a row (see `labels.number_labels`), or any number of them (see
    `label_sets.number_label_sets`), an empty cell or a missing value then for none.

    A row is skipped and noted if its text, label, id or group is empty or its text or label a
    missing value, a label is not in `classes` (of several, only looks like one), its image or sound
    is missing, or its length is wrong. Texts are otherwise kept as they are, be it one word, emoji
    or broken encoding; so are cells of `numbers`, which their reader looks at.

    Args:
      text_column, text_join, text_names: see `text_columns.TextColumns.of`. Of several columns
        one must hold a text.
      classes, join_classes: see `labels.number_labels`.
      label_kind: "single", one label a row, or "multi".
      label_separator: of multi, what stands between the labels of a cell.
      missing: what is a missing value where it is a whole cell, in any case. As a label none of
        `table.PERHAPS_NAMES` is, and none of `classes`.
      encoding: of the file, by Python's name; "" is UTF-8.
      max_skipped: the greatest share of rows that may be skipped (see `records.MAX_SKIPPED`).
      keep_incomplete: rows whose text, image or sound is an empty cell or a missing value are kept,
        and what they lack is None; so are the numbers and categories of a row that has none.
      files: in the table's folder; for who wants to know which were looked for.

    Raises:
      UsageError: the table cannot be read, a column is missing, a split is unknown, a score is
        no finite number, an id comes twice, a path leaves the folder, a cell that is used holds
        a list that is none of labels, the label's or the score's column is an input too, labels
        are real numbers, or numbers that are no indices into `classes`, there are fewer than
        two classes, a split is empty or training lacks a class, or more rows than allowed
        cannot be used.
    """
    path = Path(path)
    skips = SkipLog(path.name, max_skipped)
    joined = TextColumns.of(text_column, text_join, text_names, missing)
    inputs = (*joined.columns, *numbers, *categories)
    named = (image_column, audio_column, label_column, split_column, id_column, group_column)
    table = read_table(
        path,
        skips,
        columns={*inputs, *named, score_column},
        encoding=encoding,
        encoding_flag="--config.data.manifest.encoding",
    )
    table, text_column = joined.joined(table)
    refuse_targets({"label_column": label_column, "score_column": score_column}, inputs)
    wanted = _Wanted(
        text=text_column,
        image=image_column,
        audio=audio_column,
        label=label_column,
        split=_optional(table, split_column, "split"),
        id=_optional(table, id_column, "id"),
        group=_optional(table, group_column, "group"),
        score=_optional(table, score_column, "score"),
        numbers=tuple(numbers),
        categories=tuple(categories),
        # In a setting they may stand as numbers.
        classes=tuple(map(str, classes or ())),
        missing=folded(missing),
        several=label_kind == "multi",
        keep=keep_incomplete,
    )
    wanted.require_columns(table)
    rows = list(_usable(table, wanted, files or Files(path.parent), skips))
    if not rows:
        skips.check()
        raise UsageError(f"got no usable row in {path}, wanted at least one; fix the file.")
    labels = _labels(rows, wanted, skips.source, join_classes, label_separator)
    for row, reason in zip(rows, labels.reasons, strict=True):
        if reason:
            skips.add(row.line, reason)
    skips.check()
    cells = {name: [row.cells[name] for row in rows] for name in inputs}
    told = giveaways(cells, numbers, labels.values, skips.source)
    records = _records(path, rows, wanted, labels, (*table.notes, *labels.notes, *told), skips)
    known = [row for row, reason in enumerate(labels.reasons) if not reason]
    return check_records(records.select(known))


def _records(
    path: Path,
    rows: list[_Row],
    wanted: _Wanted,
    labels: Labels,
    notes: tuple[str, ...],
    skips: SkipLog,
) -> Records:
    raw: dict[str, list] = {"text": [row.text for row in rows]}
    if wanted.image:
        raw["image"] = [row.image for row in rows]
    if wanted.audio:
        raw["audio"] = [row.sound for row in rows]
    if wanted.numbers or wanted.categories:
        raw["tabular"] = [wanted.tabular(row.cells) for row in rows]
    return Records(
        name=path.parent.resolve().name if path.stem == "manifest" else path.stem,
        ids=[
            row.cells[wanted.id].strip() if wanted.id else f"{unit(path.name)}{row.line}"
            for row in rows
        ],
        splits=[row.split for row in rows] if wanted.split else None,
        raw=raw,
        labels=labels.values,
        classes=labels.classes,
        scores=np.array([row.score for row in rows], np.float32) if wanted.score else None,
        groups=[row.cells[wanted.group].strip() for row in rows] if wanted.group else None,
        notes=notes,
        origins=[place(path.name, row.line) for row in rows],
        skips=skips,
    )


def _labels(rows: list[_Row], wanted: _Wanted, source: str, join: bool, separator: str) -> Labels:
    lines = [row.line for row in rows]
    if wanted.several:
        cells = ["" if wanted.has_no_label(r.cells) else r.cells[wanted.label] for r in rows]
        return number_label_sets(
            cells, lines, source, separator=separator, given=wanted.classes, join=join
        )
    cells = [row.cells[wanted.label].strip() for row in rows]
    return number_labels(cells, lines, source, given=wanted.classes, join=join)


_LEFT_OUT = " (--config.data.manifest.id_column= or group_column= leaves such a column out)"


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What a row must have, by the names of columns ("" for none), and what counts as nothing."""

    text: str
    image: str
    audio: str
    label: str
    split: str
    id: str
    group: str
    score: str
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    classes: tuple[str, ...]
    missing: frozenset[str]
    several: bool  # labels a row
    keep: bool  # rows that lack a modality

    def require_columns(self, table: Table) -> None:
        """
        Raises:
          UsageError: the table has no such column, or twice, or it holds what cannot be used.
        """
        table.require(
            self.label,
            "label",
            setting="label_column",
            lists=self.several,
            instead=f"; {SPLITS_CELLS}",
        )
        if self.image:
            without = ', or "" for none'
            table.require(self.image, "image path", without, setting="image_column")
        if self.audio:
            table.require(self.audio, "sound path", ', or "" for none', setting="audio_column")
        for name in self.numbers:
            table.require(name, "number")
        for name in self.categories:
            table.require(name, "category")

    @property
    def modalities(self) -> dict[str, str]:
        """Modality -> its column, of those that are one cell."""
        columns = {"text": self.text, "image": self.image, "audio": self.audio}
        return {modality: column for modality, column in columns.items() if column}

    def is_missing(self, cell: str) -> bool:
        return cell.strip().casefold() in self.missing

    def _is_no_category(self, cell: str) -> bool:
        return self.is_missing(cell) and cell.strip().casefold() not in PERHAPS_NAMES

    def has_no_label(self, cells: dict[str, str]) -> bool:
        """Whether a missing value stands where the label should."""
        label = cells[self.label].strip()
        unnamed = label.casefold() not in PERHAPS_NAMES and label not in self.classes
        return self.is_missing(label) and unnamed

    def tabular(self, cells: dict[str, str]) -> dict[str, str] | None:
        """The cells of numbers and categories; one that is missing is empty.

        As of labels, a category is not missing where `table.PERHAPS_NAMES` says what it may be.
        """
        numbers = {n: "" if self.is_missing(cells[n]) else cells[n] for n in self.numbers}
        row = numbers | {
            n: "" if self._is_no_category(cells[n]) else cells[n] for n in self.categories
        }
        return None if self.keep and not any(cell.strip() for cell in row.values()) else row

    def lacks(
        self, cells: dict[str, str], image: Path | None, sound: Path | None, files: Files
    ) -> list[str]:
        """The modalities whose cell is empty or a missing value, as far as the table has them."""
        paths = {"image": image, "audio": sound}
        return [
            modality
            for modality, column in self.modalities.items()
            # A file that is called so is one.
            if (not cells[column].strip() or self.is_missing(cells[column]))
            and ((path := paths.get(modality)) is None or not files.has(path))
        ]

    def unusable(
        self,
        cells: dict[str, str],
        image: Path | None,
        sound: Path | None,
        files: Files,
        without: Sequence[str] = (),
    ) -> str:
        """Why the row with these cells and files cannot be used, or "".

        Args:
          without: modalities that it may lack.
        """
        text = (self.text,) if self.text and "text" not in without else ()
        label = () if self.several else (self.label,)
        if self.has_no_label(cells) and not self.several:
            return f"no {self.label}: {cells[self.label]!r}"
        names = [name for name in (self.id, self.group) if name]
        for column in (*text, *label, *names):
            if not cells[column].strip():
                return f"empty {column}" + (_LEFT_OUT if column in names else "")
        if text and self.is_missing(cells[self.text]):
            return f"no {self.text}: {cells[self.text]!r}"
        named = {"image": ("image", self.image, image), "audio": ("sound", self.audio, sound)}
        for kind, column, path in (n for modality, n in named.items() if modality not in without):
            if column and (path is None or not files.has(path)):
                cell = cells[column]
                what = f"{kind}:" if self.is_missing(cell) else f"{kind} file"
                hint = ""
                if cell.strip() and not self.is_missing(cell) and not Path(cell.strip()).suffix:
                    hint = " (if that is for none: --config.data.manifest.missing)"
                return f"no {what} {cell!r}{hint}"
        return ""


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    """A row that can be used; None stands for a column that is left out, and for what it lacks."""

    line: int
    cells: dict[str, str]
    text: str | None
    image: Path | None
    sound: Path | None
    split: str | None
    score: float | None


def _usable(table: Table, wanted: _Wanted, files: Files, skips: SkipLog) -> Iterator[_Row]:
    """Yield the rows that can be used; note the others in `skips`."""
    for row in table.rows:
        line, cells = row.line, row.cells
        where = place(table.path.name, line)
        # These end the run, whether or not the row is usable otherwise.
        split = parse_split(cells[wanted.split], where) if wanted.split else None
        score = _score(cells[wanted.score], where) if wanted.score else None
        image = _file(cells[wanted.image], files, where) if wanted.image else None
        sound = _file(cells[wanted.audio], files, where) if wanted.audio else None
        lacks = wanted.lacks(cells, image, sound, files)
        reason = wanted.unusable(cells, image, sound, files, lacks if wanted.keep else ())
        if not reason:
            has_text = wanted.text and "text" not in lacks
            text = cells[wanted.text] if has_text else None
            image, sound = (
                None if m in lacks else path for m, path in (("image", image), ("audio", sound))
            )
            yield _Row(line, cells, text, image, sound, split, score)
        else:
            others = len(lacks) < len(wanted.modalities)
            usable = others and not wanted.unusable(cells, image, sound, files, lacks)
            skips.add(line, reason, lacks if usable else ())


def _optional(table: Table, name: str, default: str) -> str:
    """The column's name if it is to be used, "" if not."""
    if not name or (name == default and name not in table.columns):
        return ""
    return table.require(name, default, setting=f"{default}_column")


def _score(cell: str, where: str) -> float:
    score = parse_number(cell)
    if score is None:
        raise UsageError(
            f"got the score {cell!r} in {where}, wanted a number; fix it, or leave the column out "
            "with --config.data.manifest.score_column=."
        )
    return score


def _file(cell: str, files: Files, where: str) -> Path | None:
    return files.path(cell.strip(), where) if cell.strip() else None
