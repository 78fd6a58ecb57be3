"""What was read of a table is kept as long as neither it nor a file that it names has changed."""

import csv
import dataclasses
import os
import time
from pathlib import Path

import numpy as np
import pytest

from fusion_keras.data import load, media
from fusion_keras.data.kept import kept_records
from fusion_keras.data.manifest import read_manifest
from fusion_keras.data.media import digests
from fusion_keras.data.paths import Files
from fusion_keras.errors import UsageError
from tests.support.tiny import write_manifest


def read(path: Path, cache: Path, **settings):
    """The records, and whether the table was read for them."""
    seen = []

    def make(files: Files):
        seen.append(path)
        return read_manifest(path, files=files, **settings)

    parts = (path.name, digests([path]), settings)
    return kept_records(cache, parts, path.parent, make), bool(seen)


def same(records, others) -> bool:
    for field in dataclasses.fields(records):
        one, other = getattr(records, field.name), getattr(others, field.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        else:
            assert one == other, field.name
    return True


SETTINGS = {
    "plain": {},
    "columns": {"text_column": "text, group", "score_column": "", "group_column": ""},
    "numbers": {"numbers": ["score"], "categories": ["group"], "score_column": ""},
    "several labels": {"label_kind": "multi"},
    "incomplete": {"keep_incomplete": True, "max_skipped": 0.5},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_what_is_kept_is_what_was_read(tmp_path, settings):
    def spoil(lines):
        lines[3][0] = "half a pair \N{GRINNING FACE} \N{COMBINING ACUTE ACCENT}\n of lines"
        if "max_skipped" in settings:
            lines[5][1] = ""
            lines[6][0] = "none"
            lines[7][1] = "gone.png"

    path = write_manifest(tmp_path / "data", change=spoil)
    first, was_read = read(path, tmp_path / "cache", **settings)
    assert was_read
    again, was_read = read(path, tmp_path / "cache", **settings)
    assert not was_read
    assert same(first, again)
    _, was_read = read(path, tmp_path / "cache", **settings, missing=("nothing",))
    assert was_read


def test_an_edit_of_the_table_is_seen(tmp_path):
    path = write_manifest(tmp_path / "data")
    read(path, tmp_path / "cache")
    with path.open("a", newline="") as file:
        csv.writer(file).writerow(["more", "0.png", "negative", "train", "r99", "g99", "1"])
    records, was_read = read(path, tmp_path / "cache")
    assert was_read
    assert len(records) == 73


@pytest.mark.parametrize("change", ["gone", "folder", "outside"])
def test_a_file_that_is_gone_or_leads_elsewhere_is_seen(tmp_path, change):
    path = write_manifest(tmp_path / "data")
    first, _ = read(path, tmp_path / "cache", max_skipped=0.1)
    image = tmp_path / "data" / "8.png"
    image.unlink()
    if change == "folder":
        image.mkdir()
    if change == "outside":
        (tmp_path / "secret.png").write_bytes(b"")
        image.symlink_to(tmp_path / "secret.png")
        with pytest.raises(UsageError, match=r"manifest.csv line 10, wanted one that stays inside"):
            read(path, tmp_path / "cache", max_skipped=0.1)
        return
    again, was_read = read(path, tmp_path / "cache", max_skipped=0.1)
    assert was_read
    assert len(again) == len(first) - 1


def test_what_is_damaged_is_read_again(tmp_path):
    path = write_manifest(tmp_path / "data")
    first, _ = read(path, tmp_path / "cache")
    [entry] = (tmp_path / "cache").glob("*.columns")
    content = entry.read_bytes()
    for damaged in (b"", content[:70], content[:-9], content.replace(b"day", b"way", 1)):
        entry.write_bytes(damaged)
        again, was_read = read(path, tmp_path / "cache")
        assert was_read
        assert same(first, again)


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path):
    path = write_manifest(tmp_path / "data")
    (tmp_path / "file").write_bytes(b"")
    assert read(path, tmp_path / "file" / "cache")[1]
    assert read(path, tmp_path / "file" / "cache")[1]


def test_files_of_before_are_not_hashed_again_and_changed_ones_are(tmp_path, monkeypatch):
    # Files that have been there for a moment count as files that have been there for long.
    monkeypatch.setattr(media, "_SETTLED_NS", 0)
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(path.name.encode())
    time.sleep(0.05)
    cache = tmp_path / "cache"
    before = digests(paths, cache)
    assert before == digests(paths)
    hashed = []
    real = media.file_digest
    monkeypatch.setattr(media, "file_digest", lambda path: hashed.append(path) or real(path))
    assert digests(paths, cache) == before
    assert not hashed
    # Another content of the same length, and the times of before put back.
    state = paths[1].stat()
    paths[1].write_bytes(b"x")
    os.utime(paths[1], ns=(state.st_atime_ns, state.st_mtime_ns))
    time.sleep(0.05)
    after = digests(paths, cache)
    assert hashed
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    # Another file under the name.
    (tmp_path / "new").write_bytes(b"b")
    os.utime(tmp_path / "new", ns=(state.st_atime_ns, state.st_mtime_ns))
    os.replace(tmp_path / "new", paths[1])
    time.sleep(0.05)
    assert digests(paths, cache) == before
    paths[2].unlink()
    assert digests(paths, cache) == [*before[:2], "missing"]


def test_digests_of_files_just_written_are_not_kept(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"a")
    digests([path], tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_folder_of_links_and_odd_names_is_followed_as_ever(tmp_path):
    folder = tmp_path / "data"
    (folder / "real").mkdir(parents=True)
    (folder / "real" / "a.png").write_bytes(b"a")
    (folder / "link").symlink_to(folder / "real")
    (folder / "out").symlink_to(tmp_path)
    (tmp_path / "b.png").write_bytes(b"b")
    files = Files(folder)
    for name in ("real/a.png", "link/a.png", "./real/../real/a.png", "real//a.png"):
        path = files.path(name, "line 1")
        assert path == (folder / "real" / "a.png").resolve()
        assert files.has(path)
    assert not files.has(files.path("real/none.png", "line 1"))
    assert not files.has(files.path("real", "line 1"))
    assert not files.has(files.path("real/a.png/x", "line 1"))
    assert not files.has(files.path("x" * 300, "line 1"))
    for name in ("out/b.png", "../b.png", "real/../../b.png", "C:\\b.png", "..", str(tmp_path)):
        with pytest.raises(UsageError, match="stays inside"):
            files.path(name, "line 1")


def test_a_training_reads_the_table_once(tmp_path, monkeypatch):
    from tests.support.tiny import Bench

    write_manifest(tmp_path / "data")
    (tmp_path / "cache").mkdir()
    data = Bench(tmp_path).config().data
    first = load.load_dataset(data)
    monkeypatch.setattr(load, "read_manifest", None)  # nothing that could read it
    assert load.load_dataset(data).fingerprint == first.fingerprint
