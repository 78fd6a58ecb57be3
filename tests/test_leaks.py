"""Content in two splits: found whatever its name and form, counted, kept together."""

import csv
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusion_keras.config import get_config
from fusion_keras.data.images import ImageSpec
from fusion_keras.data.leaks import (
    grouped,
    sentence_keys,
    uneven_note,
)
from fusion_keras.data.load import check_source
from fusion_keras.data.records import SPLITS, Records
from fusion_keras.errors import UsageError
from fusion_keras.training import report
from fusion_keras.training.evaluate import split_metrics, unshared_metrics
from fusion_keras.training.experiment import train
from fusion_keras.training.recipes import resolve
from tests.support import tiny as tiny_support
from tests.support.loading import load_dataset

SPEC = ImageSpec(size=8)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "day"]
# Whatever is written in letters and digits is known.
PIECES = "abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.fixture
def tokenizer_dir(tmp_path: Path) -> Path:
    words = [
        *WORDS,
        *(mark + piece for mark in ("", "##") for piece in PIECES if mark + piece not in WORDS),
    ]
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    return tmp_path / "tokenizer"


def records_of(texts, splits, **more) -> Records:
    count = len(texts)
    return Records(
        **{
            "name": "set",
            "ids": [f"r{row}" for row in range(count)],
            "splits": splits,
            "raw": {"text": texts},
            "labels": np.arange(count, dtype=np.int32) % 2,
            "classes": ("no", "yes"),
            **more,
        }
    )


def write_table(folder: Path, rows: list[dict]):
    """Writes `table.csv` and gives the settings that read it."""
    with open(folder / "table.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    data = get_config().data
    data.source, data.path = "manifest", str(folder / "table.csv")
    data.cache_dir = str(folder / "cache")
    return data


@pytest.fixture
def sixty(tmp_path):
    """300 rows of 60 pictures: each four times as the same bytes, and once saved anew."""
    rng, rows = np.random.default_rng(0), []
    for row in range(300):
        number, copy = row % 60, row // 60
        name = f"{row}.png"
        if copy == 0:
            pixels = rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name)
        elif copy < 4:
            shutil.copy(tmp_path / f"{number}.png", tmp_path / name)
        else:
            name = f"{row}.bmp"
            Image.open(tmp_path / f"{number}.png").save(tmp_path / name)
        rows.append({"text": f"day {row}", "image": name, "label": row % 2})
    return write_table(tmp_path, rows)


# What is the same


def test_sentences_are_the_same_whatever_their_case_space_and_form():
    same = ["Caf\u00e9  STRASSE", "cafe\u0301 stra\u00dfe", " \uff23af\u00e9\u00a0strasse\n"]
    assert len({*sentence_keys(same)}) == 1
    assert len({*sentence_keys([*same, "cafe strasse", "caf\u00e9, strasse"])}) == 3
    # What is empty is nothing that two rows could share.
    assert sentence_keys([" ", None]) == [None, None]


def test_pictures_that_end_in_two_splits_are_counted(sixty):
    dataset = load_dataset(sixty, image_spec=SPEC)
    homes = {s: {row % 60 for row in dataset.rows(s)} for s in SPLITS}
    divided = {n for n in range(60) if sum(n in home for home in homes.values()) > 1}
    assert len(divided) > 40

    def counted(split, other):
        rows = dataset.rows(split)
        found = sum(row % 60 in homes[other] for row in rows)
        return f"{found} of {len(rows)} {split} rows have one of {other}"

    first = min(divided)
    lines = {}
    for row in range(first, 300, 60):
        lines.setdefault(dataset.splits[row], f"table.csv line {row + 2} ({dataset.splits[row]})")
    assert dataset.notes_of["image"] == (
        f"table.csv: {len(divided)} of 60 images are in more than one split: "
        f"{counted('test', 'train')}, {counted('test', 'valid')}, {counted('valid', 'train')}; "
        f"the first image is that of {' and '.join(lines[s] for s in SPLITS if s in lines)}; "
        "--config.data.group_by=image keeps each in one split",
    )
    wanted = [row % 60 in divided for row in range(300)]
    assert dataset.shared["image"].tolist() == wanted


def test_pictures_are_kept_together_by_every_model_alike(sixty, tokenizer_dir):
    before = load_dataset(sixty, image_spec=SPEC)
    sixty.group_by = "image"
    dataset = load_dataset(sixty, image_spec=SPEC)
    assert dataset.notes == ()
    assert dataset.shared == {}
    assert len({(row % 60, split) for row, split in enumerate(dataset.splits)}) == 60
    counts = [len(dataset.rows(split)) for split in SPLITS]
    assert counts == [210, 30, 60]
    for split in SPLITS:
        assert abs(dataset.labels[dataset.rows(split)].mean() - 0.5) < 0.04
    assert "rows of one image undivided" in dataset.split_policy
    assert before.fingerprint != dataset.fingerprint
    assert load_dataset(sixty, image_spec=ImageSpec(4)).splits == dataset.splits
    text = load_dataset(sixty, tokenizer_dir=tokenizer_dir)
    assert (text.splits, text.groups) == (dataset.splits, dataset.groups)
    sixty.split_seed = 1
    assert load_dataset(sixty, image_spec=SPEC).splits != dataset.splits


def test_a_model_is_told_of_what_it_takes(sixty, tokenizer_dir):
    assert load_dataset(sixty, tokenizer_dir=tokenizer_dir).shared == {}
    both = load_dataset(sixty, tokenizer_dir=tokenizer_dir, image_spec=SPEC)
    assert set(both.shared) == {"image"}
    assert both.of_one("text").shared == {}
    assert both.of_one("image").notes == load_dataset(sixty, image_spec=SPEC).notes


def test_sounds_are_compared_too(tmp_path):
    rows = []
    for row in range(60):
        # Two rates of the same silence, and a tone for each other row.
        hertz = 0 if row < 2 else 300 + 20 * row
        tiny_support.write_wav(tmp_path / f"{row}.wav", tiny_support.tone(hertz, 0.3))
        split = SPLITS[row % 3]
        rows.append({"text": "t", "label": row // 3 % 2, "audio": f"{row}.wav", "split": split})
    data = write_table(tmp_path, rows)
    data.manifest.image_column, data.manifest.audio_column = "", "audio"
    (note,) = load_dataset(data, seconds=0.5).notes
    assert note == (
        "table.csv: 1 of 59 sounds are in more than one split: 1 of 20 valid rows have one of "
        "train; the first sound is that of table.csv line 2 (train) and table.csv line 3 (valid); "
        "a group column (data.manifest.group_column) keeps rows together"
    )


# A split that is given


def test_what_a_given_split_shares_is_counted_between_all_pairs(tmp_path, tokenizer_dir):
    texts = {
        "train": [f"day {n}" for n in range(40)],
        "valid": ["Day  1", "DAY 2", *(f"valid {n}" for n in range(18))],
        "test": ["day 2", "valid 0", "valid 1", "valid 1", *(f"test {n}" for n in range(16))],
    }
    rows = [{"text": t, "label": n % 2, "split": s} for s in SPLITS for n, t in enumerate(texts[s])]
    data = write_table(tmp_path, rows)
    data.manifest.image_column = ""
    dataset = load_dataset(data, tokenizer_dir=tokenizer_dir)
    # The vocabulary is a tiny one, of which there is a note, too.
    assert dataset.notes_of["text"][1:] == (
        "table.csv: 4 of 74 sentences are in more than one split: 1 of 20 test rows have one of "
        "train, 4 of 20 test rows have one of valid, 2 of 20 valid rows have one of train; the "
        "first sentence is that of table.csv line 3 (train) and table.csv line 42 (valid); "
        "--config.data.manifest.split_column= --config.data.group_by=text draws a split with "
        "each in one part",
    )
    # Two of the train rows that are there again, and all that are the same as these.
    (note,) = dataset.source_notes
    assert note.startswith("table.csv: 10 rows have the same sentence as another row and another")
    assert "the first table.csv line 3 and table.csv line 42: no model can" in note
    assert np.flatnonzero(dataset.shared["text"]).tolist() == [1, 2, 40, 41, 42, 43, 60, 61, 62, 63]
    data.group_by = "text"
    with pytest.raises(UsageError, match=r"group_by='text' and a manifest that gives the split"):
        check_source(data, {})
    data.manifest.split_column = ""
    check_source(data, {})
    assert len(load_dataset(data, tokenizer_dir=tokenizer_dir).notes_of["text"]) == 1


def test_the_grammar_of_the_demo_is_no_mistake(tokenizer_dir):
    data = get_config().data
    data.demo.size = 400
    dataset = load_dataset(data, tokenizer_dir=tokenizer_dir, image_spec=SPEC)
    assert dataset.shared == {}
    assert not any("more than one split" in note for note in dataset.notes)
    # It does repeat itself.
    keys = sentence_keys(dataset.raw["text"])
    train, valid, test = ({keys[row] for row in dataset.rows(split)} for split in SPLITS)
    assert train & valid | train & test | valid & test


def test_the_faces_of_mosi_fer(data_root, tmp_path):
    data = get_config().data
    data.source, data.cache_dir = "manifest", str(tmp_path)
    data.path = str(data_root / "mosi_fer" / "manifest.csv")
    dataset = load_dataset(data, image_spec=ImageSpec(48))
    assert dataset.source_notes[0].startswith("manifest.csv: 2 rows have the same image as another")
    assert dataset.notes_of["image"][0].startswith(
        "manifest.csv: 4 of 2190 images are in more than one split: 1 of 686 test rows have one of "
        "train, 3 of 229 valid rows have one of train; the first image is that of manifest.csv "
        "line 110 (train) and manifest.csv line 1923 (test)"
    )


# Groups


def test_a_chain_of_equal_content_is_one_group(tmp_path):
    for name, shade in (("p", 10), ("q", 20), ("other", 30)):
        Image.new("L", (3, 3), shade).save(tmp_path / f"{name}.png")
    (tmp_path / "bad.png").write_bytes(b"none")
    (tmp_path / "bad_too.png").write_bytes(b"none")
    names = ("p", "p", None, "q", "bad", "q", "bad_too", None)
    images = [name and tmp_path / f"{name}.png" for name in names]
    texts = ["1", "2", "2 ", "3", "4", "5", "", ""]
    records = records_of(texts, None, raw={"text": texts, "image": images})
    chained = grouped(records, ("image", "text"), tmp_path / "cache")
    assert chained.groups == ["r0", "r0", "r0", "r3", "r4", "r3", "r6", "r7"]
    assert grouped(records, ("text",), tmp_path).groups == ["r0", "r1", "r1", *records.ids[3:]]
    # Groups of before stay whole.
    spoken = dataclasses.replace(records, groups=list("dccaebfa"))
    assert grouped(spoken, ("image",), tmp_path / "cache").groups == list("cccaeafa")


def test_both_keeps_images_and_sentences_together(sixty, tokenizer_dir):
    with open(sixty.path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # Each picture has a sentence of its own; the first two pictures share theirs.
    for row, line in enumerate(rows):
        line["text"] = f"day {max(row % 60, 1)}"
    write_table(Path(sixty.path).parent, rows)
    options = {"tokenizer_dir": tokenizer_dir, "image_spec": SPEC}
    sixty.group_by = "image"
    (note,) = load_dataset(sixty, **options).notes_of["text"] or ("",)
    assert note.endswith("; --config.data.group_by=both keeps each in one split")
    sixty.group_by = "both"
    dataset = load_dataset(sixty, **options)
    assert dataset.notes == ()
    assert len(set(dataset.groups)) == 59
    assert dataset.splits[0] == dataset.splits[1]


def test_a_group_too_large_for_its_part_is_noted():
    splits = ["train"] * 80 + ["valid"] * 4 + ["test"] * 16
    groups = ["a"] * 80 + [f"b{n}" for n in range(20)]
    uneven = records_of(["t"] * 100, splits, groups=groups)
    assert uneven_note(uneven, (0.7, 0.1, 0.2)) == (
        "set: train / valid / test have 80 / 4 / 16 % of the rows, wanted 70 / 10 / 20: 80 of 100 "
        "rows hang together by what they share",
    )
    assert uneven_note(uneven, (0.8, 0.05, 0.15)) == ()


def test_a_grouping_that_cannot_be_is_refused(sixty):
    sixty.group_by = "sound"
    with pytest.raises(UsageError, match=r"got data\.group_by='sound', wanted image, text, both"):
        check_source(sixty, {})
    sixty.group_by, sixty.manifest.image_column = "both", ""
    with pytest.raises(UsageError, match="and no image column, wanted one"):
        check_source(sixty, {})
    config = get_config()
    config.data.group_by = "text"
    with pytest.raises(UsageError, match=r"data\.group_by is set, and the source demo reads no"):
        resolve(config)


# What it costs


def test_metrics_without_shared_rows_are_those_of_the_others(sixty):
    dataset = dataclasses.replace(
        load_dataset(sixty, image_spec=SPEC),
        labels=np.array([0, 1] * 150, np.int32),
        shared={
            "image": np.isin(np.arange(300), [0, 1, 2, 9]),
            "text": np.isin(np.arange(300), [2, 3, 200]),
        },
    )
    rows = np.arange(10)
    # Right in 0 to 3 and in 4, 5 and 6; of those that share nothing, in three of five.
    said = np.where(rows < 7, rows % 2, 1 - rows % 2)
    outputs = {"logits": np.eye(2, dtype=np.float32)[said] * 5}
    assert split_metrics(outputs, dataset, rows)["metrics"]["accuracy"]["value"] == 0.7
    found = unshared_metrics(outputs, dataset, rows)["unshared"]
    assert found["shared"] == {"image": 4, "text": 2}
    assert found["count"] == 5
    assert found["metrics"]["accuracy"]["value"] == 0.6
    assert np.sum(found["confusion"]) == 5
    few = {"logits": outputs["logits"][:2]}
    assert unshared_metrics(few, dataset, rows[:2]) == {
        "unshared": {"shared": {"image": 2}, "count": 0}
    }
    assert unshared_metrics(few, dataset, rows[4:6]) == {}


def test_a_run_keeps_and_shows_both_figures(tiny, tmp_path):
    bench = tiny.beside(tmp_path / "bench")

    def repeat(lines):
        # Four test rows have the sentences of training rows.
        tested = [line for line in lines if line[3] == "test"][:4]
        for line, other in zip(tested, lines, strict=False):
            line[0] = other[0].upper()

    tiny_support.write_manifest(bench.folder / "data", change=repeat)
    config = bench.config(fusion__junctions="0+-:concat", train__epochs=1)
    run = train(config, tmp_path / "run")
    notes = run.read_json("config.json")["dataset"]["notes"]
    (note,) = (note for note in notes if "split" in note)
    assert note.startswith("manifest.csv: 4 of 68 sentences are in more than one split: 4 of 16 te")
    splits = run.read_json("metrics.json")["splits"]
    assert "unshared" not in splits["valid"]
    others = splits["test"]["unshared"]
    assert (others["count"], others["shared"]) == (12, {"text": 4})
    shown = [part for part in report.closing(run) if isinstance(part, str)]
    assert f"note: {note}" in shown
    (line,) = (part for part in shown if part.startswith("test: "))
    assert line.startswith("test: 4 of 16 rows share content with another split (text 4); acc")
    both = [s["metrics"]["accuracy"]["value"] for s in (splits["test"], others)]
    assert f"of all {100 * both[0]:.1f} % [" in line
    assert f"of the 12 others {100 * both[1]:.1f} % [" in line
    # A run from before says nothing of it.
    del splits["test"]["unshared"]
    run.write_json("metrics.json", {**run.read_json("metrics.json"), "splits": splits})
    shown = [part for part in report.closing(run) if isinstance(part, str)]
    assert not any(part.startswith("test: ") for part in shown)
