"""Arrays whose rows are made, or taken by their numbers, only when they are asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Column:
    """[count, ...] of which only the rows that are asked for are ever made.

    For training and evaluation what a numpy array is: `column[rows]` is a batch [B, ...].
    """

    count: int
    make: Callable[[int], np.ndarray]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: Sequence[int]) -> np.ndarray:
        """The given rows, at least one."""
        return np.stack([self.make(int(row)) for row in rows])


@dataclasses.dataclass(frozen=True)
class Picked:
    """[n, ...], rows of several arrays by their numbers, none of which is copied before it is
    asked for. For training and evaluation what a numpy array is, as a `Column` is.

    Attributes:
      arrays: each [N_i, ...], of one shape and type but for N_i.
      numbers: int64 [n], of rows, counted through all arrays.
    """

    arrays: tuple[np.ndarray | Column, ...]
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, ...)"""
        return (len(self), *self.arrays[0].shape[1:])

    def select(self, rows: np.ndarray) -> Picked:
        """The given rows of these."""
        return Picked(self.arrays, self.numbers[rows])

    def __getitem__(self, rows: Sequence[int] | int) -> np.ndarray:
        if np.ndim(self.numbers[rows]) == 0:
            return self[[rows]][0]
        numbers = self.numbers[rows]
        ends = np.cumsum([len(array) for array in self.arrays])
        whose = np.searchsorted(ends, numbers, side="right")
        values = None
        for i in np.unique(whose):
            here = np.flatnonzero(whose == i)
            array = self.arrays[i]
            taken = array[numbers[here] - (ends[i] - len(array))]
            if values is None:
                values = np.empty((len(numbers), *taken.shape[1:]), taken.dtype)
            values[here] = taken
        return values


def of_each(
    values: np.ndarray | Picked, there: np.ndarray, make: Callable[[np.ndarray], Hashable]
) -> list:
    """What `make` gives of each row of [N, ...]; None where nothing is there, bool [N].

    Of rows that are picked of one array each is looked at once.
    """
    if isinstance(values, Picked) and len(values.arrays) == 1:
        used = np.unique(values.numbers[there])
        made = {n: make(np.ascontiguousarray(values.arrays[0][n])) for n in used.tolist()}
        numbers = values.numbers.tolist()
        return [made[n] if is_there else None for n, is_there in zip(numbers, there, strict=True)]
    return [
        make(np.ascontiguousarray(row)) if is_there else None
        for row, is_there in zip(values, there, strict=True)
    ]
