"""A model in an application: what it is asked with, what it answers, many threads at once."""

import csv
import dataclasses
import io
import json
import shutil
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.edge.artifact import ArtifactError, seal_of
from bench.edge.runners.ort import OnnxRuntime
from bench.predictor import InputError, Predictor


@pytest.fixture(scope="module")
def predictor(tiny_artifact):
    return Predictor(tiny_artifact)


@pytest.fixture(scope="module")
def data(tiny) -> Path:
    return tiny.folder / "data"


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_it_answers_as_the_run_did(predictor, tiny_run, data):
    with (tiny_run / "predictions.csv").open(newline="") as file:
        predicted = [row for row in csv.DictReader(file) if row["split"] == "test"]
    with (data / "manifest.csv").open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    for wanted in predicted[:4]:
        row = rows[wanted["id"]]
        answer = predictor.predict(text=row["text"], image=data / row["image"])
        assert answer.label == wanted["predicted"]
        assert answer.labels == (answer.label,)
        for name, share in answer.probabilities.items():
            assert share == pytest.approx(float(wanted[f"p_{name}"]), abs=1e-4)


def test_an_answer_is_a_value_with_times_and_notes(predictor, data):
    answer = predictor.predict(text="good " * 12, image=str(data / "1.png"))
    assert list(answer.milliseconds) == ["tokens", "image", "inference", "all"]
    *stages, whole = answer.milliseconds.values()
    assert 0 < sum(stages) <= whole
    assert answer.notes[0].startswith("the sentence is 14 tokens long and the model takes 12")
    assert answer.score is None
    assert json.loads(json.dumps(answer.as_json())) == {
        "label": answer.label,
        "probabilities": answer.probabilities,
        "milliseconds": answer.milliseconds,
        "notes": list(answer.notes),
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        answer.score = 1.0
    assert {"check the files", "load the model", "warm up"} < set(predictor.opening)


@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_empty_sentence_is_none(predictor, data, empty):
    with pytest.raises(InputError, match="The text is empty: give some, or leave it out"):
        predictor.predict(text=empty, image=data / "1.png")


def test_an_image_is_a_file_its_bytes_pillows_or_its_pixels(predictor, data):
    path = data / "3.png"
    content = path.read_bytes()
    forms = [path, str(path), content, bytearray(content), memoryview(content), pixels(path)]
    with Image.open(path) as image:
        forms += [image, image.convert("RGBA")]
        answers = [predictor.predict(text="a good day", image=form) for form in forms]
        image.load()  # is still open
    assert {tuple(answer.probabilities.values()) for answer in answers} == {
        tuple(answers[0].probabilities.values())
    }
    forms[-1].close()
    with pytest.raises(InputError, match="The image cannot be used: Operation on closed image"):
        predictor.predict(text="a good day", image=forms[-1])


def test_a_sentence_goes_to_the_shortest_length_that_holds_it(tiny_artifact, monkeypatch):
    lengths, infer = [], OnnxRuntime._infer

    def seen(runner, feed):
        lengths.append(feed["token_ids"].shape[1])
        return infer(runner, feed)

    monkeypatch.setattr(OnnxRuntime, "_infer", seen)
    predictor = Predictor(tiny_artifact)
    assert {6, 12} <= set(lengths), "warmed up"
    lengths.clear()
    for text in ("a", "a good", "a good sad bad happy"):
        predictor.predict(text=text)
    assert lengths == [6, 6, 12]


def test_what_is_missing_is_left_out(predictor, data):
    both = predictor.predict(text="a good day", image=data / "3.png")
    alone = predictor.predict(text="a good day")
    assert alone.probabilities != both.probabilities
    assert alone == dataclasses.replace(
        predictor.predict(text="a good day", image=None), milliseconds=alone.milliseconds
    )
    assert (predictor.takes, predictor.may_lack) == (("text", "image"), ("text", "image"))
    with pytest.raises(InputError, match=r"^text or image is wanted\.$"):
        predictor.predict()
    with pytest.raises(InputError, match="inter takes no features: leave it out"):
        predictor.predict(text="a", features={"age": 3})


def test_what_the_model_cannot_do_without_is_named(tiny_artifact, tmp_path, data):
    folder = shutil.copytree(tiny_artifact, tmp_path / "artifact")
    meta = json.loads((folder / "meta.json").read_text())
    meta["may_lack"] = ["token_ids"]
    meta["seal"] = seal_of(meta)
    (folder / "meta.json").write_text(json.dumps(meta))
    predictor = Predictor(folder)
    assert predictor.predict(image=data / "1.png").label
    with pytest.raises(
        InputError, match="inter model was given no image, and has not learned to do"
    ):
        predictor.predict(text="a good day")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"text": 5}, "The text is int"),
        ({"text": ["a", 5]}, "The text is list"),
        ({"text": {"title": "a"}}, "no column 'title'"),
        ({"image": "gone.jpg"}, r"gone\.jpg is not there"),
        ({"image": "x" * 5000}, "is not there"),
        ({"image": "."}, "is a folder"),
        ({"image": 5}, "The image is a int"),
        ({"image": b""}, r"The image cannot be used: cannot identify image file\."),
        ({"image": b"GIF89a"}, "The image cannot be used"),
        ({"image": np.zeros((4, 4), np.uint8)}, r"array uint8 \[4, 4\]: uint8 \[H, W, 3\]"),
        ({"image": np.zeros((4, 4, 3))}, r"array float64 \[4, 4, 3\]"),
        ({"image": np.zeros((0, 4, 3), np.uint8)}, r"\[0, 4, 3\]"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(predictor, given, said):
    with pytest.raises(InputError, match=said):
        predictor.predict(**given)


def test_a_bad_row_costs_its_own_answer(predictor, data):
    good = {"text": "a good day", "image": (data / "1.png").read_bytes()}
    cut = {**good, "image": good["image"][:200]}
    rows = [good, cut, {"txt": "a"}, "a", {}, good]
    first, *bad, last = predictor.predict_many(rows)
    assert first.probabilities == last.probabilities
    assert [type(error) for error in bad] == [InputError] * 4
    for error, said in zip(bad, ("cannot be used", "no 'txt'", "is a str", "wanted"), strict=True):
        assert said in str(error)


def test_what_fails_in_the_engine_is_no_answer(predictor, monkeypatch):
    def fail(runner, feed):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(OnnxRuntime, "_infer", fail)
    with pytest.raises(ArtifactError, match="OnnxRuntime failed: out of memory"):
        predictor.predict_many([{"text": "a"}])
    wrong = {"logits": np.array([[np.nan, 1]], np.float32)}
    monkeypatch.setattr(OnnxRuntime, "_infer", lambda runner, feed: wrong)
    with pytest.raises(ArtifactError, match="nan or infinite"):
        predictor.predict(text="a")


def test_what_cannot_be_opened_is_a_sentence(tiny_artifact, tmp_path):
    with pytest.raises(ArtifactError, match=r"has no int4; it has fp32, fp16, int8, int8_static"):
        Predictor(tiny_artifact, "int4")
    with pytest.raises(ArtifactError, match="no provider 'gpu', only cpu, cuda, tensorrt"):
        Predictor(tiny_artifact, provider="gpu")
    for threads in (-1, 1000, "2", 1.5):
        with pytest.raises(ArtifactError, match=r"threads is .* a number from 1 to \d+ is wanted"):
            Predictor(tiny_artifact, threads=threads)
    with pytest.raises(ArtifactError, match="is no artifact"):
        Predictor(tmp_path)
    folder = shutil.copytree(tiny_artifact, tmp_path / "artifact")
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match="not the file that was exported"):
        Predictor(folder, "int8")


# --- Threads --------------------------------------------------------------------------------------


def questions(data: Path) -> list[dict]:
    """Of every kind: files, bytes, pixels, one alone, and a picture that is none."""
    broken = Image.Exif()
    broken[0x0112] = 6
    turned = io.BytesIO()
    Image.fromarray(pixels(data / "2.png")).save(turned, "JPEG", exif=broken)
    return [
        {"text": "a good day", "image": data / "1.png"},
        {"text": "a sad day in a dull week", "image": turned.getvalue()},
        {"text": "a bad day", "image": pixels(data / "4.png")},
        {"text": "lovely"},
        {"image": data / "5.png"},
        {"text": "a good day", "image": b"no picture"},
    ]


def said(answer) -> object:
    return str(answer) if isinstance(answer, InputError) else answer.probabilities


def ask_from_threads(predictor, rows: list[dict], threads: int, count: int) -> list:
    """What `count` questions are answered with, the rows in turn."""
    barrier = threading.Barrier(threads)

    def work(thread: int) -> list:
        barrier.wait()
        turns = range(thread, count, threads)
        return [(i, said(predictor.predict_many([rows[i % len(rows)]])[0])) for i in turns]

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(work, range(threads)))
    return [answer for _, answer in sorted((pair for part in parts for pair in part), key=_first)]


def _first(pair):
    return pair[0]


def test_threads_get_the_answers_of_one(predictor, data):
    rows = questions(data)
    alone = [said(answer) for answer in predictor.predict_many(rows)]
    assert "cannot be used" in alone[-1]
    filters = list(warnings.filters)
    found = ask_from_threads(predictor, rows, threads=8, count=96)
    assert found == [alone[i % len(rows)] for i in range(96)]
    assert warnings.filters == filters


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_ten_thousand_questions_from_eight_threads_take_no_more_memory(
    tiny_artifact, data, precision
):
    predictor, rows = Predictor(tiny_artifact, precision), questions(data)
    alone = [said(answer) for answer in predictor.predict_many(rows)]
    resident = []
    for _ in range(5):
        found = ask_from_threads(predictor, rows, threads=8, count=2000)
        assert found == [alone[i % len(rows)] for i in range(2000)]
        resident.append(_resident())
    # The first two settle what allocators keep for each thread.
    assert resident[-1] < 1.02 * resident[1], resident


def _resident() -> int:
    """Kilobytes of this process in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
