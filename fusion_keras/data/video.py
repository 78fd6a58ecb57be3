"""The middle frame of a video, decoded by PyAV and kept as a lossless PNG."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type
from PIL import Image

from fusion_keras.data.images import MAX_PIXELS
from fusion_keras.data.media import in_threads
from fusion_keras.errors import UsageError
from fusion_keras.files import whole

# Part of each frame's name: a change of the method must not find the frames of the old one.
_METHOD = "middle-frame 2"
# When the last frame stands further before the middle than this, in seconds, then the header
# is wrong or the file was cut off.
_TOLERANCE = 0.5


class VideoError(ValueError):
    """A video without a frame to be had; the message says why, without the path."""


def middle_frame(path: Path) -> np.ndarray:
    """The frame on screen at half of the video's duration, as it is shown: uint8 [H, W, 3] RGB.

    Upright, in square pixels and in the colours that the file states, see `_as_shown`.

    With n frames at a constant rate that is frame n // 2, counted from 0. Where the duration is
    not known, or the frames end before its middle (a wrong header, a truncated file), the middle
    one of the frames that decode is taken.

    Raises:
      VideoError: not a video, no video stream, no intact frame, or one that is too large.
    """
    try:
        frame, shape = _shown_at_middle(path)
        if frame is None or frame.is_corrupt:
            frame, shape = _middle_by_count(path)
        if frame is None:
            raise VideoError("the video holds no frame")
        if frame.is_corrupt:
            raise VideoError("the middle frame of the video is damaged")
        return _as_shown(frame, shape)
    except VideoError:
        raise
    # Damaged bytes also raise what PyAV's own parsing trips over (ValueError, OverflowError);
    # all of it means the same here.
    except Exception as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise VideoError(f"not a readable video ({reason})") from error


def extract_middle_frames(videos: Sequence[Path], folder: Path) -> list[Path | VideoError]:
    """Writes the middle frame of each video into `folder`, unless it is there already.

    A frame is named by the video's path, size and time of change, so that a changed video is
    decoded anew. Frames are renamed into place: any may be deleted at any time, and two
    processes may extract at once.

    Returns:
      for each video its PNG, or the error that says why there is none.

    Raises:
      UsageError: the folder cannot be written, or is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor() as pool:
            targets = list(pool.map(lambda video: _target(video, folder), videos))
        missing = [
            (video, target)
            for video, target in zip(videos, targets, strict=True)
            if isinstance(target, Path) and not target.is_file()
        ]
        # PyAV and Pillow release the GIL while they decode and compress.
        pieces = in_threads(lambda pair: _extract(*pair), missing, "reading middle frames")
        failed = {target: error for piece in pieces for target, error in piece if error}
    except OSError as error:
        raise UsageError(
            f"got '{error.strerror or error}' from the frame cache {folder}, wanted a writable "
            "folder with about 0.3 MB free for each video; free that space, or choose another "
            "cache folder."
        ) from error
    return [failed.get(target, target) for target in targets]


def _as_shown(frame: av.VideoFrame, shape: Fraction) -> np.ndarray:
    """A decoded frame, uint8 [H, W, 3] RGB, as a player would show it.

    The matrix (BT.601, BT.709) and the range (full, limited) of its colours are the frame's own,
    by PyAV; where a file states none, FFmpeg's defaults hold (BT.601, limited).

    Args:
      frame: as coded.
      shape: width of a pixel over its height. The shorter side of a pixel is drawn out, so that
        nothing is lost.

    Raises:
      VideoError: it would have more pixels than an image file may.
    """
    width, height = frame.width, frame.height
    if shape > 1:
        width = round(width * shape)
    else:
        height = round(height / shape)
    if width * height > MAX_PIXELS:
        raise VideoError(f"{width} x {height} pixels, more than the limit of {MAX_PIXELS}")
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    return pixels if matrix is None else _turned(pixels, np.frombuffer(matrix, np.int32))


def _turned(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """[H, W, 3] turned and mirrored as a display matrix, int32 [9], says; by quarter turns.

    It moves the point (x, y) to (a x + c y, b x + d y) with a, b = matrix[0:2] and c, d =
    matrix[3:5] (FFmpeg's libavutil/display.h), and where the frame then lies does not count.
    """
    a, b, _, c, d = matrix[:5].astype(int)
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _shown_at_middle(path: Path) -> tuple[av.VideoFrame | None, Fraction]:
    """The frame on screen at half of the duration, and the shape of its pixels; None where times
    do not lead to one."""
    with _open(path) as container:
        stream = _video_stream(container)
        return _at_middle(container, stream), _pixel_shape(stream)


def _at_middle(container, stream) -> av.VideoFrame | None:
    if stream is None:
        return None
    if stream.duration:
        half = float(stream.duration * stream.time_base) / 2
    elif container.duration:
        half = container.duration / av.time_base / 2
    else:
        return None
    middle = half + float((stream.start_time or 0) * stream.time_base)
    container.seek(int(middle / stream.time_base), stream=stream)
    shown = None
    for frame in _frames(container, stream):
        if frame.time is None:
            return None
        if frame.time > middle + 1e-6:
            return shown
        shown = frame
    # The frames ended before the middle did.
    return shown if shown is not None and middle - shown.time < _TOLERANCE else None


def _middle_by_count(path: Path) -> tuple[av.VideoFrame | None, Fraction]:
    """The middle one of the frames that decode, and the shape of its pixels. Two passes, so that
    memory holds one frame."""
    with _open(path) as container:
        count = sum(1 for _ in _frames(container, _video_stream(container)))
    with _open(path) as container:
        stream = _video_stream(container)
        frame = next(itertools.islice(_frames(container, stream), count // 2, None), None)
        return frame, _pixel_shape(stream)


def _open(path: Path):
    # A title in a broken encoding is no reason to lose the picture.
    return av.open(str(path), metadata_errors="replace")


def _video_stream(container):
    stream = container.streams.best("video")
    if stream is not None:
        # The videos are decoded side by side; threads inside each would only add switching.
        stream.codec_context.thread_count = 1
    return stream


def _pixel_shape(stream) -> Fraction:
    """Width over height of a pixel; square where the file does not say."""
    return Fraction(stream.sample_aspect_ratio or 1) if stream is not None else Fraction(1)


def _frames(container, stream) -> Iterator[av.VideoFrame]:
    """The frames in order of presentation, up to the first packet that does not decode."""
    if stream is None:
        return
    try:
        yield from container.decode(stream)
    except av.FFmpegError:
        return


def _target(video: Path, folder: Path) -> Path | VideoError:
    try:
        status = video.stat()
    except OSError as error:
        return VideoError(f"no readable video ({error.strerror})")
    parts = f"{_METHOD}\0{video.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    return folder / f"{hashlib.sha256(os.fsencode(parts)).hexdigest()}.png"


def _extract(video: Path, target: Path) -> tuple[Path, VideoError | None]:
    try:
        frame = middle_frame(video)
    except VideoError as error:
        return target, error
    with whole(target, contested=True) as partial:
        # Level 1: three times as fast as the default, and only a few percent larger.
        Image.fromarray(frame).save(partial, format="PNG", compress_level=1)
    return target, None
