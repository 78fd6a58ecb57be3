"""Trials that are seen through side by side: a place for each, and quiet while one is measured.

A latency is that of a machine which does nothing else. So the processes of all trials stand still
(SIGSTOP) for the seconds in which one of them is measured.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from fusion_keras import jobs
from fusion_keras.searching.away import Away
from fusion_keras.searching.converter import Converter


class EndedError(BaseException):
    """The search ends; what a trial was at is gone on with by the next one. No error of a trial."""


@dataclass(frozen=True)
class Place:
    """Where a trial is seen through.

    Attributes:
        crew: which it belongs to.
        share: the cores and the GPU that its training has.
        converter: makes its drafts.
    """

    crew: Crew
    share: jobs.Share
    converter: Converter


class Crew:
    """A context of as many places, which ends their processes with it.

    Attributes:
        whole: a place that is the whole machine, for what is done while there are no trials.
        away: the nodes that train instead of this machine, if any.
    """

    def __init__(self, count: int = 1, away: Away | None = None):
        """
        Args:
            count: trials at a time; with nodes this machine has fewer places, which a trial
                has only while it is not trained.
            away: the nodes.
        """
        self.away, at_a_time = away, count
        if away:
            count = jobs.count_of("auto", count)
        self._ended, self._still = False, False
        # Of processes that lead a group, or will: whether they go on while one is measured.
        self._processes: dict[int, bool] = {}
        self._changes, self._measuring = threading.Lock(), threading.Lock()
        places = [Place(self, s, Converter(self.member, s)) for s in jobs.shares(count)]
        self.whole = Place(self, jobs.shares(1)[0], places[0].converter)
        self._places, self._free, self._freed = places, list(places), threading.Condition()
        self._threads = ThreadPoolExecutor(at_a_time)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_) -> None:
        with self._changes:
            self._ended = True
            for pid in self._processes:
                _tell(pid, signal.SIGKILL)
        self._threads.shutdown(cancel_futures=True)
        for place in self._places:
            place.converter.end()

    def check(self) -> None:
        """
        Raises:
            EndedError: the crew has ended.
        """
        if self._ended:
            raise EndedError

    def begin(self, call: Callable, *arguments) -> Future:
        """Have `call(place, *arguments)` done, at a place that nobody else has, as soon as there is
        one."""

        def done():
            place = self._taken()
            try:
                self.check()
                return call(place, *arguments)
            finally:
                self._give(place)

        return self._threads.submit(done)

    @contextlib.contextmanager
    def lent(self, place: Place) -> Iterator[None]:
        """Inside, others may have a place that `begin` gave; behind it the same one is had again,
        as soon as it is free."""
        if place is self.whole:
            yield
            return
        self._give(place)
        try:
            yield
        finally:
            self._taken(place)

    def _taken(self, wanted: Place | None = None) -> Place:
        with self._freed:
            self._freed.wait_for(lambda: wanted in self._free if wanted else self._free)
            place = wanted or self._free[0]
            self._free.remove(place)
            return place

    def _give(self, place: Place) -> None:
        with self._freed:
            self._free.append(place)
            self._freed.notify_all()

    @contextlib.contextmanager
    def member(self, pid: int, measures: bool = False) -> Iterator[None]:
        """A process is of the crew inside.

        Args:
            pid: of it; it leads a group, or will.
            measures: whether it goes on while one is measured.
        """
        with self._changes:
            self._processes[pid] = measures
            if self._ended:
                _tell(pid, signal.SIGKILL)
            elif self._still and not measures:
                _tell(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with self._changes:
                del self._processes[pid]

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Inside, all processes of the crew stand still but those that measure; one thread at a
        time is inside.

        Raises:
            EndedError: the crew has ended.
        """
        with self._measuring:
            self._stand(still=True)
            try:
                self.check()
                yield
            finally:
                self._stand(still=False)

    def _stand(self, *, still: bool) -> None:
        with self._changes:
            self._still = still
            for pid in (pid for pid, measures in self._processes.items() if not measures):
                _tell(pid, signal.SIGSTOP if still else signal.SIGCONT)


class Line:
    """What all trials under way are doing, as one line."""

    def __init__(self, say: Callable[[str], None]):
        self._say, self._doing, self._lock = say, {}, threading.Lock()

    def of(self, key: str) -> Callable[[str], None]:
        """What one of them says goes here; "" when it has ended."""

        def say(line: str) -> None:
            with self._lock:
                self._doing.pop(key, None)
                if line:
                    self._doing[key] = line
                self._say("  |  ".join(self._doing.values()))

        return say


def _tell(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and what it has started; to itself, as long as it leads no group
    yet; to nobody, where it is gone."""
    with contextlib.suppress(ProcessLookupError):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            os.kill(pid, number)
