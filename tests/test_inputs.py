"""What the device makes of sentences, images and recordings is what training made of them."""

import csv
import io
import json
import sys
import warnings
import wave
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from bench.edge.errors import InputError
from bench.edge.inputs.audio import sound
from bench.edge.inputs.image import GREY, picture
from bench.edge.inputs.text import Tokens
from fusion_keras.data import augment, log_mel
from fusion_keras.data.images import BadImage, ImageSpec, decode
from fusion_keras.data.sound import decode as decode_sound
from fusion_keras.data.tokens import encode, load_tokenizer
from fusion_keras.data.whisper_mel import WHISPER
from tests.support.tiny import tone, write_wav

SPECS = [
    ImageSpec(96, "squash", 1.0, "bicubic"),
    ImageSpec(64, "crop", 0.875, "bilinear"),
    ImageSpec(64, "squash_crop", 0.875, "bicubic"),
    ImageSpec(64, "squash", 1.0, "nearest"),
    ImageSpec(50, "pad"),
]


def meta(spec=SPECS[0], lengths=(40,)):
    return {"inputs": {"image": vars(spec)}, "lengths": list(lengths)}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """(training's own, the folder of an artifact with it)"""
    from fusion_keras.backbones.presets import load_text

    folder = tmp_path_factory.mktemp("artifact")
    own = load_tokenizer(load_text("tiny_bert").tokenizer_dir)
    (folder / "tokenizer.json").write_text(own.tokenizer.to_str(pretty=False))
    return own, folder


def assert_same_ids(tokenizer, texts, length):
    own, folder = tokenizer
    wanted, _ = encode(texts, own, length)
    tokens = Tokens(folder, meta(lengths=(length,)))
    np.testing.assert_array_equal(np.concatenate([tokens(text) for text in texts]), wanted)


def test_ids_of_odd_sentences(tokenizer):
    texts = ["a", "word " * 100, "[SEP] naïve 東京 😀", "half \ud83d a pair", "\n\t x"]
    assert_same_ids(tokenizer, texts, 12)


@pytest.mark.parametrize(("path", "length"), [("mosi/label.csv", 40), ("tweets/manifest.csv", 56)])
def test_ids_of_every_real_sentence(tokenizer, data_root, path, length):
    with open(data_root / path, encoding="utf-8", errors="replace", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    assert len(texts) > 2000
    assert_same_ids(tokenizer, texts, length)


def test_a_sentence_is_padded_to_the_shortest_length_that_holds_it(tokenizer):
    tokens = Tokens(tokenizer[1], meta(lengths=(4, 8, 12)))
    assert [tokens(text).shape[1] for text in ("a", "a b", "a b c", "a " * 50)] == [4, 4, 8, 12]


@pytest.mark.parametrize("spec", SPECS)
def test_pixels_of_odd_files(tmp_path, spec):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (70, 120, 4), np.uint8)
    grey16 = rng.integers(0, 65536, (90, 40)).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    images = {
        "rgba.png": (Image.fromarray(pixels), {}),
        "cmyk.jpg": (Image.fromarray(pixels, "CMYK"), {}),
        "grey.png": (Image.fromarray(pixels[..., 0]), {}),
        "16.png": (Image.fromarray(grey16), {}),
        "turned.jpg": (Image.fromarray(pixels[..., :3]), {"exif": exif}),
        "palette.gif": (Image.fromarray(pixels[..., :3]).convert("P"), {}),
    }
    for name, (image, options) in images.items():
        image.save(tmp_path / name, **options)
        found = picture(tmp_path / name, meta(spec))
        np.testing.assert_array_equal(found[0], decode(tmp_path / name, spec), name)


def jpeg(orientation, exif=None) -> bytes:
    """A photo turned so, and its EXIF."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", exif=exif or tags)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(10))
def test_every_way_to_hold_a_camera(orientation):
    photo = jpeg(orientation)
    np.testing.assert_array_equal(picture(photo, meta())[0], decode(photo, SPECS[0]))


def test_pixels_of_a_camera_are_those_of_its_file():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    for spec in SPECS:
        wanted = picture(file.getvalue(), meta(spec))
        np.testing.assert_array_equal(picture(pixels, meta(spec)), wanted)
        # Of OpenCV's blue, green and red a view.
        bgr = np.ascontiguousarray(pixels[..., ::-1])
        np.testing.assert_array_equal(picture(bgr[..., ::-1], meta(spec)), wanted)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_scan_is_turned_once(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF", exif=tags)
    found, wanted = picture(file.getvalue(), meta())[0], decode(file.getvalue(), SPECS[0])
    np.testing.assert_array_equal(found, wanted)


def test_nobody_runs_a_program_that_comes_as_a_picture():
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n{ } loop\n%%EOF\n"
    with pytest.raises(InputError, match="Ghostscript would have to run"):
        picture(program, meta())
    with pytest.raises(BadImage, match="Ghostscript would have to run"):
        decode(program, SPECS[0])


@pytest.fixture
def eager_threads():
    """They take turns a thousand times as often, so that what can go wrong between them does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_leave_the_filters_of_warnings_as_they_were(eager_threads):
    """Of this EXIF, which says that it has more than there is, Pillow warns."""
    photo = jpeg(1, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x0f\0\x02\0\0\x10\0\0\0\x10\0")
    with (
        pytest.warns(UserWarning, match="EXIF|Tag data larger"),
        Image.open(io.BytesIO(photo)) as image,
    ):
        image.getexif()
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: picture(photo, meta()), range(256)))
    assert warnings.filters == before
    assert all(np.array_equal(pixels, found[0]) for pixels in found)


def test_pixels_of_real_photos(data_root):
    files = sorted((data_root / "tweets" / "images").iterdir())[:40]
    for spec in SPECS:
        for file in files:
            np.testing.assert_array_equal(picture(file, meta(spec))[0], decode(file, spec))


def test_no_image_is_the_grey_of_training():
    assert GREY == augment.GREY
    assert np.unique(picture(None, meta())).tolist() == [GREY]


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_bad_image_is_a_sentence(tmp_path, content):
    file = tmp_path / "bad.jpg"
    if content is not None:
        file.write_bytes(content)
    said = "is not there" if content is None else "cannot be used"
    with pytest.raises(InputError, match=rf"bad\.jpg {said}") as refusal:
        picture(file, meta())
    assert str(refusal.value).count("bad.jpg") == 1
    with pytest.raises(BadImage):
        decode(file, SPECS[0])


# --- Sound ------------------------------------------------------------------------------------


FRONT_ENDS = [log_mel.VGGISH, WHISPER]


def heard(path, seconds, front_end):
    """(what the device, what training makes of a recording), float32 [F, bands]."""
    spec = json.loads(json.dumps(front_end.described(seconds)))
    trained = front_end.log_mel(log_mel.fit(decode_sound(path), log_mel.samples_of(seconds)))
    return sound(path, {"inputs": {"audio": spec}}), trained[None]


@pytest.mark.parametrize("seconds", [0.25, 1.0])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("front_end", FRONT_ENDS, ids=lambda x: x.name)
def test_energies_of_a_recording(tmp_path, seconds, channels, front_end):
    noise = np.random.default_rng(0).normal(0, 0.1, (9000, channels)).clip(-1, 1)
    ours, trained = heard(write_wav(tmp_path / "a.wav", noise), seconds, front_end)
    made = front_end.described(seconds)
    assert ours.dtype == np.float32
    assert ours.shape == (1, made["frames"], made["bands"])
    np.testing.assert_allclose(ours, trained, atol=1e-6)
    assert ours.max() > 0.5


@pytest.mark.parametrize("front_end", FRONT_ENDS, ids=lambda x: x.name)
def test_energies_of_real_speech(data_root, tmp_path, front_end):
    files = sorted((data_root / "digits" / "fsdd" / "recordings").glob("*.wav"))[::300]
    assert len(files) == 10
    for file in files:
        path = write_wav(tmp_path / "16k.wav", decode_sound(file).clip(-1, 1))
        ours, trained = heard(path, 1.0, front_end)
        np.testing.assert_allclose(ours, trained, atol=1e-6)


def test_a_front_end_of_another_version_is_a_sentence():
    meta = {"inputs": {"audio": {**log_mel.described(0.5), "method": "mfcc"}}}
    with pytest.raises(InputError, match="method 'mfcc', of which this bench knows vggish, whisp"):
        sound(np.zeros(8000), meta)


def test_samples_and_bytes_are_heard_as_the_file(tmp_path):
    described = {"inputs": {"audio": json.loads(json.dumps(log_mel.described(0.5)))}}
    path = write_wav(tmp_path / "a.wav", np.stack([tone(440, 0.3), tone(900, 0.3)], axis=1))
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(10**6), "<i2").reshape(-1, 2) / 32768
    wanted = sound(path, described)
    np.testing.assert_array_equal(sound(path.read_bytes(), described), wanted)
    streamed = bytearray(path.read_bytes())
    streamed[4:8] = streamed[40:44] = b"\xff" * 4  # as FFmpeg writes to a pipe
    np.testing.assert_array_equal(sound(bytes(streamed), described), wanted)
    np.testing.assert_allclose(sound(samples, described), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros(16000, np.int16), r"array int16 \[16000\]: float \[n\]"),
        (np.zeros(399), r"of 400 samples or more"),
        (np.zeros((400, 0)), "none at all"),
        (np.full(400, np.nan), "nan or infinite"),
        (b"", r"The recording cannot be used: it ends within its header.* -i old "),
        (5, "The recording is a int"),
    ],
)
def test_what_is_no_recording_is_a_sentence(given, said):
    with pytest.raises(InputError, match=said):
        sound(given, {"inputs": {"audio": log_mel.described(0.5)}})


BAD_SOUNDS = {
    "another rate": (
        lambda path: write_wav(path, tone(440, 0.1, 8000), 8000),
        "8000 Hz. A WAV file of 16 bits at 16000 Hz",
    ),
    "empty": (lambda path: write_wav(path, np.zeros(0)), "0 of 0 samples"),
    "no wav": (lambda path: path.write_bytes(b"no sound"), "RIFF"),
    "nothing": (lambda path: path.write_bytes(b""), "ends within its header"),
    "short": (lambda path: write_wav(path, np.zeros(399)), "399 samples, less than one window"),
}


def test_a_bad_recording_is_a_sentence(tmp_path):
    meta = {"inputs": {"audio": log_mel.described(1.0)}}
    for name, (make, said) in BAD_SOUNDS.items():
        path = tmp_path / f"{name}.wav"
        make(path)
        with pytest.raises(InputError, match=rf"{name}\.wav cannot be used: .*{said}"):
            sound(path, meta)
    with pytest.raises(InputError, match=r"The recording .*gone\.wav is not there"):
        sound(tmp_path / "gone.wav", meta)
    whole = write_wav(tmp_path / "cut.wav", tone(440, 0.5)).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[:5000])
    with pytest.raises(InputError, match="2478 of 8000 samples are there"):
        sound(tmp_path / "cut.wav", meta)
    with wave.open(str(tmp_path / "wide.wav"), "wb") as file:
        file.setparams((1, 3, 16000, 0, "NONE", "not compressed"))
        file.writeframes(bytes(300))
    with pytest.raises(InputError, match="24 bits a sample"):
        sound(tmp_path / "wide.wav", meta)
