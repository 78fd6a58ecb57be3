"""The pairs of `docs/results`: a face of FER2013 for each transcript of CMU-MOSI.

A constructed set: three faces in four have the emotion of their sentence's sign (negative: angry,
sad, fear, disgust; positive: happy, surprise; zero: neutral), one in four was drawn at random.
Training sentences have faces of FER2013's training part, the others of its test parts. Neither
may be passed on, so the list beside this file has no more of a face than the beginning of its
file's sha256, and of a sentence that of its split, score and text together. Goodfellow et al. 2013,
arXiv 1307.0414, section 3 describes the faces; Zadeh et al. 2016, arXiv 1606.06259 the sentences.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np

from fusion_keras import terminal
from fusion_keras.data.mosi import read_mosi
from fusion_keras.data.paths import file_digest
from fusion_keras.errors import UsageError
from fusion_keras.files import disk_errors

MANIFEST = "manifest.csv"
FRAMES = "frames"
_FACES = Path(__file__).with_name("paired_faces.csv")
_COLUMNS = ("id", "split", "text", "image", "score", "label", "emotion")
_SUFFIXES = (".jpg", ".jpeg")
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Paired:
    """What was written.

    Attributes:
        folder: manifest.csv, and frames/ with an image file a row.
        rows: how many.
        others: ids of the rows whose split, score or sentence is not the one of `docs/results`;
            without any the manifest is that one, byte for byte.
    """

    folder: Path
    rows: int
    others: tuple[str, ...]


def pair(faces: Path, label_file: Path, out: Path) -> Paired:
    """Write the pairs, as a table that `config.data.source=manifest` reads.

    The folder appears when it is whole. Transcripts are written in small letters, as they were
    measured.

    Args:
        faces: a folder with FER2013's faces as JPEG files of 48x48 grey pixels, in whatever folders
            and under whatever names.
        label_file: MMSA's label.csv of CMU-MOSI, see `mosi.read_mosi`.
        out: the folder to write, which does not exist or is empty.

    Raises:
        UsageError: the faces' folder lacks some of the faces; the label file cannot be read or
            lacks some of the sentences; or the folder has something in it or cannot be written.
    """
    if not faces.is_dir():
        raise UsageError(f"got {faces}, which is no folder, wanted the one with FER2013's faces.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        what = "has something in it" if out.is_dir() else "is a file"
        raise UsageError(f"got {out} to write, which {what}, wanted a folder that does not exist.")
    with _FACES.open(newline="", encoding="ascii") as file:
        wanted = {row["id"]: row for row in csv.DictReader(file)}
    sentences = read_mosi(label_file, cache_dir="")
    place = {name: row for row, name in enumerate(sentences.ids)}
    lacking = [name for name in wanted if name not in place]
    if lacking:
        raise UsageError(
            f"got {label_file} without {len(lacking)} of the {len(wanted)} clips "
            f"({_some(lacking)}), wanted CMU-MOSI's whole label file."
        )
    found = _find({row["face"] for row in wanted.values()}, faces)
    _check_found(wanted, found, faces)
    table, others = io.StringIO(), []
    write = csv.writer(table).writerow
    write(_COLUMNS)
    for name, row in wanted.items():
        at = place[name]
        score = str(np.float32(sentences.scores[at]))  # as few digits as tell it
        image = f"{FRAMES}/{name}.jpg"
        text, split = sentences.raw["text"][at].strip().lower(), sentences.splits[at]
        if sha256(f"{split} {score} {text}".encode()).hexdigest()[:8] != row["sentence"]:
            others.append(name)
        write((name, split, text, image, score, int(float(score) >= 0), row["emotion"]))
    manifest = table.getvalue().encode("utf-8")
    partial = out.with_name(f".new.{out.name}")
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        (partial / FRAMES).mkdir(parents=True)
        for name, row in wanted.items():
            shutil.copyfile(found[row["face"]], partial / FRAMES / f"{name}.jpg")
        (partial / MANIFEST).write_bytes(manifest)
        # An empty folder gives way to it.
        os.replace(partial, out)
    return Paired(out, len(wanted), tuple(others))


def _find(wanted: set[str], faces: Path) -> dict[str, Path]:
    """The beginning of a face's sha256 -> a file of it, of those that are there."""
    files = [path for path in sorted(faces.rglob("*")) if path.suffix.lower() in _SUFFIXES]
    found = {}
    with terminal.progress_bar("looking for faces", "files", rate=True) as progress:
        for path in progress.track(files, description=""):
            beginning = file_digest(path)[:16]
            if beginning in wanted:
                found.setdefault(beginning, path)
    return found


def _check_found(wanted: dict[str, dict], found: dict[str, Path], faces: Path) -> None:
    lacking = [name for name, row in wanted.items() if row["face"] not in found]
    if not lacking:
        return
    emotions = sorted({wanted[name]["emotion"] for name in lacking})
    raise UsageError(
        f"got {faces} without the faces of {len(lacking)} of {len(wanted)} clips "
        f"({_some(lacking)}; {', '.join(emotions)}), wanted both parts of FER2013, training and "
        "test, as the JPEG files in folders of emotions that it is passed on as. Files that were "
        "written anew, and those that one makes of the pixels in fer2013.csv, are other files."
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
