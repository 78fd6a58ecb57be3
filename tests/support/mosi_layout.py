"""A table of sentences and faces in CMU-MOSI's own folder layout: clips and a label file.

With sound the clips are a constructed pairing: a spoken digit 0 to 4 goes with a negative
sentence, 5 to 9 with any other. What is learned of it says nothing of CMU-MOSI.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from fusion_keras.data.sound import decode

FRAMES, RATE = 5, 16000
COLUMNS = ("video_id", "clip_id", "text", "label", "mode")


def write_clip(path: Path, face: np.ndarray, sound: np.ndarray | None = None) -> None:
    """An mp4 of FRAMES frames whose middle one is the face, uint8 [H, W, 3], even edges.

    The others are its negative: a frame too early or too late is told from the middle one.
    sound: float [n] at 16 kHz, its track, as AAC; None for no track.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"crf": "5"})
        stream.height, stream.width = face.shape[:2]
        stream.pix_fmt = "yuv420p"
        track = None if sound is None else output.add_stream("aac", rate=RATE, layout="mono")
        for index in range(FRAMES):
            pixels = face if index == FRAMES // 2 else 255 - face
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
        if track is not None:
            samples = np.asarray(sound, np.float32)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
            output.mux([*track.encode(frame), *track.encode(None)])


def spoken_digits(recordings: Path) -> dict[bool, list[Path]]:
    """Whether a sentence is negative -> the recordings that go with it, see the top.

    recordings: FSDD's folder, <digit>_<speaker>_<index>.wav.
    """
    files = sorted(recordings.glob("*.wav"))
    return {negative: [f for f in files if (f.name[0] < "5") == negative] for negative in (1, 0)}


def write_layout(
    manifest: Path, folder: Path, per_split: int, recordings: Path | None = None
) -> Path:
    """Write `folder/Raw/<video_id>/<clip_id>.mp4` and `folder/label.csv`.

    Args:
        manifest: a table with `id` (`<video>_<clip>`), `split`, `text`, `image` and `score`, the
            images relative to it.
        per_split: how many rows of each split, spread evenly over it.
        recordings: FSDD's folder, for clips with sound; drawn by the seed 0.

    Returns:
        The label file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digits, rng = spoken_digits(recordings) if recordings else {}, np.random.default_rng(0)
    label = folder / "label.csv"
    with label.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in _chosen(manifest, per_split):
            video, clip = row["id"].rsplit("_", 1)
            with Image.open(manifest.parent / row["image"]) as image:
                face = np.asarray(image.convert("RGB"))
            sound = None
            if digits:
                mine = digits[float(row["score"]) < 0]
                sound = decode(mine[rng.integers(len(mine))])
            write_clip(folder / "Raw" / video / f"{clip}.mp4", face, sound)
            writer.writerow([video, clip, row["text"], row["score"], row["split"]])
    return label


def _chosen(manifest: Path, per_split: int) -> Iterator[dict[str, str]]:
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for split in ("train", "valid", "test"):
        mine = [row for row in rows if row["split"] == split]
        yield from mine[:: max(1, len(mine) // per_split)][:per_split]
