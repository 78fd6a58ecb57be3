"""The fingerprint is what it always was; of data that have not changed it is not computed again."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusion_keras.config import get_config
from fusion_keras.data import cache, fingerprint
from fusion_keras.data.images import ImageSpec
from fusion_keras.data.load import load_dataset
from fusion_keras.data.picked import Picked
from fusion_keras.data.records import Dataset
from fusion_keras.data.tokens import load_tokenizer
from fusion_keras.modalities.image import ImageReader
from fusion_keras.modalities.tabular import TabularReader
from fusion_keras.modalities.text import TextReader
from tests.support.tiny import write_manifest

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "day", "bad", "good")


@dataclasses.dataclass
class Source:
    """A table, what sets its lines apart from the plain ones, and how it is read."""

    folder: Path
    edit: Callable[[list[list[str]]], None]
    taken: tuple[str, ...] = ("image", "text")
    keep: bool = False
    settings: dict = dataclasses.field(default_factory=dict)

    def write(self, change=lambda lines: None) -> None:
        def edit(lines):
            self.edit(lines)
            change(lines)

        write_manifest(self.folder / "data", change=edit)

    def load(self) -> Dataset:
        data = get_config().data
        data.source, data.path = "manifest", str(self.folder / "data" / "manifest.csv")
        data.cache_dir = str(self.folder / "cache")
        data.update_from_flattened_dict(self.settings)
        (self.folder / "vocab.txt").write_text("\n".join(WORDS))
        readers = {
            "image": ImageReader(ImageSpec(8)),
            "text": TextReader(load_tokenizer(self.folder), 5),
            "tabular": TabularReader(("score",), ("group",)),
        }
        return load_dataset(data, {m: readers[m] for m in self.taken}, self.keep)


def share(lines: list[list[str]]) -> None:
    for line in lines[4:20]:
        line[1] = "2.png"


def spoil(lines: list[list[str]]) -> None:
    lines[7][1] = "bad.png"


def share_and_spoil(lines: list[list[str]]) -> None:
    share(lines)
    spoil(lines)


def empty(lines: list[list[str]]) -> None:
    lines[5][0] = lines[8][1] = ""


SKIPS = {"max_skipped": 0.5}
# What is done to the table, and the rest of a `Source`.
KINDS = {
    "plain": (lambda lines: None, {}),
    "text": (lambda lines: None, {"taken": ("text",)}),
    "nothing": (lambda lines: None, {"taken": ()}),
    "shared files": (share, {}),
    "an unusable file": (spoil, {"settings": SKIPS}),
    "an unusable one of shared files": (share_and_spoil, {"settings": SKIPS}),
    "several labels": (lambda lines: None, {"settings": {"label_kind": "multi"}}),
    "numbers": (
        lambda lines: None,
        {"taken": ("text", "tabular"), "settings": {"manifest.score_column": ""}},
    ),
    "incomplete": (empty, {"keep": True}),
    "a drawn split": (lambda lines: None, {"settings": {"manifest.split_column": ""}}),
}


def made(folder: Path, kind: str) -> Source:
    change, settings = KINDS[kind]
    source = Source(folder, change, **settings)
    source.write()
    (folder / "data" / "bad.png").write_bytes(b"no picture")
    return source


def at_once(dataset: Dataset) -> str:
    """As the first version computed it, with all rows in one piece."""
    scores = None if dataset.scores is None else dataset.scores.tolist()
    fields = [dataset.ids, dataset.splits, dataset.raw["text"], dataset.labels.tolist()]
    content = json.dumps([*fields, dataset.classes, dataset.groups, scores]).encode()
    for modality in ("image", "text", "audio", "tabular"):
        if modality in dataset.inputs:
            values = dataset.inputs[modality]
            content += str(values.shape).encode() + np.asarray(values[:]).tobytes()
            content += dataset.present[modality].tobytes() if modality in dataset.present else b""
        elif modality in ("image", "text"):
            content += b"none"
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_is_what_is_computed_anew(tmp_path, monkeypatch, kind):
    source = made(tmp_path, kind)
    first = source.load()
    assert isinstance(first.inputs.get("image"), Picked) == ("shared" in kind)
    assert first.fingerprint == at_once(first)
    assert dataclasses.replace(first, folder=None).fingerprint == first.fingerprint
    monkeypatch.setattr(fingerprint, "_computed", None)  # nothing that could compute it
    assert source.load().fingerprint == first.fingerprint


def other_text(source: Source) -> None:
    source.write(lambda lines: lines[3].__setitem__(0, "another day"))


def other_row(source: Source) -> None:
    source.write(lambda lines: lines.pop())


def other_label(source: Source) -> None:
    source.write(lambda lines: lines[3].__setitem__(2, "negative"))


def other_pixel(source: Source) -> None:
    """In a file of the same name, with the dates of before."""
    path = source.folder / "data" / "2.png"
    state = path.stat()
    with Image.open(path) as image:
        pixels = np.array(image)
    pixels[:8, :8] ^= 255
    Image.fromarray(pixels).save(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def other_split(source: Source) -> None:
    source.settings = {"manifest.split_column": ""}


def other_inputs(source: Source) -> None:
    source.taken = ("text",)


@pytest.mark.parametrize(
    "change", [other_text, other_row, other_label, other_pixel, other_split, other_inputs]
)
@pytest.mark.parametrize("kind", ["plain", "shared files"])
def test_where_anything_changed_it_is_computed_anew(tmp_path, kind, change):
    source = made(tmp_path, kind)
    first = source.load()
    assert first.fingerprint == at_once(first)
    change(source)
    after = source.load()
    assert after.fingerprint == at_once(after) != first.fingerprint


def test_a_damaged_one_is_computed_anew(tmp_path):
    source = made(tmp_path, "plain")
    dataset = source.load()
    before = set((tmp_path / "cache").glob("*.npy"))
    found = dataset.fingerprint
    [entry] = set((tmp_path / "cache").glob("*.npy")) - before
    entry.write_bytes(entry.read_bytes()[:-1] + b"x")
    assert source.load().fingerprint == found
    entry.write_bytes(b"")
    assert source.load().fingerprint == found


def test_a_cache_that_cannot_be_written_keeps_none(tmp_path):
    dataset = made(tmp_path, "plain").load()
    (tmp_path / "file").write_bytes(b"")
    nowhere = dataclasses.replace(dataset, folder=tmp_path / "file" / "cache")
    assert nowhere.fingerprint == at_once(dataset)


def test_parts_of_an_array_of_the_cache_are_not_taken_for_it(tmp_path):
    def build(notes):
        yield np.arange(12).reshape(4, 3)

    for _ in range(2):  # made, and found
        array, _ = cache.cached_array(tmp_path, "a" * 64, (4, 3), np.int64, build)
        assert len(cache.known_digest(array)) == 64
        others = (array[:2], array[:], array.view(np.uint64), array.T, array.copy(), array + 0)
        others += (np.asarray(array), np.ascontiguousarray(array), array[np.array([0])])
        assert not any(cache.known_digest(other) for other in others)
