"""What a student learns from its teachers: which rows they are asked about, and their answers.

Knowledge distillation (Hinton, Vinyals and Dean 2015, arXiv 1503.02531, section 2), with answers
that are worked out once and kept. Teachers are asked about the training rows; about the same
sentences with other rows' images (sounds, ...), as many as wanted, words of which may be changed;
and about rows of the user's that have no label. Nothing of it is left in the model.

Answers are the mean of the teachers' probabilities; where some of them have not learned from a row
(runs of `config.data.part` first and second), of these alone. Training rows are asked as they are,
also where the student sees them augmented.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fusion_keras.data import edits
from fusion_keras.data.cache import cache_dir
from fusion_keras.data.leaks import NOUNS, array_keys, sentence_keys
from fusion_keras.data.modalities import INPUT_OF, MODALITIES, PRESENT, TAP_OF
from fusion_keras.data.picked import Picked
from fusion_keras.data.records import Dataset, Reading, Records
from fusion_keras.data.unlabelled import Unlabelled, evaluated_texts
from fusion_keras.errors import UsageError
from fusion_keras.fusion.architectures import FUSION
from fusion_keras.modalities import MODALITY
from fusion_keras.training import devices, teacher_answers, teachers
from fusion_keras.training.plan import Plan
from fusion_keras.training.restored import config_of
from fusion_keras.training.task import Task, part_of_rows, set_up_keras
from fusion_keras.training.teacher_answers import Extra, Question

# Share of a label that counts for nothing and is not 0.
_LEAST = 1e-12
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What the teachers say.

    Attributes:
        extra: the rows beside those of the data set.
        readings: modality -> the student's input of each unlabelled row that has it, and of the
            changed sentences.
        answers: float32 [N + E, C], probabilities; of rows that nobody was asked about, zeros.
        taps: modality -> float32 [N + E, D + 1], the first teacher's deepest tap of it, pooled
            and standardised, and 1; of rows that it was not asked about, zeros.
        notes: sentences on what was asked.
        sha256: of what the student is shown beside its own rows.
    """

    extra: Extra
    readings: Mapping[str, np.ndarray]
    answers: np.ndarray
    taps: Mapping[str, np.ndarray]
    notes: tuple[str, ...]
    sha256: str


@devices.by_itself()
def prepare(plan: Plan, dataset: Dataset) -> Lesson | None:
    """Ask the teachers of a plan; None where it has none.

    Before the student is built, since each model that is loaded sets what is random anew.

    Raises:
        UsageError: a teacher that does not fit or that cannot be asked, or a file of unlabelled
            rows that cannot be used.
    """
    if not plan.teachers:
        return None
    config = plan.config
    models = [FUSION.readers(config), *(_readers(folder, config) for folder in plan.teachers)]
    taken = [m for m in MODALITIES if any(m in readers for readers in models)]
    # Those of the student first.
    taken.sort(key=lambda m: m not in models[0])
    unlabelled, notes = None, []
    if config.teacher.unlabelled:
        unlabelled = teachers.unlabelled_of(config, taken, evaluated_texts(dataset))
        notes += unlabelled.notes
    folder = cache_dir(config.data.cache_dir)
    readings = [_read(readers, unlabelled, folder) for readers in models]
    # Of a teacher with nothing in common the student sees no more than what a row itself has.
    apart = [mine for mine, of in zip(readings, models, strict=True) if not of.keys() & models[0]]
    usable, said = _usable(unlabelled, readings, apart, dataset)
    notes += said
    for reading in readings[0].values():
        notes += [f"unlabelled rows: {n}" for n in reading.notes if n not in dataset.notes]
    train = part_of_rows(plan, dataset)["train"]
    extra, sentences, said = _extra(config, dataset, train, unlabelled, usable, taken)
    notes += said
    question = Question(dataset, train, extra)
    own, *of_teachers = (
        _with_sentences(reading, readers, sentences, folder)
        for reading, readers in zip(readings, models, strict=True)
    )
    asked = []
    for (run, model), values in zip(plan.teachers.items(), of_teachers, strict=True):
        _log.info("Asking the teacher %s about %d rows.", run, len(question))
        asked.append(teacher_answers.asked(run, model, question, values, folder))
    said, count = teacher_answers.together(asked)
    if count:
        notes.append(
            f"{count} of {len(question)} rows were answered by those teachers alone that have not "
            "learned from them"
        )
    at = np.concatenate([train, len(dataset) + np.arange(len(extra))])

    def placed(rows: np.ndarray) -> np.ndarray:
        every = np.zeros((len(dataset) + len(extra), rows.shape[1]), np.float32)
        every[at] = rows
        return every

    taps = {}
    if config.teacher.taps:
        of_first = teacher_answers.taps_of(
            *next(iter(plan.teachers.items())), question, of_teachers[0], folder
        )
        taken = FUSION.modalities(config)
        taps = {
            m: placed(teacher_answers.standardised(x)) for m, x in of_first.items() if m in taken
        }
    sha256 = teacher_answers.key_of("student", "", question, own)
    return Lesson(extra, own, placed(said), taps, tuple(notes), sha256)


def taught(task: Task, lesson: Lesson) -> Task:
    """The task with the further rows behind those of the data set, and what all are to say.

    `label` becomes float32 [N + E, 2, C]: the share of the loss of each class, by its label and by
    the teachers; see `losses.losses_of`.
    """
    teacher, count, extra = task.config.teacher, len(task.dataset), lesson.extra
    arrays = {}
    for modality in task.spec.modalities:
        pool = [task.arrays[INPUT_OF[modality]]]
        if modality in lesson.readings:
            pool.append(lesson.readings[modality])
        numbers = np.concatenate([np.arange(count), extra.numbers[modality]])
        arrays[INPUT_OF[modality]] = Picked(tuple(pool), numbers)
        if task.spec.stand_ins:
            # An unlabelled row is completed by what a training row has.
            pool = (task.arrays[PRESENT[modality]], np.ones((len(pool[-1]), 1), np.float32))
            arrays[PRESENT[modality]] = Picked(pool, numbers)
    classes = len(task.dataset.classes)
    smoothing = task.config.train.label_smoothing
    labels = np.eye(classes, dtype=np.float32)[task.dataset.labels]
    by_label = np.zeros((count + len(extra), classes), np.float32)
    # Never 0, which tells the rows that teachers alone answer.
    share = max(1 - teacher.share, _LEAST)
    by_label[:count] = share * ((1 - smoothing) * labels + smoothing / classes)
    by_teacher = softened(lesson.answers, teacher.temperature)
    by_teacher[:count] *= teacher.share
    arrays["label"] = np.stack([by_label, by_teacher], axis=1)
    arrays |= {TAP_OF[modality]: tap for modality, tap in lesson.taps.items()}
    train = np.concatenate([task.rows["train"], count + np.arange(len(extra))])
    return dataclasses.replace(task, arrays=arrays, rows={**task.rows, "train": train})


def softened(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities [N, C] as a softmax of the same logits over a temperature; zeros stay zeros."""
    raised = probs.astype(np.float64) ** (1 / temperature)
    return (raised / np.maximum(raised.sum(-1, keepdims=True), 1e-30)).astype(np.float32)


def _readers(teacher: Path, config) -> dict:
    """A teacher's, for which as much may be unknown as for its student."""
    theirs = config_of(teacher)
    theirs.text.max_unknown = config.text.max_unknown
    return FUSION.readers(theirs)


def _read(readers, unlabelled: Unlabelled | None, folder: Path) -> dict[str, Reading]:
    """Modality -> a model's input of each unlabelled row that has it."""
    if unlabelled is None:
        return {}
    return {
        m: reader.read(unlabelled.records[m], folder)
        for m, reader in readers.items()
        if m in unlabelled.records
    }


def _usable(
    unlabelled: Unlabelled | None,
    readings: list[dict[str, Reading]],
    apart: list[dict[str, Reading]],
    dataset: Dataset,
) -> tuple[np.ndarray, list[str]]:
    """The unlabelled rows whose files every model can use, int64, and what is to be said.

    Those with a file that the student is validated or tested on are left out, as `read_unlabelled`
    does with sentences, and those that have nothing of what it takes, or of what one of `apart`
    does.

    Args:
        readings: of the student, then of the teachers.
        apart: of the teachers that take nothing that the student takes.

    Raises:
        UsageError: none is left.
    """
    if unlabelled is None:
        return np.empty(0, np.int64), []
    usable, notes = np.ones(len(unlabelled), bool), []
    for of_one in (readings[0], *apart):
        shown = [unlabelled.place[m] >= 0 for m in of_one]
        has = np.any(shown, axis=0) if shown else np.zeros(len(unlabelled), bool)
        if (usable & ~has).any():
            # Completed by a training row, they would be answered for what is not seen.
            who = "this run" if of_one is readings[0] else "a teacher"
            notes.append(
                f"{(usable & ~has).sum()} unlabelled rows were left out: they have nothing that "
                f"{who} takes"
            )
        usable &= has
    for modality, place in unlabelled.place.items():
        broken = np.zeros(len(unlabelled), bool)
        for reading in (of_one[modality] for of_one in readings if modality in of_one):
            if reading.usable is not None:
                has = place >= 0
                broken[has] |= ~reading.usable[place[has]]
        if (usable & broken).any():
            notes.append(
                f"{(usable & broken).sum()} unlabelled rows were left out: their "
                f"{NOUNS[modality][1]} cannot be read"
            )
            usable &= ~broken
    evaluated = np.concatenate([dataset.rows(split) for split in ("valid", "test")])
    for modality, reading in readings[0].items():
        if modality == "text":
            continue
        known = set(
            array_keys(dataset.inputs[modality][evaluated], dataset.has(modality)[evaluated])
        )
        seen = np.array([key in known for key in array_keys(reading.values)])
        place = unlabelled.place[modality]
        leaves = usable & (place >= 0) & seen[place]
        if leaves.any():
            usable &= ~leaves
            notes.append(
                f"{leaves.sum()} unlabelled rows were left out: their {NOUNS[modality][1]} are "
                "among those that this run is validated or tested on"
            )
    if not usable.any():
        raise UsageError(
            f"No row of config.teacher.unlabelled can be used ({'; '.join(notes)}): give another "
            "file, or leave it out."
        )
    return np.flatnonzero(usable), notes


def _extra(config, dataset, train, unlabelled, usable, taken) -> tuple[Extra, list[str], list[str]]:
    """Pairs of training rows, then the unlabelled rows, completed by training rows; the sentences
    that stand behind those of the unlabelled rows; and what is to be said of them."""
    rng = np.random.default_rng(config.seed)
    whole = train[np.all([dataset.has(m)[train] for m in taken], axis=0)]
    if not len(whole):
        if len(usable):
            raise UsageError(
                f"config.teacher.unlabelled is set, and no training row has all of "
                f"{', '.join(taken)}, to complete its rows with: leave it out."
            )
        return Extra(dict.fromkeys(taken, whole), whole), [], []
    seen = [m for m in taken if m in FUSION.modalities(config)]
    changes = config.teacher.edits > 0 and "text" in seen
    own = np.repeat(whole, config.teacher.pairs if len(seen) > 1 or changes else 0)
    other, completing = rng.choice(whole, len(own)), rng.choice(whole, len(usable))
    numbers, sentences, notes, known = {}, [], [], None
    named = "text" if "text" in taken else taken[0]
    for modality in taken:
        drawn = completing
        if unlabelled is not None and modality in unlabelled.place:
            place = unlabelled.place[modality][usable]
            drawn = np.where(place >= 0, len(dataset) + place, completing)
            if modality == "text":
                drawn = _known_sentences(drawn, dataset, train, unlabelled)
        # The first that the student takes, the sentence where it does, stays, and with it what its
        # teachers alone take; all others are of one other row.
        pair = other if modality in seen[1:] else own
        numbers[modality] = np.concatenate([pair, drawn])
        if modality == named:
            known = np.where(numbers[modality] < len(dataset), numbers[modality], -1)
        if changes and modality == "text":
            there = unlabelled.records.get("text", ()) if unlabelled else ()
            pair, sentences, notes = _edited(config, dataset, own, len(dataset) + len(there))
            numbers[modality][: len(own)] = pair
    return Extra(numbers, known), sentences, notes


def _edited(config, dataset, rows: np.ndarray, behind: int) -> tuple[np.ndarray, list, list]:
    """The numbers of the rows' sentences, words of which are changed, these sentences, and notes.

    Where nothing has changed, or it is now one that the student is validated or tested on, a
    sentence stays what it was.

    Args:
        behind: the number of the first changed one.

    Raises:
        UsageError: none could be changed.
    """
    texts = [dataset.raw["text"][row] for row in rows]
    tokenizer = FUSION.readers(config)["text"].tokenizer
    # Vectors of a preset that starts from nothing are to be the same in every process.
    set_up_keras(config)
    near = edits.neighbours(set(texts), tokenizer, MODALITY["text"].word_vectors(config))
    made = edits.edited(texts, config.teacher.edits, near, np.random.default_rng([config.seed, 1]))
    keys, known = sentence_keys(made), {*sentence_keys(evaluated_texts(dataset))}
    pairs = zip(keys, sentence_keys(texts), strict=True)
    changed = np.flatnonzero([new != old and new not in known for new, old in pairs])
    if not len(changed):
        raise UsageError(
            f"config.teacher.edits is {config.teacher.edits}, and none of {len(rows)} sentences "
            f"could be changed (the first: {texts[0][:40]!r}): words are what spaces are between; "
            "leave it out."
        )
    notes = [
        f"words were changed in {len(changed)} of {len(rows)} sentences that teachers answered"
    ]
    if not near:
        notes.append("no word has neighbours in the vocabulary: words were left out, none replaced")
    numbers = rows.copy()
    numbers[changed] = behind + np.arange(len(changed))
    return numbers, [made[n] for n in changed], notes


def _with_sentences(
    readings: Mapping[str, Reading], readers: Mapping, sentences: list[str], folder: Path
) -> dict[str, np.ndarray]:
    """Modality -> a model's input of the unlabelled rows, and behind them of further sentences."""
    values = {m: reading.values for m, reading in readings.items()}
    if sentences and "text" in readers:
        records = Records(
            name="edited",
            ids=[f"changed sentence {n}" for n in range(1, len(sentences) + 1)],
            splits=None,
            raw={"text": sentences},
            labels=np.full(len(sentences), -1, np.int32),
            classes=(),
        )
        # What is made of readable rows is read, however few of its words a vocabulary knows.
        reader = dataclasses.replace(readers["text"], max_unknown=1.0)
        read = reader.read(records, folder).values
        values["text"] = np.concatenate([values["text"], read]) if "text" in values else read
    return values


def _known_sentences(
    numbers: np.ndarray, dataset: Dataset, train: np.ndarray, unlabelled: Unlabelled
) -> np.ndarray:
    """Numbers as in `Extra`, of an unlabelled sentence that is a training row's that row's: what a
    teacher knows by heart it knows here, too."""
    keys = sentence_keys([dataset.raw["text"][row] for row in train])
    row_of = dict(zip(keys, train.tolist(), strict=True))
    row_of.pop(None, None)
    said = sentence_keys(unlabelled.records["text"].raw["text"])
    behind = len(dataset)
    found = [row_of.get(said[n - behind], n) if n >= behind else n for n in numbers.tolist()]
    return np.array(found, np.int64)
