"""How every command of the bench ends."""

import os
import subprocess
import sys

import pytest

from bench.edge.entry import ends
from bench.edge.errors import BenchError


def ending(error, **settings):
    """A `main` that ends with this error."""

    @ends("Interrupted. Nothing was written.", **settings)
    def main(arguments):
        raise error

    return main


def test_what_a_main_returns_is_the_exit_code():
    assert ends()(lambda arguments: len(arguments))(["a", "b", "c"]) == 3


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BenchError("no such file."), 2, "error: no such file."),
        (ImportError("No module named 'plotly'"), 2, "error: No module named 'plotly': pip it"),
        (KeyboardInterrupt(), 130, "Interrupted. Nothing was written."),
        (KeyboardInterrupt("Interrupted. x.json is kept."), 130, "Interrupted. x.json is kept."),
    ],
)
def test_a_command_ends_in_a_sentence(error, code, said, capsys):
    assert ending(error, install="pip it")([]) == code
    assert capsys.readouterr().err.strip() == said


@pytest.mark.parametrize("error", [ImportError("a bug"), ValueError("another")])
def test_a_bug_is_no_mistake_of_the_user(error):
    with pytest.raises(type(error)):
        ending(error)([])


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "command",
    [
        ["-m", "bench.report", "--help"],
        ["-m", "bench.predict", "--help"],
        ["-m", "fusion_keras.train", "--help"],
        ["-m", "fusion_keras", "--help"],
        ["-c", "from fusion_keras import cli; cli.guarded(lambda: print(*['text'] * 99999))"],
        pytest.param(
            ["-m", "fusion_keras.plan", "--variant=text", "--", "--variant=late"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["report", "predict", "train", "commands", "guarded", "plan"],
)
def test_whose_reader_has_gone_ends_quietly(command, unbuffered):
    """As in `python -m ... | head -1`: a pipe that is read to the first line, then closed.

    What is printed must not fit into the pipe, 64 KiB, or nobody notices.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered, "KERAS_BACKEND": "jax"}
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=write,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    os.close(write)
    if "--help" not in command:
        assert os.read(read, 4) == b"text"
    os.close(read)
    errors = process.communicate()[1]
    assert errors == ""
    # argparse lets it pass where nothing is left to write.
    assert process.returncode == (0 if unbuffered and "bench" in command[1] else 1)


def test_another_pipe_that_breaks_is_a_bug():
    @ends()
    def main(arguments):
        raise BrokenPipeError("a worker has gone")

    with pytest.raises(BrokenPipeError, match="a worker has gone"):
        main([])


def test_no_test_chooses_a_backend_for_the_processes_that_tests_start():
    # Importing export.convert does, or export.draft, where any test of the session may have.
    assert os.environ["KERAS_BACKEND"] == "jax"
