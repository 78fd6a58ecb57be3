"""A clip's frame is shown as the container says: turned, in square pixels, in its colours."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from fusion_keras.data import video
from fusion_keras.data.video import VideoError, extract_middle_frames, middle_frame

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "white": (255, 255, 255),
}
# What a display matrix (a, b, c, d) makes of corners that are red, green / blue, white as coded.
SHOWN = {
    "as it is": ((1, 0, 0, 1), "red green blue white"),
    "a quarter clockwise, as a phone held upright": ((0, 1, -1, 0), "blue red white green"),
    "half": ((-1, 0, 0, -1), "white blue green red"),
    "a quarter counter-clockwise": ((0, -1, 1, 0), "green white red blue"),
    "left and right exchanged": ((-1, 0, 0, 1), "green red white blue"),
    "above and below exchanged": ((1, 0, 0, -1), "blue white red green"),
    "mirrored and turned": ((0, 1, 1, 0), "red blue green white"),
    "mirrored and turned the other way": ((0, -1, -1, 0), "white green blue red"),
}


def corners(height: int = 32, width: int = 48) -> np.ndarray:
    """uint8 [height, width, 3]: red, green above blue, white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    halves = (slice(None, height // 2), slice(height // 2, None))
    sides = (slice(None, width // 2), slice(width // 2, None))
    places = [(rows, columns) for rows in halves for columns in sides]
    for place, colour in zip(places, COLOURS.values(), strict=True):
        pixels[place] = colour
    return pixels


def seen(pixels: np.ndarray) -> str:
    """The colours of the corners, from the left above to the right below."""
    height, width = pixels.shape[:2]
    names = list(COLOURS)
    found = []
    for y in (height // 4, 3 * height // 4):
        for x in (width // 4, 3 * width // 4):
            distances = np.abs(np.array(list(COLOURS.values())) - pixels[y, x]).sum(1)
            found.append(names[distances.argmin()])
    return " ".join(found)


def write(path: Path, frames, codec="libx264", pix_fmt="yuv420p", **context) -> Path:
    """A clip of these av frames; `context` is set on the encoder."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=10, options={"crf": "4"} if "264" in codec else {})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, pix_fmt
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for frame in frames:
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def of_pixels(path: Path, pixels: np.ndarray, **context) -> Path:
    return write(path, [av.VideoFrame.from_ndarray(pixels) for _ in range(3)], **context)


def turn(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write a display matrix into an mp4's track header (ISO/IEC 14496-12, 8.3.2)."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    rows = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    content[at : at + 36] = np.array(rows, ">i4").tobytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("matrix", "wanted"), SHOWN.values(), ids=SHOWN)
def test_a_clip_is_turned_and_mirrored_as_its_container_says(tmp_path, matrix, wanted):
    frame = middle_frame(turn(of_pixels(tmp_path / "x.mp4", corners()), *matrix))
    assert frame.shape == ((32, 48, 3) if matrix[0] else (48, 32, 3))
    assert seen(frame) == wanted


def test_a_turned_clip_of_which_only_the_count_leads_to_the_middle(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_at_middle", lambda container, stream: None)
    frame = middle_frame(turn(of_pixels(tmp_path / "x.mp4", corners()), 0, 1, -1, 0))
    assert seen(frame) == "blue red white green"


@pytest.mark.parametrize(
    ("shape", "wanted"), [(1, (32, 48)), (2, (32, 96)), ("16/15", (32, 51)), ("1/2", (64, 48))]
)
def test_pixels_that_are_not_square_become_so(tmp_path, shape, wanted):
    made = of_pixels(tmp_path / "x.mp4", corners(), sample_aspect_ratio=Fraction(shape))
    frame = middle_frame(made)
    assert frame.shape[:2] == wanted
    assert seen(frame) == "red green blue white"


def test_the_shape_of_a_pixel_is_that_of_the_coded_frame(tmp_path):
    wide = of_pixels(tmp_path / "x.mp4", corners(), sample_aspect_ratio=Fraction(2))
    frame = middle_frame(turn(wide, 0, 1, -1, 0))
    assert frame.shape == (96, 32, 3)
    assert seen(frame) == "blue red white green"


def test_pixels_so_oblong_that_the_picture_would_not_fit_are_told(tmp_path):
    wide = of_pixels(tmp_path / "x.mp4", corners(1024, 128), sample_aspect_ratio=Fraction(1000))
    with pytest.raises(VideoError, match="128000 x 1024 pixels, more than the limit"):
        middle_frame(wide)


# The weights of red and blue in a matrix (ITU-R BT.601-7 and BT.709-6), and FFmpeg's numbers.
MATRICES = {"bt601": (0.299, 0.114, 6), "bt709": (0.2126, 0.0722, 1)}
RANGES = {"limited": (16, 219, 224, 1), "full": (0, 255, 255, 2)}
RED = (200, 30, 60)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("levels", RANGES)
def test_colours_are_of_the_matrix_and_the_range_that_the_file_states(
    tmp_path, codec, matrix, levels
):
    red_weight, blue_weight, space = MATRICES[matrix]
    black, luma, chroma, number = RANGES[levels]
    red, green, blue = (value / 255 for value in RED)
    y = red_weight * red + blue_weight * blue + (1 - red_weight - blue_weight) * green
    planes = (
        black + luma * y,
        128 + chroma * (blue - y) / (2 - 2 * blue_weight),
        128 + chroma * (red - y) / (2 - 2 * red_weight),
    )
    frames = []
    for time in range(3):
        frame = av.VideoFrame(32, 32, "yuv420p")
        for plane, value in zip(frame.planes, planes, strict=True):
            plane.update(np.full(plane.buffer_size, round(value), np.uint8).tobytes())
        frame.colorspace, frame.color_range, frame.pts = space, number, time
        frames.append(frame)
    # mpeg4 has no word on colours: the container's is all there is, and it wants all four.
    colours = {"colorspace": space, "color_range": number, "color_primaries": 1, "color_trc": 1}
    made = write(tmp_path / "x.mp4", frames, codec, **colours)
    assert np.abs(middle_frame(made)[8, 8].astype(int) - RED).max() <= 4


def test_a_frame_that_was_decoded_by_an_older_method_is_not_served(tmp_path, monkeypatch):
    clip, cache = of_pixels(tmp_path / "x.mp4", corners()), tmp_path / "frames"
    turn(clip, 0, 1, -1, 0)
    with monkeypatch.context() as before:
        before.setattr(video, "_METHOD", "middle-frame 1")
        before.setattr(video, "_turned", lambda pixels, matrix: pixels)
        (old,) = extract_middle_frames([clip], cache)
    assert seen(np.asarray(Image.open(old))) == "red green blue white"
    (new,) = extract_middle_frames([clip], cache)
    assert seen(np.asarray(Image.open(new))) == "blue red white green"
