"""A student learns what its teachers say of rows that they are asked about, and nothing else."""

import csv
import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from fusion_keras.config import get_config
from fusion_keras.data import edits
from fusion_keras.data.picked import Picked
from fusion_keras.data.text_columns import TextColumns
from fusion_keras.data.unlabelled import read_unlabelled
from fusion_keras.errors import UsageError
from fusion_keras.training import loop, teaching
from fusion_keras.training.evaluate import predict, probabilities
from fusion_keras.training.experiment import train
from fusion_keras.training.losses import losses_of
from fusion_keras.training.plan import make_plan
from fusion_keras.training.restored import restore
from fusion_keras.training.run import read_json
from fusion_keras.training.task import prepare
from tests.support.shared import once, slow_but
from tests.support.tiny import EDGE, Bench


@pytest.fixture(scope="module")
def taught(tiny, shared_folder) -> Bench:
    """A folder with a teacher, `teacher`: a joint model that has learned for one epoch."""

    def make(folder):
        bench = tiny.beside(folder)
        train(bench.config(**JOINT, train__epochs=1, seed=3), folder / "teacher")

    return Bench(once(shared_folder / "taught", make))


JOINT = {"variant": "inter", "fusion__junctions": "1+1:linear"}


def student(bench, **changes):
    named = {**JOINT, "teacher__runs": (str(bench.folder / "teacher"),), **changes}
    return bench.config(**named)


def lesson_of(config):
    plan = make_plan(config)
    dataset = plan.architecture.data(plan.config)
    return plan, dataset, teaching.prepare(plan, dataset)


def test_answers_are_the_teachers_probabilities_of_exactly_these_sentences_and_images(taught):
    plan, dataset, lesson = lesson_of(student(taught, teacher__pairs=3))
    teacher = restore(taught.folder / "teacher")
    rows = dataset.rows("train")
    assert len(lesson.extra) == 3 * len(rows)
    numbers = lesson.extra.numbers
    assert list(numbers["text"]) == list(np.repeat(rows, 3))
    assert set(numbers["image"]) <= set(rows)
    assert (numbers["text"] != numbers["image"]).mean() > 0.8
    pairs = {
        "token_ids": dataset.inputs["text"][numbers["text"]],
        "image": dataset.inputs["image"][numbers["image"]],
    }
    extra = predict(teacher.graph.model, pairs, np.arange(len(lesson.extra)))["logits"]
    own = predict(teacher.graph.model, teacher.arrays, rows)["logits"]
    np.testing.assert_allclose(lesson.answers[rows], probabilities(own), atol=1e-6)
    np.testing.assert_allclose(lesson.answers[len(dataset) :], probabilities(extra), atol=1e-6)
    others = np.setdiff1d(np.arange(len(dataset)), rows)
    assert not lesson.answers[others].any()
    # What the student is given is what the teacher was asked about.
    task = teaching.taught(prepare(plan, dataset), lesson)
    at = task.rows["train"][len(rows) :]
    for name, wanted in pairs.items():
        np.testing.assert_array_equal(task.arrays[name][at], wanted)


@pytest.mark.parametrize("variant", ["inter", "text"])
def test_changed_sentences_are_asked_about_as_they_are_changed(taught, tmp_path, variant):
    path = write_unlabelled(taught, tmp_path, [("w x", "")])
    changes = {"teacher__pairs": 3, "teacher__edits": 0.5, "teacher__unlabelled": str(path)}
    changes |= {} if variant == "inter" else {"variant": "text", "fusion__junctions": ""}
    plan, dataset, lesson = lesson_of(student(taught, **changes))
    rows = np.repeat(dataset.rows("train"), 3)
    assert len(lesson.extra) == len(rows) + 1
    numbers = lesson.extra.numbers["text"]
    # The unlabelled sentence is the first one behind the data set.
    assert numbers[-1] == len(dataset)
    own, changed = numbers[:-1] == rows, numbers[:-1] > len(dataset)
    assert (own | changed).all()
    assert changed.mean() > 0.5
    read = lesson.readings["text"]
    assert len(read) == 1 + changed.sum()
    before, after = dataset.inputs["text"][rows[changed]], read[1:]
    # But for what the length cuts off.
    assert (before != after).any(axis=1).mean() > 0.7
    # Half of what is changed is left out.
    assert (after != 0).sum() < (before != 0).sum()
    # Others are neighbours: what stands nowhere in a row's own sentence.
    assert np.mean([not set(new) <= {*old} for old, new in zip(before, after, strict=True)]) > 0.3
    said = f"words were changed in {changed.sum()} of {len(rows)} sentences"
    assert said in " ".join(lesson.notes)
    teacher = restore(taught.folder / "teacher")
    pool = np.concatenate([dataset.inputs["text"], read])
    images = teacher.arrays["image"][lesson.extra.numbers["image"]]
    asked = {"token_ids": pool[numbers], "image": images}
    said = predict(teacher.graph.model, asked, np.arange(len(numbers)))["logits"]
    np.testing.assert_allclose(lesson.answers[len(dataset) :], probabilities(said), atol=1e-6)
    task = teaching.taught(prepare(plan, dataset), lesson)
    at = task.rows["train"][len(dataset.rows("train")) :]
    np.testing.assert_array_equal(task.arrays["token_ids"][at], asked["token_ids"])


def test_a_sentence_that_is_tested_on_is_made_of_none(taught, monkeypatch):
    dataset = lesson_of(student(taught))[1]
    known = dataset.raw["text"][dataset.rows("test")[0]]
    made = ["another one"]
    monkeypatch.setattr(edits, "edited", lambda texts, *_: made + [known.upper()] * len(texts[1:]))
    lesson = lesson_of(student(taught, teacher__edits=0.5))[2]
    numbers = lesson.extra.numbers["text"]
    assert numbers[0] == len(dataset)
    assert (numbers[1:] < len(dataset)).all()


def test_changed_sentences_are_those_of_the_seed_whatever_was_drawn_before(taught):
    """The vectors of a preset that starts from nothing, too."""
    changes = {"teacher__edits": 0.5, "text__preset": "random:bert_tiny"}
    found = set()
    for drawn in (1, 2):
        keras.utils.set_random_seed(drawn)
        found.add(lesson_of(student(taught, **changes))[2].sha256)
    assert len(found) == 1
    assert lesson_of(student(taught, **changes, seed=9))[2].sha256 not in found


def test_sentences_none_of_which_can_be_changed_are_refused(taught, monkeypatch):
    monkeypatch.setattr(edits, "edited", lambda texts, *_: texts)
    with pytest.raises(UsageError, match=r"edits is 0.5, and none of \d+ sentences could be chan"):
        lesson_of(student(taught, teacher__edits=0.5))


def test_changed_sentences_may_have_more_unknown_words_than_rows_may(taught, monkeypatch):
    unknown = ["\u4e01 \u4e02 \u4e03"]
    monkeypatch.setattr(edits, "edited", lambda texts, *_: unknown * len(texts))
    lesson = lesson_of(student(taught, teacher__edits=0.5, text__max_unknown=0.2))[2]
    assert (lesson.extra.numbers["text"] >= len(lesson.answers) - len(lesson.extra)).all()


def test_a_label_has_its_share_and_a_row_without_one_follows_the_teacher_alone(taught):
    config = student(taught, teacher__share=0.25, teacher__pairs=1, train__label_smoothing=0.0)
    plan, dataset, lesson = lesson_of(config)
    label = teaching.taught(prepare(plan, dataset), lesson).arrays["label"]
    row = dataset.rows("train")[0]
    np.testing.assert_allclose(label[row, 0], 0.75 * np.eye(2)[dataset.labels[row]])
    np.testing.assert_allclose(label[row, 1], 0.25 * lesson.answers[row], atol=1e-6)
    np.testing.assert_allclose(label[-1], [[0, 0], lesson.answers[-1]], atol=1e-6)


def test_rows_with_labels_are_told_from_others_whatever_their_share(taught):
    plan, dataset, lesson = lesson_of(student(taught, teacher__share=1.0, teacher__pairs=1))
    by_label = teaching.taught(prepare(plan, dataset), lesson).arrays["label"][:, 0]
    assert (by_label.any(axis=1) == (np.arange(len(by_label)) < len(dataset))).all()
    assert by_label.max() < 1e-11


def test_the_loss_is_that_of_hinton_vinyals_and_dean():
    logits = np.array([[2.0, -1.0, 0.5]], np.float32)
    label, teacher = np.array([0.5, 0.0, 0.0]), 0.5 * np.array([0.2, 0.5, 0.3])
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, name="logits")])
    settings = type("Train", (), {"label_smoothing": 0.0, "score_loss": 1.0})
    model.output_names = ["logits"]
    graph = type("M", (), {"output": {"logits": 0}})
    loss = losses_of(graph, settings, temperature=2.0)["loss"]["logits"]
    plain = logits[0] - np.log(np.exp(logits[0]).sum())
    warm = logits[0] / 2 - np.log(np.exp(logits[0] / 2).sum())
    wanted = -(label @ plain) - 4 * (teacher @ warm)
    shares = np.stack([label, teacher])[None].astype(np.float32)
    assert float(loss(shares, logits)[0]) == pytest.approx(wanted, rel=1e-6)


def test_softened_answers_are_those_of_the_logits_over_the_temperature():
    logits = np.array([[2.0, -1.0, 0.5]])
    probs, warm = probabilities(logits), probabilities(logits / 3)
    np.testing.assert_allclose(teaching.softened(probs, 3.0), warm, atol=1e-6)
    assert not teaching.softened(np.zeros((1, 3)), 3.0).any()


def test_several_teachers_are_averaged_as_probabilities(taught, tmp_path):
    second = tmp_path / "second"
    shutil.copytree(taught.folder / "teacher", second)
    model = restore(second).graph.model
    model.get_layer("fusion").get_layer("logits").bias.assign([2.0, -2.0])
    bare = keras.Model({x.name: x for x in model.inputs}, model.output)
    bare.save(second / "model.keras")
    runs = (str(taught.folder / "teacher"), str(second))
    answers = [
        lesson_of(student(taught, teacher__runs=named))[2].answers
        for named in (runs[:1], runs[1:], runs)
    ]
    assert np.abs(answers[0] - answers[1]).max() > 0.1
    np.testing.assert_allclose(answers[2], (answers[0] + answers[1]) / 2, atol=1e-6)


def test_a_row_is_answered_by_those_who_have_not_learned_from_it(taught, tmp_path):
    """Two teachers of a half of the training rows each; one of all of them is not asked."""
    halves = {}
    for part in ("first", "second"):
        config = taught.config(**JOINT, train__epochs=1, data__part=part)
        halves[part] = train(config, tmp_path / part).folder
    runs = (str(halves["first"]), str(halves["second"]), str(taught.folder / "teacher"))
    _, dataset, lesson = lesson_of(student(taught, teacher__runs=runs, teacher__pairs=1))
    first = restore(halves["first"])
    train_rows = dataset.rows("train")
    own = np.isin(train_rows, first.rows["train"])
    assert 0 < own.sum() < len(own)
    rows = {"first": train_rows[~own], "second": train_rows[own]}
    for part, asked in rows.items():
        task = restore(halves[part])
        said = probabilities(predict(task.graph.model, task.arrays, asked)["logits"])
        np.testing.assert_allclose(lesson.answers[asked], said, atol=1e-6)
    # A pair goes by its sentence.
    assert len(lesson.extra) == len(own)
    assert f"{2 * len(own)} of {2 * len(own)} rows were answered by those" in " ".join(lesson.notes)
    # Also where its words are changed, by which nobody forgets it.
    _, _, lesson = lesson_of(student(taught, teacher__runs=runs, teacher__edits=0.5))
    assert (lesson.extra.numbers["text"] >= len(dataset)).any()
    assert f"{3 * len(own)} of {3 * len(own)} rows were answered by those" in " ".join(lesson.notes)
    # So does a training sentence that stands among those without a label, in whatever case.
    sentence = dataset.raw["text"][train_rows[0]].upper()
    path = write_unlabelled(taught, tmp_path, [(sentence + " ", ""), ("w", "")])
    more = {"teacher__pairs": 0, "teacher__unlabelled": str(path)}
    _, _, lesson = lesson_of(student(taught, teacher__runs=runs, **more))
    assert lesson.extra.numbers["text"].tolist() == [train_rows[0], len(dataset) + 1]
    assert f"{len(own) + 1} of {len(own) + 2} rows were" in " ".join(lesson.notes)
    # Of one half alone nobody else could be asked.
    assert not lesson_of(student(taught, teacher__runs=runs[:1]))[2].notes


def write_unlabelled(bench, folder, lines):
    with (folder / "more.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "image"), *lines])
    return folder / "more.csv"


def test_unlabelled_rows_are_completed_and_those_that_are_tested_on_left_out(taught, tmp_path):
    for name, shade in (("a.png", 10), ("b.png", 250)):
        Image.new("RGB", (EDGE, EDGE), (shade,) * 3).save(tmp_path / name)
    plan, dataset, _ = lesson_of(student(taught))
    known = dataset.raw["text"][dataset.rows("test")[0]]
    lines = [
        ("a good day", ""),
        ("", "a.png"),
        (known.upper().replace("A", "\N{FULLWIDTH LATIN CAPITAL LETTER A}"), "b.png"),
        ("bad", "b.png"),
        ("", ""),
    ]
    path = write_unlabelled(taught, tmp_path, lines)
    config = student(taught, teacher__pairs=0, teacher__unlabelled=str(path))
    plan, dataset, lesson = lesson_of(config)
    assert len(lesson.extra) == 3
    assert "1 rows of more.csv were left out: their sentences" in " ".join(lesson.notes)
    task = teaching.taught(prepare(plan, dataset), lesson)
    rows = len(dataset) + np.arange(3)
    shades = task.arrays["image"][rows][:, 0, 0, 0]
    assert list(shades[1:]) == [10, 250]
    train_rows = dataset.rows("train")
    assert any(
        (task.arrays["image"][rows[:1]] == dataset.inputs["image"][r]).all() for r in train_rows
    )
    sentence = task.arrays["token_ids"][rows[1:2]]
    assert any((sentence == dataset.inputs["text"][r]).all() for r in train_rows)


def test_an_image_that_is_tested_on_is_left_out_under_any_name(taught, tmp_path):
    _, dataset, _ = lesson_of(student(taught))
    tested = dataset.raw["image"][dataset.rows("test")[0]]
    shutil.copy(tested, tmp_path / "other_name.png")
    Image.new("RGB", (EDGE, EDGE), (7,) * 3).save(tmp_path / "new.png")
    path = write_unlabelled(taught, tmp_path, [("x y", "new.png"), ("z", "other_name.png")])
    config = student(taught, teacher__pairs=0, teacher__unlabelled=str(path))
    _, _, lesson = lesson_of(config)
    assert len(lesson.extra) == 1
    assert "1 unlabelled rows were left out: their images are among" in " ".join(lesson.notes)


def test_unlabelled_texts_are_made_as_the_manifests_are(tmp_path):
    path = tmp_path / "more.csv"
    path.write_text("title,body,age\nDune,sand,3\nnan,water,4\n,NULL,5\n", encoding="utf-8")
    text = TextColumns.of("title,body", " - ", missing=("nan", "null"))
    found = read_unlabelled(path, ["text"], text, {}, ["  WATER"], others=["age", "site"])
    assert found.records["text"].raw["text"] == ["Dune - sand"]
    notes = " ".join(found.notes)
    assert "title is empty in 2 of 3 rows" in notes
    assert "the columns age are not read" in notes
    assert "1 empty rows of more.csv were left out" in notes
    assert "1 rows of more.csv were left out: their sentences" in notes


def test_sentences_that_a_comma_cuts_are_refused(tmp_path):
    path = tmp_path / "more.csv"
    path.write_text("text\nGood\nGood, but long\nBad, but short\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"2 unusable of 3 unlabelled rows in more\.csv \(more"):
        read_unlabelled(path, ["text"], TextColumns.of("text"), {}, [])


@pytest.mark.slow
def test_a_row_that_lacks_its_image_is_asked_about_and_taught_without_one(taught, tmp_path):
    taught.beside(tmp_path)
    path = tmp_path / "data" / "manifest.csv"
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    for row in [row for row in rows if row[header.index("split")] == "train"][:5]:
        row[header.index("image")] = ""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    named = {
        **JOINT,
        "data__path": path,
        "data__incomplete": "keep",
        "fusion__stand_ins": True,
        "data__cache_dir": taught.folder / "cache",
    }
    train(taught.config(**named, train__epochs=1), tmp_path / "teacher")
    config = taught.config(**named, teacher__runs=(str(tmp_path / "teacher"),), teacher__pairs=1)
    plan, dataset, lesson = lesson_of(config)
    without = np.flatnonzero(~dataset.has("image"))
    assert len(without) == 5
    # A pair is of two rows that have all there is.
    assert not set(without) & set(np.concatenate(list(lesson.extra.numbers.values())))
    teacher = restore(tmp_path / "teacher")
    own = predict(teacher.graph.model, teacher.arrays, without)["logits"]
    np.testing.assert_allclose(lesson.answers[without], probabilities(own), atol=1e-6)
    present = teaching.taught(prepare(plan, dataset), lesson).arrays["present_image"]
    assert present[without].tolist() == [[0.0]] * 5
    assert present[np.setdiff1d(np.arange(len(present)), without)].all()


def test_a_taught_run_says_by_whom_and_is_a_model_like_any_other(taught, tmp_path):
    config = student(taught, train__epochs=1, recipe="distil")
    run = train(config, tmp_path / "run")
    description = run.read_json("config.json")
    assert list(description["teachers"]) == [str(taught.folder / "teacher")]
    assert description["extra_rows"] == 2 * description["dataset"]["counts"]["train"]
    plain = read_json(taught.folder / "teacher" / "config.json")
    assert description["parameters"] == plain["parameters"]
    assert description["inputs"] == plain["inputs"]
    # A finished run needs its teacher no more, and knows it at another place.
    config.teacher.runs = (str(tmp_path / "teacher"),)
    shutil.copytree(taught.folder / "teacher", tmp_path / "teacher")
    assert train(config, tmp_path / "run").complete
    model = tmp_path / "teacher" / "model.keras"
    model.write_bytes(model.read_bytes() + b"x")
    with pytest.raises(UsageError, match=r"other settings \(teacher.runs was"):
        train(config, tmp_path / "run")


def test_a_run_whose_teacher_has_changed_since_is_refused(taught, tmp_path):
    shutil.copytree(taught.folder / "teacher", tmp_path / "teacher")
    config = student(taught, teacher__runs=(str(tmp_path / "teacher"),), train__epochs=1)
    assert train(config, tmp_path / "run").complete
    model = tmp_path / "teacher" / "model.keras"
    model.write_bytes(model.read_bytes() + b"x")
    with pytest.raises(UsageError, match=r"model\.keras has changed since .*run was trained"):
        train(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "teacher")
    assert train(config, tmp_path / "run").complete


@pytest.mark.parametrize("variant", slow_but(["text"], ["text", "late"]))
def test_students_of_one_modality_and_frozen_ones(taught, tmp_path, variant):
    config = student(taught, variant=variant, fusion__junctions="", train__epochs=1)
    run = train(config, tmp_path / "run")
    extra = run.read_json("config.json")["extra_rows"]
    assert (extra == 0) == (variant == "text")


@pytest.mark.slow
def test_a_taught_run_goes_beside_the_one_that_is_not(taught, entries, tmp_path):
    flags = taught.flags(**JOINT, train__epochs=1, teacher__pairs=0)
    teacher = f"--teacher={taught.folder / 'teacher'}"
    done = entries.run("fusion_keras.train", *flags, teacher, f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*/inter-taught-s0/metrics.json"))) == 1


def test_a_teacher_that_is_none_is_refused(taught, tmp_path):
    with pytest.raises(UsageError, match="no_run is not a finished run: --teacher"):
        make_plan(student(taught, teacher__runs=(str(tmp_path / "no_run"),)))
    for name in ("golden.npz", "meta.json"):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match="is an artifact, which does not say what rows"):
        make_plan(student(taught, teacher__runs=(str(tmp_path),)))
    folder = str(taught.folder / "teacher")
    for again in (folder, f"{taught.folder}/data/../teacher"):
        with pytest.raises(UsageError, match="twice"):
            make_plan(student(taught, teacher__runs=(folder, again)))
    with pytest.raises(UsageError, match=r"more\.csv"):
        make_plan(student(taught, teacher__unlabelled=str(tmp_path / "more.csv")))
    names = ("positive", "negative")
    with pytest.raises(UsageError, match=r"has the classes .*, this run positive, negative"):
        make_plan(student(taught, data__manifest__classes=names))
    with pytest.raises(UsageError, match="no teacher: name finished runs with --teacher=RUN"):
        make_plan(student(taught, teacher__runs=(), teacher__share=0.9))
    with pytest.raises(UsageError, match="--framework=pytorch, whose training knows no teacher"):
        make_plan(student(taught), "pytorch")


def test_a_teacher_of_several_labels_is_refused(taught, tmp_path):
    shutil.copytree(taught.folder / "teacher", tmp_path / "several")
    description = read_json(tmp_path / "several" / "config.json") | {"label_kind": "multi"}
    (tmp_path / "several" / "config.json").write_text(json.dumps(description))
    with pytest.raises(UsageError, match="answers with several labels a row"):
        make_plan(student(taught, teacher__runs=(str(tmp_path / "several"),)))


def test_a_teacher_that_has_learned_from_a_row_of_the_test_is_refused(taught, tmp_path):
    """The same table but for one row, which was moved from train to test."""
    bench = taught.beside(tmp_path)
    path = tmp_path / "data" / "manifest.csv"
    lines = path.read_text().splitlines()
    moved = next(i for i, line in enumerate(lines) if ",train," in line)
    lines[moved] = lines[moved].replace(",train,", ",test,")
    path.write_text("\n".join(lines) + "\n")
    config = student(taught, data__path=path, data__cache_dir=bench.folder / "cache")
    with pytest.raises(UsageError, match=r"had 1 of 72 rows in another split.*'r0'"):
        lesson_of(config)


def test_a_teacher_of_other_images_is_refused(taught, tmp_path):
    bench = taught.beside(tmp_path)
    config = student(
        taught,
        data__path=tmp_path / "data" / "manifest.csv",
        data__cache_dir=bench.folder / "cache",
    )
    assert lesson_of(config)  # copies under another path
    first = lesson_of(config)[1].raw["image"][0]
    Image.new("RGB", (EDGE, EDGE), (1, 2, 3)).save(first)
    with pytest.raises(UsageError, match="with another content"):
        lesson_of(config)


def test_what_changes_between_two_sittings_is_noticed(taught, tmp_path):
    copy = tmp_path / "teacher"
    shutil.copytree(taught.folder / "teacher", copy)
    Image.new("RGB", (EDGE, EDGE), (7,) * 3).save(tmp_path / "new.png")
    path = write_unlabelled(taught, tmp_path, [("x y", "new.png"), ("z", "")])
    more = {"teacher__runs": (str(copy),), "teacher__unlabelled": str(path)}
    config = student(taught, **more, train__epochs=2)

    class Stop(Exception):
        pass

    def stop_after_one(*arguments, **options):
        ended(*arguments, **options)
        raise Stop

    ended = loop._EpochState.end_epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._EpochState, "end_epoch", stop_after_one)
        with pytest.raises(Stop):
            train(config, tmp_path / "run")
    before = json.loads((tmp_path / "run.partial" / "config.json").read_text())
    lines = path.read_bytes()
    path.write_bytes(lines + b"w,\r\n")
    with pytest.raises(UsageError, match="The table of unlabelled rows has changed since"):
        train(config, tmp_path / "run")
    path.write_bytes(lines)
    Image.new("RGB", (EDGE, EDGE), (8,) * 3).save(tmp_path / "new.png")
    with pytest.raises(UsageError, match="What the rows of the teacher show has changed since"):
        train(config, tmp_path / "run")
    Image.new("RGB", (EDGE, EDGE), (7,) * 3).save(tmp_path / "new.png")
    restore(copy).graph.model.save(copy / "model.keras")
    with pytest.raises(UsageError, match="A teacher has changed since"):
        train(config, tmp_path / "run")
    assert json.loads((tmp_path / "run.partial" / "config.json").read_text()) == before


def test_rows_are_picked_from_several_arrays():
    first, second = np.arange(6).reshape(3, 2), np.arange(100, 104).reshape(2, 2)
    picked = Picked((first, second), np.array([4, 0, 2, 3]))
    assert len(picked) == 4
    assert picked[[0, 1, 2, 3]].tolist() == [[102, 103], [0, 1], [4, 5], [100, 101]]
    assert picked[np.array([1])].tolist() == [[0, 1]]


def test_unlabelled_rows_without_what_the_student_takes_are_left_out(taught, tmp_path):
    Image.new("RGB", (EDGE, EDGE), (7,) * 3).save(tmp_path / "new.png")
    path = write_unlabelled(taught, tmp_path, [("x y", ""), ("z", "new.png")])
    named = {"variant": "image", "fusion__junctions": "-+1:concat"}
    _, _, lesson = lesson_of(student(taught, teacher__unlabelled=str(path), **named))
    assert len(lesson.extra) == 1
    assert "1 unlabelled rows were left out: they have nothing" in " ".join(lesson.notes)

    path = write_unlabelled(taught, tmp_path, [("x y", "")])
    with pytest.raises(UsageError, match=r"No row of config\.teacher\.unlabelled can be used"):
        lesson_of(student(taught, teacher__unlabelled=str(path), **named))


def test_rows_that_a_teacher_would_answer_for_what_nobody_sees_are_left_out(taught, tmp_path):
    Image.new("RGB", (EDGE, EDGE), (7,) * 3).save(tmp_path / "new.png")
    teacher = taught.config(variant="text", fusion__junctions="1+-:concat", train__epochs=1)
    train(teacher, tmp_path / "text")
    path = write_unlabelled(taught, tmp_path, [("", "new.png"), ("z", "new.png")])
    named = {"variant": "image", "fusion__junctions": "-+1:concat"}
    by = {"teacher__runs": (str(tmp_path / "text"),), "teacher__unlabelled": str(path)}
    _, _, lesson = lesson_of(student(taught, **named, **by))
    assert len(lesson.extra) == 1
    assert "have nothing that a teacher takes" in " ".join(lesson.notes)


def test_unlabelled_sentences_that_the_vocabulary_does_not_know_are_refused(taught, tmp_path):
    path = write_unlabelled(taught, tmp_path, [("\N{CYRILLIC SMALL LETTER ZHE} a", ""), ("z", "")])
    config = student(taught, teacher__unlabelled=str(path), text__max_unknown=0.1)
    with pytest.raises(UsageError, match=r"of the unlabelled texts .* more\.csv line 2"):
        lesson_of(config)
    config.text.max_unknown = 0.9
    _, _, lesson = lesson_of(config)
    assert "unlabelled rows: unknown to the vocabulary" in " ".join(lesson.notes)


def test_unlabelled_images_that_cannot_be_read_are_told(taught, tmp_path):
    Image.new("RGB", (EDGE, EDGE), (7,) * 3).save(tmp_path / "new.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    path = write_unlabelled(taught, tmp_path, [("x", "broken.png"), ("z", "new.png")])
    _, _, lesson = lesson_of(student(taught, teacher__pairs=0, teacher__unlabelled=str(path)))
    assert len(lesson.extra) == 1
    assert "1 unlabelled rows were left out: their images cannot be read" in " ".join(lesson.notes)


def test_a_run_of_unlabelled_rows_that_have_changed_since_is_refused(taught, tmp_path):
    path = write_unlabelled(taught, tmp_path, [("x y", ""), ("z", "")])
    config = student(taught, teacher__pairs=0, teacher__unlabelled=str(path), train__epochs=1)
    run = train(config, tmp_path / "run").folder
    assert train(config, run).folder == run
    write_unlabelled(taught, tmp_path, [("x y", ""), ("z", ""), ("w", "")])
    with pytest.raises(UsageError, match=r"more\.csv has changed since .*run was trained"):
        train(config, run)


def test_what_the_teachers_alone_take_goes_with_what_the_student_sees():
    """Of a student of images and sounds its teachers get the sentence of its images' rows."""

    class Six:
        def has(self, modality):
            return np.ones(6, bool)

        def __len__(self):
            return 6

    config = get_config()
    config.variant, config.fusion.modalities, config.teacher.pairs = "late", "image+audio", 5
    taken = ["image", "audio", "text"]
    extra, *_ = teaching._extra(config, Six(), np.arange(6), None, np.empty(0, int), taken)
    numbers = extra.numbers
    assert numbers["text"].tolist() == numbers["image"].tolist() == np.repeat(range(6), 5).tolist()
    assert (numbers["audio"] != numbers["image"]).any()
