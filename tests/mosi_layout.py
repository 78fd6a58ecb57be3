"""A table of sentences and faces in CMU-MOSI's own folder layout: clips and a label file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image

FRAMES = 5
COLUMNS = ("video_id", "clip_id", "text", "label", "mode")


def write_clip(path: Path, face: np.ndarray) -> None:
    """An mp4 of FRAMES frames whose middle one is the face, uint8 [H, W, 3], even edges.

    The others are its negative: a frame too early or too late is told from the middle one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"crf": "5"})
        stream.height, stream.width = face.shape[:2]
        stream.pix_fmt = "yuv420p"
        for index in range(FRAMES):
            pixels = face if index == FRAMES // 2 else 255 - face
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))


def write_layout(manifest: Path, folder: Path, per_split: int) -> Path:
    """Write `folder/Raw/<video_id>/<clip_id>.mp4` and `folder/label.csv`.

    Args:
        manifest: a table with `id` (`<video>_<clip>`), `split`, `text`, `image` and `score`, the
            images relative to it.
        per_split: how many rows of each split, spread evenly over it.

    Returns:
        The label file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    label = folder / "label.csv"
    with label.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in _chosen(manifest, per_split):
            video, clip = row["id"].rsplit("_", 1)
            with Image.open(manifest.parent / row["image"]) as image:
                face = np.asarray(image.convert("RGB"))
            write_clip(folder / "Raw" / video / f"{clip}.mp4", face)
            writer.writerow([video, clip, row["text"], row["score"], row["split"]])
    return label


def _chosen(manifest: Path, per_split: int) -> Iterator[dict[str, str]]:
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for split in ("train", "valid", "test"):
        mine = [row for row in rows if row["split"] == split]
        yield from mine[:: max(1, len(mine) // per_split)][:per_split]
