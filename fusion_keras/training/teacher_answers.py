"""What teachers say of a question: probabilities and taps, worked out once and kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np

from fusion_keras.data.cache import cached_array, content_key
from fusion_keras.data.modalities import INPUT_OF, PRESENT
from fusion_keras.data.picked import Picked
from fusion_keras.data.records import Dataset
from fusion_keras.fusion.architectures import FUSION
from fusion_keras.fusion.graph import rebuilt
from fusion_keras.training import teachers
from fusion_keras.training.auxiliary import pooled_taps
from fusion_keras.training.evaluate import predict, probabilities
from fusion_keras.training.restored import load_model, restore
from fusion_keras.training.run import read_json
from fusion_keras.training.task import Task

_ROWS_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True)
class Extra:
    """E further rows, put together of the rows that there are.

    Attributes:
        numbers: modality -> int64 [E], a row of the data set, or N and more for one of the
            unlabelled rows that have this modality; behind those of text come changed sentences.
        known: int64 [E], the row of the data set that a teacher may know each one by: of its
            sentence, also where that is changed, or without any of what comes first; else -1.
    """

    numbers: Mapping[str, np.ndarray]
    known: np.ndarray

    def __len__(self) -> int:
        return len(self.known)


@dataclasses.dataclass(frozen=True)
class Question:
    """What a teacher is asked about.

    Attributes:
        dataset: the student's.
        train: int64 [n], the rows of it that the student learns on.
        extra: the rows beside them.
    """

    dataset: Dataset
    train: np.ndarray
    extra: Extra

    def __len__(self) -> int:
        return len(self.train) + len(self.extra)

    def numbers(self, modality: str) -> np.ndarray:
        """int64 [n + E], as in `Extra`."""
        return np.concatenate([self.train, self.extra.numbers[modality]])


def together(asked: list[np.ndarray]) -> tuple[np.ndarray, int]:
    """The mean answer float32 [n + E, C], and how many rows some teachers were not asked about.

    A teacher says of what it has learned what it was told. Where others have not learned from a
    row, they alone answer (out of fold: Wolpert 1992, Stacked generalization, section 2).

    Args:
        asked: of each teacher, see `asked`.
    """
    answers = np.stack([of_one[:, :-1] for of_one in asked])  # [R, n + E, C]
    fresh = np.stack([of_one[:, -1] for of_one in asked])  # [R, n + E]
    some = fresh.any(axis=0) & ~fresh.all(axis=0)
    weights = np.where(some, fresh, 1.0)
    weights /= weights.sum(axis=0)
    return np.einsum("rn,rnc->nc", weights, answers), int(some.sum())


def asked(
    run: Path,
    model: str,
    question: Question,
    values: Mapping[str, np.ndarray],
    folder: Path,
) -> np.ndarray:
    """A teacher's probabilities, and whether it has not learned from the row.

    float32 [n + E, C + 1]. Kept under what they are worked out from.

    Args:
        model: sha256 of the teacher's model.
        values: modality -> its input of each unlabelled row that has it, and of changed sentences.
    """
    dataset = question.dataset

    def build(notes: dict) -> Iterator[np.ndarray]:
        task = restore(run)
        place = teachers.rows_of(run, task.dataset, dataset)
        arrays = _inputs(task, place, question, values)
        known = np.concatenate([question.train, question.extra.known])
        in_data = known >= 0
        fresh = np.ones((len(question), 1), np.float32)
        fresh[in_data, 0] = ~np.isin(place[known[in_data]], teachers.learned(run, task))
        for rows in _pieces(len(question)):
            probs = probabilities(predict(task.graph.model, arrays, rows)["logits"])
            yield np.concatenate([probs, fresh[rows]], axis=1)

    key = key_of("teacher 4", model, question, values)
    shape = (len(question), len(dataset.classes) + 1)
    return cached_array(folder, key, shape, np.float32, build)[0]


def taps_of(
    run: Path, model: str, question: Question, values: Mapping[str, np.ndarray], folder: Path
) -> dict[str, np.ndarray]:
    """Modality -> a teacher's deepest tap of it, pooled, float32 [n + E, D]; see `asked`."""
    spec = FUSION.from_dict(read_json(run / "config.json")["spec"])
    taps = pooled_taps(rebuilt(load_model(run), spec), spec)

    def build(notes: dict) -> Iterator[np.ndarray]:
        task = restore(run)
        place = teachers.rows_of(run, task.dataset, question.dataset)
        arrays = _inputs(task, place, question, values)
        for rows in _pieces(len(question)):
            yield np.concatenate([predict(taps, arrays, rows)[m] for m in spec.modalities], axis=1)

    ends = np.cumsum([taps.output[m].shape[1] for m in spec.modalities])
    key = key_of("teacher taps 1", model, question, values)
    every = cached_array(folder, key, (len(question), int(ends[-1])), np.float32, build)[0]
    return dict(zip(spec.modalities, np.split(every, ends[:-1], axis=1), strict=True))


def standardised(taps: np.ndarray) -> np.ndarray:
    """[n, D] with a mean of 0 and a deviation of 1 in each column, and a column of ones.

    An error of 1 is then that of knowing nothing of a row, whatever the backbone.
    """
    spread = np.maximum(taps.std(axis=0, dtype=np.float64), 1e-6)
    scaled = (taps - taps.mean(axis=0, dtype=np.float64)) / spread
    return np.concatenate([scaled, np.ones((len(taps), 1))], axis=1)


def key_of(kind: str, model: str, question: Question, values: Mapping[str, np.ndarray]) -> str:
    """Of what is worked out from the rows of a question; the arguments as in `asked`."""
    contents = {m: _digest(x) for m, x in values.items()}
    numbers = {m: question.numbers(m).tolist() for m in question.extra.numbers}
    return content_key(kind, model, question.dataset.fingerprint, numbers, contents)


def _digest(values: np.ndarray | Picked) -> str:
    """sha256 of an array's bytes, of which a piece at a time is looked at."""
    made = sha256()
    for rows in _pieces(len(values)):
        made.update(np.ascontiguousarray(values[rows]))
    return made.hexdigest()


def _pieces(count: int) -> Iterator[np.ndarray]:
    for start in range(0, count, _ROWS_AT_ONCE):
        yield np.arange(start, min(start + _ROWS_AT_ONCE, count))


def _inputs(
    task: Task, place: np.ndarray, question: Question, values: Mapping[str, np.ndarray]
) -> dict[str, Picked]:
    """A teacher's inputs of the rows of a question; see `_theirs`."""
    arrays = {}
    for m in task.spec.modalities:
        name, more = INPUT_OF[m], values.get(m)
        arrays[name] = _theirs(task.arrays[name], question.numbers(m), place, more)
        if task.spec.stand_ins:
            name, more = PRESENT[m], None if more is None else np.ones((len(more), 1), np.float32)
            arrays[name] = _theirs(task.arrays[name], question.numbers(m), place, more)
    return arrays


def _theirs(rows, numbers: np.ndarray, place: np.ndarray, unlabelled) -> Picked:
    """A teacher's input of the rows that the student's numbers name.

    Args:
        rows: of its data set; unlabelled: of the rows behind that, or None.
        place: where each of the student's rows stands in it.
    """
    pool = (rows,) if unlabelled is None else (rows, unlabelled)
    of_data = numbers < len(place)
    # Behind a data set come the unlabelled rows.
    theirs = numbers - len(place) + len(rows)
    theirs[of_data] = place[numbers[of_data]]
    return Picked(pool, theirs)
