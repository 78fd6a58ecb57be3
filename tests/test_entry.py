"""How every command of the bench ends."""

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
