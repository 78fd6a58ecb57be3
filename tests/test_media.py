"""Many files of one kind become the rows of one array, once; what cannot be used is told."""

import logging
import subprocess
import sys
import time

import numpy as np
import pytest

from fusion_keras.data import media
from fusion_keras.data.cache import content_key
from fusion_keras.data.media import BadFile, decoded, digests, in_threads
from fusion_keras.data.records import SkipLog


def lengths(folder, paths, skips=None):
    """A file's count of bytes, twice; an empty one is bad."""

    def decode(path):
        if not (count := path.stat().st_size):
            raise BadFile("nothing in it")
        return np.full(2, count)

    method = ("lengths", 1)
    return decoded(
        "file", paths, decode, method=method, row=(2,), dtype=np.int32, folder=folder, skips=skips
    )


def test_the_key_is_of_the_method_and_the_files_content(tmp_path):
    paths = [tmp_path / str(n) for n in range(3)]
    for n, path in enumerate(paths):
        path.write_bytes(bytes(n))
    cache = tmp_path / "cache"
    for _ in range(2):
        skips = SkipLog("x.csv", 0.5, total=3)
        array, usable = lengths(cache, paths, skips)
        assert array.tolist() == [[0, 0], [1, 1], [2, 2]]
        assert usable.tolist() == [False, True, True]
        assert skips.entries == [f"x.csv: file {paths[0]}: nothing in it"]
    # Entries of earlier versions are found by it.
    key = content_key("lengths", 1, digests(paths))
    assert {path.stem for path in cache.iterdir()} == {key}


def test_results_come_in_order_and_progress_is_no_output(capsys, caplog):
    # As an entry without --quiet.
    caplog.set_level(logging.INFO, "fusion_keras")

    def slow_first(n):
        time.sleep(0.02 if n % 64 == 0 else 0)
        return n

    pieces = list(in_threads(slow_first, range(130), "counting"))
    assert [n for piece in pieces for n in piece] == list(range(130))
    assert [len(piece) for piece in pieces] == [64, 64, 2]
    few = list(in_threads(slow_first, range(50), "counting a few"))
    assert few == [list(range(50))]
    said = capsys.readouterr()
    assert said.out == ""
    assert "counting" in said.err
    assert "a few" not in said.err


def test_an_error_of_the_work_ends_it():
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda n: 1 / n, range(3), "dividing"))


def test_a_file_of_many_rows_is_decoded_and_kept_once(tmp_path):
    paths = [tmp_path / str(n) for n in range(3)]
    for n, path in enumerate(paths):
        path.write_bytes(bytes(n))
    rows = [paths[2], paths[0], None, paths[2], paths[1]]
    skips = SkipLog("x.csv", 0.5, total=5)
    values, usable = lengths(tmp_path / "cache", rows, skips)
    assert values.shape == (5, 2)
    assert len(values.arrays[0]) == 4
    assert values[np.arange(5)].tolist() == [[2, 2], [0, 0], [0, 0], [2, 2], [1, 1]]
    assert values[1:3].tolist() == [[0, 0], [0, 0]]
    assert usable.tolist() == [True, False, True, True, True]
    assert len(skips.entries) == 1


# A process that decodes six files in pieces of two, and never ends with the fifth.
HANGS = """
import sys, time
from pathlib import Path
import numpy as np
from fusion_keras.data import media

def decode(path):
    while path.name == "4":
        time.sleep(1)
    return np.full(2, path.stat().st_size)

media._PIECE = 2
folder = Path(sys.argv[1])
media.decoded("file", [folder / str(n) for n in range(6)], decode, method=("lengths", 1), row=(2,),
              dtype=np.int32, folder=folder / "cache")
"""


def test_a_killed_process_leaves_the_pieces_that_were_complete(tmp_path, monkeypatch):
    paths = [tmp_path / str(n) for n in range(6)]
    for n, path in enumerate(paths):
        path.write_bytes(bytes(n))
    process = subprocess.Popen([sys.executable, "-c", HANGS, str(tmp_path)])
    try:
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "cache").glob("*.json"))) < 2:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    monkeypatch.setattr(media, "_PIECE", 2)
    seen = []

    def decode(path):
        seen.append(path.name)
        return np.full(2, path.stat().st_size)

    method = ("lengths", 1)
    cache = tmp_path / "cache"
    array, usable = decoded(
        "file", paths, decode, method=method, row=(2,), dtype=np.int32, folder=cache
    )
    assert array[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert usable.all()
    assert sorted(seen) == ["4", "5"]
    # The pieces are gone when the whole is there.
    assert [path.stem for path in cache.glob("*.json")] == [content_key(*method, digests(paths))]


def test_a_file_that_changes_between_pieces_and_whole_is_decoded_again(tmp_path, monkeypatch):
    monkeypatch.setattr(media, "_PIECE", 2)
    paths = [tmp_path / str(n) for n in range(1, 6)]
    for n, path in enumerate(paths):
        path.write_bytes(bytes(n + 1))
    lengths(tmp_path / "cache", paths)
    paths[2].write_bytes(bytes(9))
    assert lengths(tmp_path / "cache", paths)[0][:, 0].tolist() == [1, 2, 9, 4, 5]
