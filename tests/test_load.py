"""From a data config to a data set: only what was asked for, the same each time."""

import csv
import dataclasses
from pathlib import Path

import ml_collections
import numpy as np
import pytest
from PIL import Image

from fusion_keras.config import get_config
from fusion_keras.data.images import ImageSpec, decode
from fusion_keras.data.load import check_source
from fusion_keras.data.load import load_dataset as load
from fusion_keras.data.pipeline import train_batches
from fusion_keras.data.tokens import load_tokenizer
from fusion_keras.errors import UsageError
from fusion_keras.modalities.text import TextReader
from tests.support.loading import load_dataset

SPEC = ImageSpec(size=16)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "day"]
ROWS = 60


@pytest.fixture
def tokenizer_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    return folder


@pytest.fixture
def config(tmp_path: Path) -> ml_collections.ConfigDict:
    """A manifest of 60 sound rows without a split column; each image has its row's colour."""
    folder = tmp_path / "data"
    folder.mkdir()
    with open(folder / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "image", "label"])
        for row in range(ROWS):
            Image.new("RGB", (20, 30), (row, row, row)).save(folder / f"{row}.png")
            writer.writerow(["good day" if row % 2 else "bad", f"{row}.png", row % 2])
    return ml_collections.ConfigDict(
        {
            "source": "manifest",
            "path": str(folder / "manifest.csv"),
            "name": "",
            "manifest": get_config().data.manifest,
            "mosi": {"raw_dir": "", "frames_dir": ""},
            "demo": {"size": 40, "noise": 0.1, "seed": 0},
            "max_length": 4,
            "max_skipped": 0.05,
            "group_by": "",
            "split_fractions": (0.6, 0.2, 0.2),
            "split_seed": 0,
            "label_kind": "single",
            "label_separator": ";",
            "cache_dir": str(tmp_path / "cache"),
        }
    ).lock()


def never(*_):
    raise AssertionError("made, though it was not asked for or is in the cache")


def break_image(config, row: int):
    (Path(config.path).parent / f"{row}.png").write_bytes(b"no picture")


def test_rows_are_decoded_tokenised_and_split(config, tokenizer_dir):
    dataset = load_dataset(config, tokenizer_dir=tokenizer_dir, image_spec=SPEC)
    assert len(dataset) == ROWS
    assert (dataset.inputs["image"][:, 0, 0, 0] == np.arange(ROWS)).all()
    assert isinstance(dataset.inputs["image"], np.memmap)
    assert dataset.inputs["text"][:2].tolist() == [[2, 5, 3, 0], [2, 4, 6, 3]]
    assert dataset.classes == ("0", "1")
    assert [len(dataset.rows(split)) for split in ("train", "valid", "test")] == [36, 12, 12]
    assert dataset.split_policy.startswith("seeded: stratified by class")
    assert "(0.6, 0.2, 0.2), seed 0" in dataset.split_policy
    arrays = {
        "token_ids": dataset.inputs["text"],
        "image": dataset.inputs["image"],
        "label": dataset.labels,
    }
    inputs, labels = next(iter(train_batches(arrays, dataset.rows("train"), 4, seed=0, epochs=1)))
    np.testing.assert_array_equal(inputs["image"][:, 0, 0, 0] % 2, labels)


def test_a_split_of_the_source_is_kept(config, tokenizer_dir):
    path = Path(config.path)
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    splits = ["train"] * 40 + ["dev"] * 10 + ["test"] * 10
    lines = [f"{row},{split}" for row, split in zip(rows, splits, strict=True)]
    path.write_text("\n".join([f"{head},split", *lines]), encoding="utf-8")
    dataset = load_dataset(config, tokenizer_dir=tokenizer_dir)
    assert dataset.splits[39:41] == ["train", "valid"]
    assert dataset.split_policy.startswith("as the source gives it")


def test_only_what_is_asked_for_is_made(config, tokenizer_dir, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("fusion_keras.modalities.image.decode_all", never)
        text = load_dataset(config, tokenizer_dir=tokenizer_dir)
    assert "image" not in text.inputs
    with monkeypatch.context() as patch:
        patch.setattr("fusion_keras.data.tokens.encode", never)
        image = load_dataset(config, image_spec=SPEC)
    assert "text" not in image.inputs
    assert text.splits == image.splits


def test_a_second_load_takes_all_from_the_cache(config, tokenizer_dir, monkeypatch):
    first = load_dataset(config, tokenizer_dir=tokenizer_dir, image_spec=SPEC)
    monkeypatch.setattr("fusion_keras.data.images.decode", never)
    monkeypatch.setattr("fusion_keras.data.tokens.encode", never)
    second = load_dataset(config, tokenizer_dir=tokenizer_dir, image_spec=SPEC)
    np.testing.assert_array_equal(first.inputs["image"], second.inputs["image"])
    np.testing.assert_array_equal(first.inputs["text"], second.inputs["text"])
    assert first.fingerprint == second.fingerprint


def test_the_fingerprint_tells_content_and_preprocessing_but_not_places(
    config, tokenizer_dir, tmp_path
):
    def fingerprint(size: int = 16, **changes) -> str:
        changed = config.copy_and_resolve_references()
        changed.update(changes)
        options = {"tokenizer_dir": tokenizer_dir, "image_spec": ImageSpec(size)}
        return load_dataset(changed, **options).fingerprint

    found = [fingerprint(), fingerprint(size=8), fingerprint(max_length=5)]
    found += [fingerprint(split_seed=1), fingerprint(manifest={"classes": ("1", "0")})]
    assert len(set(found)) == 5
    Path(config.path).parent.rename(tmp_path / "moved")
    moved = str(tmp_path / "moved" / "manifest.csv")
    assert fingerprint(path=moved, cache_dir=str(tmp_path / "other")) == found[0]
    Image.new("RGB", (20, 30), (9, 8, 7)).save(tmp_path / "moved" / "5.png")
    assert fingerprint(path=moved) not in found


def test_an_unusable_image_is_skipped_noted_and_moves_no_other_row(config, tokenizer_dir):
    options = {"tokenizer_dir": tokenizer_dir, "image_spec": SPEC}
    whole = load_dataset(config, **options)
    break_image(config, 7)
    for _ in range(2):
        dataset = load_dataset(config, **options)
        kept = [row for row in range(ROWS) if row != 7]
        assert dataset.ids == [whole.ids[row] for row in kept]
        assert dataset.splits == [whole.splits[row] for row in kept]
        np.testing.assert_array_equal(dataset.inputs["image"], whole.inputs["image"][kept])
        np.testing.assert_array_equal(dataset.inputs["text"], whole.inputs["text"][kept])
        np.testing.assert_array_equal(dataset.labels, whole.labels[kept])
        assert isinstance(dataset.inputs["image"], np.memmap)
        skipped = [note for note in dataset.notes if "7.png" in note]
        assert len(skipped) == 1
        assert skipped[0].startswith("manifest.csv line 9: image")


def test_more_unusable_images_than_allowed_end_the_run(config):
    for row in range(4):  # the limit is 5 % of 60
        break_image(config, row)
    with pytest.raises(UsageError, match=r"got 4 unusable of 60 rows.*line 2.*at most 5\.00%"):
        load_dataset(config, image_spec=SPEC)


def test_cut_texts_are_counted_in_the_notes(config, tokenizer_dir):
    config.max_length = 3
    dataset = load_dataset(config, tokenizer_dir=tokenizer_dir)
    assert "30 of 60 texts were cut to 3 tokens" in dataset.notes


def with_texts(config, texts) -> None:
    """Give the rows other texts, and a split: 40, 10 and 10 of them."""
    path = Path(config.path)
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    splits = ["train"] * 40 + ["valid"] * 10 + ["test"] * 10
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "image", "label", "split"])
        for text, row, split in zip(texts, rows, splits, strict=True):
            writer.writerow([text, *row[1:], split])


def test_unknown_words_are_counted_by_split_with_the_first(config, tokenizer_dir):
    with_texts(config, ["good day"] * 38 + ["day 好", "好 好"] + ["bad"] * 20)
    dataset = load_dataset(config, tokenizer_dir=tokenizer_dir)
    assert dataset.notes_of["text"][0] == (
        "unknown to the vocabulary, read as [UNK]: 3 of 80 tokens (3.8%) in train, 0 of 10 tokens "
        "(0.0%) in valid, 0 of 10 tokens (0.0%) in test (first manifest.csv line 40: 'day 好'); "
        "1 texts are nothing else"
    )


def test_words_that_are_read_letter_by_letter_are_noted(config, tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "day", "д", "##е", "##н", "##ь"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    with_texts(config, ["good day"] * 20 + ["день"] * 40)
    reader = TextReader(load_tokenizer(tmp_path), 8)
    note = load(config, {"text": reader}).notes_of["text"][0]
    assert note.startswith("120 of 200 tokens (60.0%) are single letters within a word (first man")


def test_a_split_that_the_vocabulary_does_not_know_ends_with_a_sentence(config, tokenizer_dir):
    with_texts(config, ["good day"] * 40 + ["bad"] * 10 + ["今天"] * 10)
    reader = TextReader(load_tokenizer(tokenizer_dir), 4, 0.2)
    with pytest.raises(UsageError, match=r"got 20 of 20 tokens \(100\.0%\) of the test texts .*"):
        load(config, {"text": reader})
    # A look at all of it finds 20 of 110, within the limit.
    check_source(config, {"text": reader})
    with pytest.raises(UsageError, match=r"20 of 110 tokens \(18\.2%\) of the texts .*line 52: '"):
        check_source(config, {"text": dataclasses.replace(reader, max_unknown=0.18)})
    assert len(load(config, {"text": dataclasses.replace(reader, max_unknown=1.0)})) == ROWS


def test_images_asked_of_a_source_without_any_end_with_a_sentence(config, tokenizer_dir):
    config.manifest.image_column = ""
    assert "image" not in load_dataset(config, tokenizer_dir=tokenizer_dir).inputs
    with pytest.raises(UsageError, match="without images"):
        load_dataset(config, image_spec=SPEC)


def test_a_missing_path_ends_with_a_sentence(config):
    config.path = ""
    with pytest.raises(UsageError, match=r"got no data\.path"):
        load_dataset(config)


def test_each_column_field_is_read(config, tokenizer_dir):
    path = Path(config.path)
    rows = path.read_text(encoding="utf-8").splitlines()[1:]
    splits = ["train"] * 40 + ["dev"] * 10 + ["test"] * 10
    lines = [
        f"{r},{s},n{i},g{i},{i / 10}" for i, (r, s) in enumerate(zip(rows, splits, strict=True))
    ]
    path.write_text("\n".join(["a,b,c,d,e,f,g", *lines]), encoding="utf-8")
    names = ("text", "image", "label", "split", "id", "group", "score")
    config.manifest.update(
        {f"{name}_column": letter for name, letter in zip(names, "abcdefg", strict=True)}
    )
    dataset = load_dataset(config, tokenizer_dir=tokenizer_dir, image_spec=SPEC)
    assert dataset.ids[3] == "n3"
    assert dataset.groups[3] == "g3"
    assert dataset.scores[3] == np.float32(0.3)
    assert dataset.splits[45] == "valid"


def test_the_demo_needs_no_file(config, tokenizer_dir):
    config.source, config.path = "demo", ""
    dataset = load_dataset(config, tokenizer_dir=tokenizer_dir, image_spec=SPEC)
    assert dataset.inputs["image"].shape == (len(dataset), 16, 16, 3)
    assert dataset.inputs["image"].dtype == np.uint8
    assert set(dataset.splits) == {"train", "valid", "test"}
    assert "demo" in dataset.name
    changed = []
    for field, value in (("size", 50), ("noise", 0.5), ("seed", 1)):
        other = config.copy_and_resolve_references()
        other.demo[field] = value
        changed.append(load_dataset(other, tokenizer_dir=tokenizer_dir, image_spec=SPEC))
    assert len({dataset.fingerprint, *(other.fingerprint for other in changed)}) == 4


def test_mosi_text_alone_needs_no_videos(config, tokenizer_dir, data_root):
    config.source = "mosi"
    config.path = str(data_root / "mosi" / "label.csv")
    config.mosi.raw_dir = str(data_root / "mosi" / "Raw")
    dataset = load_dataset(config, tokenizer_dir=tokenizer_dir)
    assert [len(dataset.rows(s)) for s in ("train", "valid", "test")] == [1284, 229, 686]
    assert "image" not in dataset.inputs
    with pytest.raises(UsageError, match="unusable of 2199 rows"):
        load_dataset(config, image_spec=SPEC)


def test_the_faces_of_mosi_fer_are_loaded(config, tokenizer_dir, data_root):
    config.path = str(data_root / "mosi_fer" / "manifest.csv")
    dataset = load_dataset(config, tokenizer_dir=tokenizer_dir, image_spec=ImageSpec(32))
    assert dataset.inputs["image"].shape == (2199, 32, 32, 3)
    face = data_root / "mosi_fer" / "frames" / f"{dataset.ids[-1]}.jpg"
    np.testing.assert_array_equal(dataset.inputs["image"][-1], decode(face, ImageSpec(32)))
    assert dataset.classes == ("0", "1")
    assert (dataset.scores >= 0).astype(int).tolist() == dataset.labels.tolist()


def test_mosi_takes_ready_frames(config, data_root):
    config.source = "mosi"
    config.path = str(data_root / "mosi" / "label.csv")
    config.mosi.frames_dir = str(data_root / "mosi_fer" / "frames")
    dataset = load_dataset(config, image_spec=SPEC)
    assert dataset.inputs["image"].shape == (2199, 16, 16, 3)
    assert len(set(dataset.groups)) == 93


def test_a_data_set_can_be_given_a_name_but_the_demo_stays_the_demo(config):
    config.name = "constructed pairs"
    assert load_dataset(config).name == "constructed pairs"
    config.source = "demo"
    with pytest.raises(UsageError, match="always called the demo's"):
        load_dataset(config)


def write_table(config, rows, encoding="utf-8"):
    lines = ["text,label,split", *(",".join(row) for row in rows)]
    Path(config.path).write_text("\n".join(lines), encoding=encoding)
    config.manifest.image_column = ""


def test_how_a_table_is_read_can_be_set(config):
    rows = [(f"\u597d {i}", "Good" if i % 2 else "good", "train") for i in range(40)]
    rows += [(f"\u5dee {i}", "bad", ("train", "valid", "test")[i % 3]) for i in range(60)]
    rows += [("-", "bad", "train"), ("\u597d", "good", "valid"), ("\u597d", "good", "test")]
    write_table(config, rows, encoding="gb18030")
    config.manifest.update({"encoding": "gbk", "join_classes": True, "missing": ("-",)})
    dataset = load_dataset(config)
    assert dataset.raw["text"][0] == "\u597d 0"
    assert dataset.classes == ("bad", "good")
    assert len(dataset) == 102
    joined, _, skipped = dataset.source_notes
    assert joined.startswith("manifest.csv: 1 spellings of classes are read as another: 'Good' (20")
    assert skipped == "manifest.csv line 102: no text: '-'"


def test_classes_of_few_rows_are_noted(config):
    splits = ["train"] * 30 + ["valid"] * 10 + ["test"] * 20
    rows = [("t", "abc"[i % 3] if i > 2 else "d", split) for i, split in enumerate(splits)]
    write_table(config, [*rows, ("t", "c", "test")])
    counts = {s: [row[1] for row in rows if row[2] == s].count("b") for s in ("train", "test")}
    assert counts == {"train": 9, "test": 7}
    absent, learned, measured = load_dataset(config).source_notes[-3:]
    assert absent == "manifest.csv: the test split has no row of class d"
    assert learned == (
        "manifest.csv: 4 of 4 classes have fewer than 10 train rows, too few to be learned "
        "(a 9; b 9; c 9; ..., the first in manifest.csv line 2)"
    )
    assert measured.startswith("manifest.csv: 3 of 4 classes have fewer than 10 test rows, too few")
    assert "to be measured (a 6; b 7; c 8, the first in manifest.csv line 42)" in measured


def test_classes_out_of_proportion_to_the_rows_are_noted(config):
    rows = [("t", f"name {i % 30}", ("train", "valid", "test")[i // 30 % 3]) for i in range(270)]
    write_table(config, rows)
    notes = load_dataset(config).source_notes
    assert (
        "manifest.csv: 30 classes in 270 rows, 9.0 rows for each: is the label column one of "
        "classes?" in notes
    )
    write_table(config, [*rows, *rows[:90]])
    assert not any("rows for each" in note for note in load_dataset(config).source_notes)


def test_enough_rows_of_each_class_need_no_note(config):
    rows = [("t", "ab"[i % 2], ("train", "valid", "test")[i % 3]) for i in range(60)]
    write_table(config, rows)
    assert load_dataset(config).source_notes == ()
