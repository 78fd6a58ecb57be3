"""A crew: places side by side, quiet while one is measured, and an end for all."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fusion_keras.searching.crew import Crew, EndedError

COUNTS = "import itertools, sys, time\nfor n in itertools.count():\n" + (
    "    open(sys.argv[1], 'w').write(str(n)); time.sleep(0.01)"
)
# It starts one that counts, and counts itself.
BOTH = (
    "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', sys.argv[2], sys.argv[1]])\n"
)


@pytest.fixture
def started(tmp_path):
    processes = []

    def start(name, code=COUNTS):
        file = tmp_path / name
        command = [sys.executable, "-c", code, str(file), COUNTS]
        processes.append(subprocess.Popen(command, start_new_session=True))
        waited(file.is_file)
        return processes[-1], file

    yield start
    for process in processes:
        for number in (signal.SIGCONT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        process.wait()


def waited(call, seconds=30.0):
    end = time.monotonic() + seconds
    while not call():
        assert time.monotonic() < end
        time.sleep(0.01)


def goes_on(file: Path) -> bool:
    before, end = file.read_text(), time.monotonic() + 0.5
    while time.monotonic() < end:
        if file.read_text() != before:
            return True
        time.sleep(0.01)
    return False


def test_what_has_no_place_waits_for_one():
    inside, most, lock = [0], [0], threading.Lock()

    def work(place):
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.05)
        with lock:
            inside[0] -= 1
        return place.share

    with Crew(2) as crew:
        shares = {future.result() for future in [crew.begin(work) for _ in range(6)]}

    assert most[0] == 2
    assert len(shares) <= 2


def test_all_but_what_measures_stand_still_while_it_is_quiet(started):
    with Crew(2) as crew:
        (one, file), (other, of_other) = started("one"), started("other")
        with crew.member(one.pid), crew.member(other.pid, measures=True):
            with crew.quiet():
                assert not goes_on(file)
                assert goes_on(of_other)
            assert goes_on(file)


def test_what_comes_while_it_is_quiet_waits(started):
    with Crew(2) as crew:
        one, file = started("one")
        with contextlib.ExitStack() as stack:
            with crew.quiet():
                stack.enter_context(crew.member(one.pid))
                assert not goes_on(file)
            assert goes_on(file)


def test_what_a_process_has_started_stands_still_with_it(started):
    with Crew(2) as crew:
        one, file = started("one", BOTH + COUNTS)
        with crew.member(one.pid):
            with crew.quiet():
                assert not goes_on(file)
            assert goes_on(file)


def test_the_end_of_a_crew_ends_what_stands_still(started):
    one, _ = started("one")
    with pytest.raises(ZeroDivisionError), Crew(2) as crew:  # noqa: PT012
        member = crew.member(one.pid)
        member.__enter__()
        os.kill(one.pid, signal.SIGSTOP)
        raise ZeroDivisionError

    assert one.wait(30) == -signal.SIGKILL
    with pytest.raises(EndedError):
        crew.check()


def test_what_waits_for_quiet_when_the_crew_ends_does_not_measure():
    crew, measured = Crew(2), []

    def measures(place):
        with crew.quiet():
            measured.append(place)

    with crew:
        with crew.quiet():
            waiting = crew.begin(measures)
            time.sleep(0.1)
            with crew._changes:
                crew._ended = True
        with pytest.raises(EndedError):
            waiting.result()

    assert not measured


DRIVER = """
import signal, subprocess, sys, time
from fusion_keras.searching.crew import Crew

# By it Linux ends those whose parent has gone while they stood still; nohup's programs ignore it.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
child = subprocess.Popen([sys.executable, "-c", *sys.argv[:0:-1]], process_group=0)
with Crew() as crew, crew.member(child.pid), crew.quiet():
    open(sys.argv[1] + "-pid", "w").write(str(child.pid))
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_stands_still_ends_with_a_search_that_is_killed(tmp_path):
    told = tmp_path / "file-pid"
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "file"), COUNTS]
    driver = subprocess.Popen(command, start_new_session=True)
    waited(lambda: told.is_file() and told.read_text())
    state = Path(f"/proc/{told.read_text()}/stat")
    waited(lambda: state.read_text().split()[2] == "T")

    driver.kill()
    driver.wait()

    # A zombie is gone, too: nobody asks for it here.
    waited(lambda: not state.is_file() or state.read_text().split()[2] == "Z")
