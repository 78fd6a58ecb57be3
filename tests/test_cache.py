"""The cache: built once, whole or absent, whatever is killed, deleted or damaged meanwhile."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusion_keras.data import cache
from fusion_keras.data.cache import cache_dir, cached_array, content_key
from fusion_keras.data.images import ImageSpec, decode, decode_all
from fusion_keras.data.records import SkipLog
from fusion_keras.errors import UsageError

KEY = content_key("test")
ROWS = np.arange(12, dtype=np.int32).reshape(6, 2)
SPEC = ImageSpec(size=16)


def pieces(notes: dict):
    notes["seen"] = 6
    yield ROWS[:4]
    yield ROWS[4:]


def never(notes: dict):
    raise AssertionError("built again")


def read_or_build(folder: Path, build=pieces) -> np.ndarray:
    array, notes = cached_array(folder, KEY, ROWS.shape, np.int32, build)
    np.testing.assert_array_equal(array, ROWS)
    assert notes == {"seen": 6}
    return array


# A process that builds the same entry, slowly; its first line says that it has begun.
BUILDER = f"""
import sys, time
from pathlib import Path
import numpy as np
from fusion_keras.data.cache import cached_array

def build(notes):
    notes["seen"] = 6
    for row in range(6):
        print("row", row, flush=True)
        time.sleep(float(sys.argv[2]))
        yield np.array([[2 * row, 2 * row + 1]], np.int32)

print(cached_array(Path(sys.argv[1]), {KEY!r}, (6, 2), np.int32, build)[0].sum())
"""


def start_builder(folder: Path, seconds_per_row: float) -> subprocess.Popen:
    command = [sys.executable, "-c", BUILDER, str(folder), str(seconds_per_row)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_an_array_is_built_once_and_then_mapped(tmp_path):
    read_or_build(tmp_path / "new" / "folder")
    array = read_or_build(tmp_path / "new" / "folder", never)
    assert isinstance(array, np.memmap)
    assert not array.flags.writeable


def test_the_key_depends_on_every_part_and_on_the_code_version(monkeypatch):
    keys = {content_key("a", 1), content_key("a", 2), content_key("b", 1)}
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    keys.add(content_key("a", 1))
    assert len(keys) == 4


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_a_damaged_entry_is_built_again(tmp_path, suffix, damage):
    read_or_build(tmp_path)
    file = tmp_path / f"{KEY}{suffix}"
    content = bytearray(file.read_bytes())
    content[-20] ^= 0x55
    file.unlink()
    if damage != "gone":
        file.write_bytes({"cut": content[:-7], "flip": content, "empty": b""}[damage])
    read_or_build(tmp_path)
    read_or_build(tmp_path, never)


def test_an_open_array_outlives_the_deletion_of_the_cache(tmp_path):
    array = read_or_build(tmp_path)
    for file in tmp_path.iterdir():
        file.unlink()
    np.testing.assert_array_equal(array, ROWS)
    read_or_build(tmp_path)


def test_two_processes_that_build_at_once_both_get_the_array(tmp_path):
    builders = [start_builder(tmp_path, 0.05) for _ in range(2)]
    outputs = [builder.communicate(timeout=60)[0].split() for builder in builders]
    assert [output[-1] for output in outputs] == [str(ROWS.sum())] * 2
    read_or_build(tmp_path, never)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{KEY}.json", f"{KEY}.npy"]


def test_a_kill_in_the_middle_leaves_nothing_that_is_taken_for_an_array(tmp_path):
    builder = start_builder(tmp_path, 30)
    assert builder.stdout.readline() == "row 0\n"
    builder.stdout.close()
    builder.send_signal(signal.SIGKILL)
    assert builder.wait() == -signal.SIGKILL
    left = list(tmp_path.iterdir())
    assert [path.suffix for path in left] == [".tmp"]
    read_or_build(tmp_path)
    assert left[0].exists()  # it might have been another process's, still at work
    os.utime(left[0], (time.time() - 48 * 3600,) * 2)
    (tmp_path / f"{KEY}.json").unlink()
    read_or_build(tmp_path)
    assert not left[0].exists()


def test_a_build_that_fails_leaves_no_file(tmp_path):
    def broken(notes):
        yield ROWS[:2]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        read_or_build(tmp_path, broken)
    with pytest.raises(ValueError, match="2 rows of 6"):
        read_or_build(tmp_path, lambda notes: [ROWS[:2]])
    assert list(tmp_path.iterdir()) == []


def test_an_unusable_cache_folder_is_named_with_the_space_it_needs(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(UsageError, match=r"file.*wanted a writable folder with 0 MB free"):
        read_or_build(tmp_path / "file")
    if Path("/proc").is_dir():  # writable for nobody, not even for root
        with pytest.raises(UsageError, match="/proc/cache"):
            read_or_build(Path("/proc/cache"))


def test_a_full_disk_is_named_with_the_space_it_needs(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache, "_write_rows", full)
    with pytest.raises(UsageError, match=r"No space left.*8 MB free.*data\.cache_dir"):
        cached_array(tmp_path, KEY, (2**20, 2), np.int32, pieces)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_the_configured_one_else_the_environments(monkeypatch, tmp_path):
    monkeypatch.setenv("FUSION_KERAS_CACHE", str(tmp_path))
    assert cache_dir("here") == Path("here")
    assert cache_dir() == tmp_path
    monkeypatch.delenv("FUSION_KERAS_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "fusion_keras"


def pictures(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{n}.png" for n in range(count)]
    for n, path in enumerate(paths):
        Image.new("RGB", (20 + n, 20), (n, 2 * n, 255 - n)).save(path)
    return paths


def test_images_are_decoded_once_in_order(tmp_path, monkeypatch):
    paths = pictures(tmp_path, 70)
    images, usable = decode_all(paths, SPEC, tmp_path / "cache")
    assert images.shape == (70, 16, 16, 3)
    assert usable.all()
    for n in (0, 63, 64, 69):
        np.testing.assert_array_equal(images[n], decode(paths[n], SPEC))
    monkeypatch.setattr("fusion_keras.data.images.decode", never)
    again, _ = decode_all(paths, SPEC, tmp_path / "cache")
    np.testing.assert_array_equal(again, images)


def test_the_images_content_and_the_spec_are_the_key_not_names_or_dates(tmp_path, monkeypatch):
    paths = pictures(tmp_path, 3)
    images, _ = decode_all(paths, SPEC, tmp_path / "cache")
    renamed = [path.rename(path.with_stem(f"moved{path.stem}")) for path in paths]
    os.utime(renamed[0], (0, 0))
    with monkeypatch.context() as patch:
        patch.setattr("fusion_keras.data.images.decode", never)
        np.testing.assert_array_equal(decode_all(renamed, SPEC, tmp_path / "cache")[0], images)

    squared = decode_all(renamed, ImageSpec(16, "pad"), tmp_path / "cache")[0]
    assert (squared != images).any()
    Image.new("RGB", (20, 20), (9, 9, 9)).save(renamed[1])
    changed = decode_all(renamed, SPEC, tmp_path / "cache")[0]
    assert (changed[1] == 9).all()


def test_unusable_images_are_reported_with_their_line_also_from_the_cache(tmp_path):
    paths = pictures(tmp_path, 4)
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    paths[3].unlink()
    origins = [f"x.csv line {n + 2}" for n in range(4)]
    for _ in range(2):
        skips = SkipLog("x.csv", 0.5, total=4)
        images, usable = decode_all(paths, SPEC, tmp_path / "cache", skips, origins)
        assert usable.tolist() == [True, False, True, False]
        assert (images[1] == 0).all()
        assert len(skips.entries) == 2
        assert skips.entries[0].startswith(f"x.csv line 3: image {paths[1]}")
        assert skips.entries[1] == f"x.csv line 5: image {paths[3]}: no such file"
    with pytest.raises(UsageError, match=r"1\.png.*fix or remove"):
        decode_all(paths, SPEC, tmp_path / "cache")


def check_tweets(data_root: Path, folder: Path, count: int):
    root = data_root / "tweets"
    with open(root / "manifest.csv", encoding="utf-8", newline="") as file:
        paths = [root / row["image"] for row in csv.DictReader(file)][:count]
    images, usable = decode_all(paths, ImageSpec(64, "crop"), folder)
    assert images.shape == (count, 64, 64, 3)
    assert usable.all()
    np.testing.assert_array_equal(images[-1], decode(paths[-1], ImageSpec(64, "crop")))
    notes = [json.loads(entry.read_text())["notes"] for entry in folder.glob("*.json")]
    assert [told for told in notes if told] == [{"unusable": {}}]  # file digests have none


def test_real_photos_are_decoded(data_root, tmp_path):
    check_tweets(data_root, tmp_path, 200)


@pytest.mark.slow
def test_all_real_photos_are_decoded(data_root, tmp_path):
    check_tweets(data_root, tmp_path, 3000)
