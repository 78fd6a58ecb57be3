"""Source `mosi`: CMU-MOSI as a user holds it, a label file and the clips or ready frames.

The label file is MMSA's `label.csv`. Labels are negative (score < 0) against non-negative,
the convention of Willis and Bakos 2025; the score itself is kept.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path

import numpy as np

from fusion_keras.data.numbering import place
from fusion_keras.data.paths import inside, is_file
from fusion_keras.data.records import MAX_SKIPPED, SPLITS, Records, SkipLog
from fusion_keras.data.splits import STANDARD_MOSI_COUNTS, STANDARD_MOSI_FOLDS, check_records
from fusion_keras.data.table import MISSING, Table, parse_number, parse_split, read_table
from fusion_keras.data.video import VideoError, extract_middle_frames
from fusion_keras.errors import UsageError

CLASSES = ("negative", "non-negative")

_STANDARD_SPLIT = {video: split for split in SPLITS for video in STANDARD_MOSI_FOLDS[split]}
_FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
# "03bSnISJMiM_1"; MMSA's feature files write "03bSnISJMiM$_$1". A video id may itself hold,
# begin or end with "_", so that the clip is what follows the last one.
_CLIP_NAME = re.compile(r"(?P<video>.+?)(?:\$_\$|_)(?P<clip>[0-9A-Za-z]+)")
_SAFE_NAME = re.compile(r"[\w-]+", re.ASCII)


def read_mosi(
    label_file: str | Path,
    *,
    raw_dir: str | Path = "",
    frames_dir: str | Path = "",
    sound_dir: str | Path = "",
    cache_dir: str | Path,
    max_skipped: float = MAX_SKIPPED,
    decode: bool = True,
    keep_incomplete: bool = False,
) -> Records:
    """Reads CMU-MOSI into `Records`; ids are `<video>_<clip>`, groups are the videos.

    The label file (a table as `table.read_table` takes it) has the columns `text`, `label`
    (the score), and either `video_id` and `clip_id` or one `id`. The split is in `mode` or
    `split`; without either column it is the standard split by video. A split that is given is
    compared with the standard one video by video, and what deviates stands in the notes.

    The image of a clip is the middle frame of `raw_dir/<video>/<clip>.mp4`, extracted once
    into `cache_dir/frames`; or `frames_dir/<video>_<clip>` or `frames_dir/<video>/<clip>` with
    .jpg, .jpeg or .png. With neither folder the records have no images, for models without any.
    The sound of a clip is the track of `sound_dir/<video>/<clip>.mp4`; where that is a clip is
    found out when it is decoded.

    A row is skipped and noted if its text is empty or a missing value (`table.MISSING`), or its
    clip is missing or does not decode; with `keep_incomplete` one without a text is kept, and its
    text is None.
    With `decode` False clips stand in the place of their frames, and are only looked for later.

    Raises:
      UsageError: both folders are given or one does not exist, the file cannot be read, a
        column is missing, a score is no number in [-3, 3], a split or (without a split column)
        a video is unknown, an id is malformed or comes twice, too many rows cannot be used, or
        what is left cannot be trained on (see `splits.check_records`).
    """
    label_file = Path(label_file)
    if raw_dir and frames_dir:
        raise UsageError("got both raw_dir and frames_dir, wanted at most one; drop one of them.")
    for folder in filter(None, (raw_dir, frames_dir, sound_dir)):
        if not Path(folder).is_dir():
            raise UsageError(f"got {folder}, which is no folder; check the path.")
    skips = SkipLog(label_file.name, max_skipped)
    table = read_table(label_file, skips)
    records = _read_labels(table, skips)
    notes = (*table.notes, *_deviations(records, label_file.name))
    if raw_dir and not decode:
        images = _clip_files(records, Path(raw_dir))
    elif raw_dir:
        images = _clips(records, Path(raw_dir), Path(cache_dir))
    elif frames_dir:
        images = _ready_frames(records, Path(frames_dir))
    else:
        images = [None] * len(records)
    usable, texts, others = [], list(records.raw["text"]), raw_dir or frames_dir or sound_dir
    for row, image in enumerate(images):
        reason, lacking = (image if isinstance(image, str) else ""), ()
        text = texts[row].strip()
        if not text or text.casefold() in MISSING:
            texts[row] = None
            if not keep_incomplete:
                lacking = ("text",) if others and not reason else ()
                reason = f"no text: {text!r}" if text else "empty text"
        if reason:
            skips.add(records.origins[row], reason, lacking)
        else:
            usable.append(row)
    skips.check()
    raw = {**records.raw, "text": texts}
    if raw_dir or frames_dir:
        raw["image"] = images
    if sound_dir:
        raw["audio"] = _clip_files(records, Path(sound_dir))
    records = dataclasses.replace(records, raw=raw, notes=notes)
    return check_records(records.select(usable))


def _read_labels(table: Table, skips: SkipLog) -> Records:
    """Everything that the label file itself says; images are not looked for yet."""
    table.require("text", "transcript")
    table.require("label", "score in [-3, 3]")
    split_column = next((name for name in ("mode", "split") if name in table.columns), "")
    if "id" not in table.columns or "video_id" in table.columns:
        table.require("video_id", "video", " (or `id` for video and clip in one)")
        table.require("clip_id", "clip")
    else:
        table.require("id", "video and clip")
    if split_column:
        table.require(split_column, "split")
    videos, ids, splits, scores, origins = [], [], [], [], []
    for row in table.rows:
        where = place(skips.source, row.line)
        video, clip = _names(row.cells, where)
        videos.append(video)
        ids.append(f"{video}_{clip}")
        origins.append(where)
        scores.append(_score(row.cells["label"], where))
        if split_column:
            splits.append(parse_split(row.cells[split_column], where))
        elif video in _STANDARD_SPLIT:
            splits.append(_STANDARD_SPLIT[video])
        else:
            raise UsageError(
                f"got the video {video!r} in {where}, which is not in CMU-MOSI's standard split, "
                "wanted one that is, or a `mode` column; add that column."
            )
    return Records(
        name="mosi",
        ids=ids,
        splits=splits,
        raw={"text": [row.cells["text"] for row in table.rows]},
        labels=(np.array(scores) >= 0).astype(np.int32),
        classes=CLASSES,
        scores=np.array(scores, np.float32),
        groups=videos,
        origins=origins,
        skips=skips,
    )


def _names(cells: dict[str, str], where: str) -> tuple[str, str]:
    """Video and clip. They become file names, so that nothing else may be in them."""
    if "video_id" in cells:
        video, clip = cells["video_id"].strip(), cells["clip_id"].strip()
    else:
        match = _CLIP_NAME.fullmatch(cells["id"].strip())
        video, clip = match.group("video", "clip") if match else ("", "")
    if _SAFE_NAME.fullmatch(video) and _SAFE_NAME.fullmatch(clip):
        return video, clip
    got = cells.get("id") if not video else f"{video}, {clip}"
    raise UsageError(
        f"got the video and clip {got!r} in {where}, wanted names of letters, digits, - and _, "
        "as in 03bSnISJMiM_1; fix them."
    )


def _score(cell: str, where: str) -> float:
    score = parse_number(cell)
    if score is None or not -3 <= score <= 3:
        raise UsageError(
            f"got the label {cell!r} in {where}, wanted a sentiment score from -3 to 3; fix it."
        )
    return score


def _clips(records: Records, folder: Path, cache_dir: Path) -> list[Path | str]:
    """The middle frame of each clip, or why there is none."""
    videos = _clip_files(records, folder)
    frames = extract_middle_frames(videos, cache_dir / "frames")
    return [
        f"{video.parent.name}/{video.name}: {frame}" if isinstance(frame, VideoError) else frame
        for video, frame in zip(videos, frames, strict=True)
    ]


def _clip_files(records: Records, folder: Path) -> list[Path]:
    return [
        inside(folder, _nested(name, video) + ".mp4", origin)
        for name, video, origin in zip(records.ids, records.groups, records.origins, strict=True)
    ]


def _ready_frames(records: Records, folder: Path) -> list[Path | str]:
    """The file that holds each clip's frame, or that there is none."""
    frames = []
    for name, video, origin in zip(records.ids, records.groups, records.origins, strict=True):
        stems = (name, _nested(name, video))
        paths = (inside(folder, s + suffix, origin) for s in stems for suffix in _FRAME_SUFFIXES)
        path = next(filter(is_file, paths), None)
        frames.append(path or f"no frame {name} (.jpg, .jpeg or .png) in {folder}")
    return frames


def _nested(name: str, video: str) -> str:
    """`<video>_<clip>` -> `<video>/<clip>`."""
    return f"{video}/{name.removeprefix(video + '_')}"


def _deviations(records: Records, source: str) -> tuple[str, ...]:
    """What differs from the standard split, each video by name."""
    homes = sorted(set(zip(records.groups, records.splits, strict=True)))
    present = {video for video, _ in homes}
    kinds = {
        "are not in the standard split": [
            f"{video} ({split})" for video, split in homes if video not in _STANDARD_SPLIT
        ],
        "are in another split than the standard one": [
            f"{video} ({split}, standard {_STANDARD_SPLIT[video]})"
            for video, split in homes
            if _STANDARD_SPLIT.get(video, split) != split
        ],
        "of the standard split have no row": [
            f"{video} ({split})" for video, split in _STANDARD_SPLIT.items() if video not in present
        ],
    }
    notes = [
        f"{source}: {len(v)} videos {kind}: {', '.join(sorted(v))}"
        for kind, v in kinds.items()
        if v
    ]
    counts = Counter(records.splits)
    notes += [
        f"{source}: {split} has {counts[split]} rows, the standard split {standard}"
        for split, standard in STANDARD_MOSI_COUNTS.items()
        if counts[split] != standard
    ]
    return tuple(notes)
