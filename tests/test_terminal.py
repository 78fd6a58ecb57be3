"""What a person sees of a command: results on stdout, progress where the entry puts it."""

import logging

import pytest

from fusion_keras import cli, terminal
from fusion_keras.errors import UsageError


@pytest.fixture(autouse=True)
def nothing_shown():
    """The terminal and its loggers as they were."""
    loggers = [logging.getLogger(name) for name in ("fusion_keras", "export")]
    before = [(x.level, x.propagate, list(x.handlers)) for x in loggers]
    console = terminal._progress
    yield
    terminal._progress = console
    for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.propagate, logger.handlers = propagate, handlers


def work():
    """What a library does while it works."""
    log = logging.getLogger("fusion_keras.training.loop")
    with terminal.progress_bar("inter s0") as bar:
        bar.add_task("epoch 1", total=1, completed=1)
        log.debug("wrote run/history.csv")
        log.info("First the parent of %s: %s", "late", "[text]")
    log.warning("note: %s", "classes have no names")


@pytest.mark.parametrize("on_stdout", [False, True])
@pytest.mark.parametrize(
    ("level", "shown", "hidden"),
    [
        (logging.WARNING, ["note: "], ["First", "inter s0", "wrote"]),
        (logging.INFO, ["note: ", "late: [text]\n", "inter s0 epoch 1"], ["wrote"]),
        (logging.DEBUG, ["note: ", "late: [text]\n", "inter s0 epoch 1", "wrote"], []),
    ],
)
def test_levels(level, shown, hidden, on_stdout, capsys):
    terminal.show(level, on_stdout=on_stdout)
    work()
    out, err = capsys.readouterr()
    text, other = (out, err) if on_stdout else (err, out)
    assert all(part in text for part in shown)
    assert not any(part in text for part in hidden)
    assert other == ""


def test_a_line_is_said_once_however_often_it_is_shown(capsys):
    terminal.show()
    terminal.show()
    logging.getLogger("export.pipeline").info("int8")
    assert capsys.readouterr().err == "int8\n"


def test_libraries_alone_show_no_progress(capsys):
    work()
    out, err = capsys.readouterr()
    assert out == ""
    assert "inter s0" not in err


def test_results_keep_brackets_and_long_lines(capsys):
    line = "Run: runs/[red]/" + 200 * "x"
    terminal.print_results(line)
    assert capsys.readouterr().out == line + "\n"


def test_verbose_says_what_a_sentence_comes_of(capsys):
    terminal.show(logging.DEBUG)

    def main():
        try:
            raise OSError("no space")
        except OSError as error:
            raise UsageError("The disk is full.") from error

    with pytest.raises(SystemExit):
        cli.guarded(main)
    lines = capsys.readouterr().err.splitlines()
    assert "OSError: no space" in lines
    assert lines[-1] == "error: The disk is full."


RUN = """
import logging
from fusion_keras import cli, terminal
def main():
    logging.getLogger("fusion_keras").info("epoch 1")
    terminal.print_results("Run: runs/a")
cli.run(main, "help")
"""


@pytest.mark.parametrize(
    ("flags", "code", "err"),
    [
        ((), 0, "epoch 1\n"),
        (("--quiet",), 0, ""),
        (
            ("--quiet", "--verbose"),
            2,
            "error: --quiet and --verbose are given: leave one of them out.\n",
        ),
    ],
)
def test_flags_of_every_entry(entries, flags, code, err):
    done = entries.run("-c", RUN, *flags)
    assert (done.returncode, done.stderr) == (code, err)
    assert done.stdout == ("" if code else "Run: runs/a\n")
