"""Any picture becomes [S, S, 3] as Hugging Face does it, or a BadImage with its reason."""

import io

import numpy as np
import pytest
from PIL import Image

from fusion_keras.data.augment import AugmentSpec, augment
from fusion_keras.data.images import BadImage, ImageSpec, decode
from fusion_keras.errors import UsageError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
NATIVE = ImageSpec(size=8)
NO_CHANGE = AugmentSpec(
    flip=False, shift=0, scale=(1, 1), rotate=0, brightness=0, contrast=0, saturation=0
)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def uniform(array: np.ndarray, colour: tuple[int, ...], tolerance: int = 0) -> bool:
    return array.shape == (8, 8, 3) and np.abs(array.astype(int) - colour).max() <= tolerance


@pytest.mark.parametrize("size", [(300, 200), (181, 401), (224, 224), (97, 31)])
def test_crop_gives_the_pixels_of_hugging_faces_mobilenet_v2(size):
    from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import (
        MobileNetV2ImageProcessorPil,
    )

    image = noise(*size)
    processor = MobileNetV2ImageProcessorPil(do_rescale=False, do_normalize=False)
    theirs = processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    ours = decode(encoded(image), ImageSpec(224, "crop", crop_fraction=0.875))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("size", [(300, 200), (181, 401), (97, 31)])
def test_squash_gives_the_pixels_of_hugging_faces_vit(size):
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    image = noise(*size)
    processor = ViTImageProcessorPil(do_rescale=False, do_normalize=False)
    theirs = processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    np.testing.assert_array_equal(decode(encoded(image), ImageSpec(224, "squash")), theirs)


def test_pad_keeps_the_whole_picture_on_black():
    pixels = decode(encoded(Image.new("RGB", (40, 20), RED)), ImageSpec(8, "pad"))
    assert (pixels[2:6] == RED).all()
    assert (pixels[:2] == 0).all()
    assert (pixels[6:] == 0).all()


def test_crop_fraction_and_interpolation_change_the_pixels():
    file = encoded(noise(64, 64))
    plain = decode(file, ImageSpec(32, "crop"))
    assert (plain != decode(file, ImageSpec(32, "crop", crop_fraction=0.5))).any()
    assert (plain != decode(file, ImageSpec(32, "crop", interpolation="bicubic"))).any()


def test_exif_orientation_turns_the_picture_upright():
    image = Image.new("RGB", (8, 8), RED)
    image.paste(BLUE, (0, 0, 8, 4))  # blue above red
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    pixels = decode(encoded(image, exif=exif), NATIVE)
    assert tuple(pixels[0, 0]) == RED
    assert tuple(pixels[7, 0]) == BLUE


def test_grey_palette_cmyk_and_16_bit_become_rgb():
    assert uniform(decode(encoded(Image.new("L", (8, 8), 77)), NATIVE), (77, 77, 77))
    assert uniform(decode(encoded(Image.new("1", (8, 8), 1)), NATIVE), WHITE)
    palette = Image.new("RGB", (8, 8), GREEN).convert("P", palette=Image.Palette.ADAPTIVE)
    assert uniform(decode(encoded(palette, "GIF"), NATIVE), GREEN)
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert uniform(decode(encoded(cmyk, "JPEG"), NATIVE), RED, tolerance=4)
    deep = Image.fromarray(np.full((8, 8), 0x8080, np.uint16))
    assert uniform(decode(encoded(deep), NATIVE), (0x80, 0x80, 0x80))
    wide = Image.fromarray(np.full((8, 8), 0x8080, np.int32))
    assert uniform(decode(encoded(wide, "TIFF"), NATIVE), (0x80, 0x80, 0x80))


def test_transparency_is_laid_on_white():
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert uniform(decode(encoded(clear), NATIVE), WHITE)
    assert uniform(decode(encoded(Image.new("LA", (8, 8), (0, 0))), NATIVE), WHITE)
    keyed = Image.new("P", (8, 8), 0)
    keyed.putpalette([*RED, *GREEN])
    assert uniform(decode(encoded(keyed, transparency=0), NATIVE), WHITE)
    assert uniform(decode(encoded(keyed, transparency=1), NATIVE), RED)
    rgb_keyed = encoded(Image.new("RGB", (8, 8), BLUE), transparency=BLUE)
    assert uniform(decode(rgb_keyed, NATIVE), WHITE)


def test_unusable_files_are_bad_images_with_a_reason(tmp_path):
    with pytest.raises(BadImage, match="no such file"):
        decode(tmp_path / "absent.png", NATIVE)
    with pytest.raises(BadImage, match="no such file"):
        decode(tmp_path, NATIVE)
    for rubbish in (b"", b"<html>not found</html>", b"\x89PNG\r\n\x1a\n" + b"\0" * 40):
        with pytest.raises(BadImage):
            decode(rubbish, NATIVE)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        whole = encoded(noise(64, 64), kind)
        with pytest.raises(BadImage):
            decode(whole[: len(whole) // 2], NATIVE)
    floats = Image.fromarray(np.zeros((8, 8), np.float32))
    with pytest.raises(BadImage, match="floating-point"):
        decode(encoded(floats, "TIFF"), NATIVE)


@pytest.mark.parametrize("edge", [10_000, 20_000])  # Pillow warns at the one, raises at the other
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_never_unpacked(edge, monkeypatch):
    small = encoded(Image.new("1", (edge, edge)))
    assert len(small) < 100_000
    monkeypatch.setattr(
        "fusion_keras.data.images._to_rgb", lambda image: pytest.fail("the bomb was unpacked")
    )
    with pytest.raises(BadImage, match="pixels"):
        decode(small, NATIVE)


def test_a_strip_is_not_blown_up_to_a_bomb():
    strip = encoded(Image.new("RGB", (1, 50_000)))
    assert decode(strip, NATIVE).shape == (8, 8, 3)
    with pytest.raises(BadImage, match="pixels"):
        decode(strip, ImageSpec(224, "crop"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"resize": "stretch"},
        {"crop_fraction": 0.0},
        {"crop_fraction": 1.1},
        {"interpolation": "lanczos"},
    ],
)
def test_a_wrong_spec_is_refused(wrong):
    with pytest.raises(UsageError, match="wanted"):
        ImageSpec(**({"size": 8} | wrong))


def changed(seed: int = 0, **amounts) -> np.ndarray:
    spec = AugmentSpec(**(vars(NO_CHANGE) | amounts))
    return augment(np.asarray(noise(24, 24)), spec, np.random.default_rng(seed))


def test_no_augmentation_gives_back_the_image():
    np.testing.assert_array_equal(changed(), np.asarray(noise(24, 24)))


@pytest.mark.parametrize(
    "amount",
    [
        {"flip": True},
        {"shift": 0.2},
        {"scale": (1.1, 1.3)},
        {"rotate": 20},
        {"brightness": 0.5},
        {"contrast": 0.5},
        {"saturation": 0.5},
        {"erase": 1.0},
    ],
)
def test_each_augmentation_changes_the_image_and_repeats_with_its_seed(amount):
    outcomes = {changed(seed, **amount).tobytes() for seed in range(6)}
    assert len(outcomes) > 1
    np.testing.assert_array_equal(changed(3, **amount), changed(3, **amount))


def test_flip_mirrors_half_of_the_images():
    image = np.asarray(noise(24, 24))
    mirrored = [np.array_equal(changed(seed, flip=True), image[:, ::-1]) for seed in range(40)]
    plain = [np.array_equal(changed(seed, flip=True), image) for seed in range(40)]
    assert sum(mirrored) + sum(plain) == 40
    assert 10 <= sum(mirrored) <= 30


def test_geometry_turns_about_the_centre():
    image = np.zeros((33, 33, 3), np.uint8)
    image[14:19, 14:19] = 255
    spec = AugmentSpec(**(vars(NO_CHANGE) | {"rotate": 180, "scale": (0.8, 1.2), "flip": True}))
    for seed in range(5):
        moved = augment(image, spec, np.random.default_rng(seed))[..., 0].astype(float)
        centre = [(moved.sum(1 - axis) @ np.arange(33)) / moved.sum() for axis in (0, 1)]
        np.testing.assert_allclose(centre, 16, atol=0.3)


def test_photometric_changes_keep_their_meaning():
    grey = np.full((8, 8, 3), 100, np.uint8)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        saturated = augment(grey, AugmentSpec(**(vars(NO_CHANGE) | {"saturation": 1.0})), rng)
        np.testing.assert_allclose(saturated, 100, atol=1)  # grey has no colour to change
        contrasted = augment(grey, AugmentSpec(**(vars(NO_CHANGE) | {"contrast": 1.0})), rng)
        np.testing.assert_allclose(contrasted, 100, atol=1)  # nor a flat image contrast
    with pytest.raises(UsageError, match="brightness"):
        AugmentSpec(brightness=2)
    with pytest.raises(UsageError, match="scale"):
        AugmentSpec(scale=(0, 1))
