"""The notebook of the documents: it was run, and runs."""

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra notebook is not installed")

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook) -> str:
    """All text that its cells have given."""
    outputs = [output for cell in cells(notebook) for output in cell.outputs]
    return "\n".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs)


def test_it_stands_there_as_it_was_run():
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)

    assert [c.execution_count for c in cells(notebook)] == list(range(1, len(cells(notebook)) + 1))
    data = [output.get("data", {}) for cell in cells(notebook) for output in cell.outputs]
    assert sum("image/png" in given for given in data) == 2
    assert "within" in shown(notebook)
    # Where and by whom it was run is nobody's business.
    assert not re.search(r"/(tmp|home|root|work|opt)/", NOTEBOOK.read_text())
    names = [output.get("name") for cell in cells(notebook) for output in cell.outputs]
    assert "stderr" not in names


@pytest.mark.slow
def test_it_runs():
    nbclient = pytest.importorskip("nbclient", reason="the extra notebook is not installed")
    notebook = nbformat.read(NOTEBOOK, 4)
    before = len(cells(notebook))

    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": ROOT}})
    client.execute()

    assert before == len([c for c in cells(notebook) if c.execution_count])
    assert re.search(r"within [\d.]+ ms the most accurate is (text|early)", shown(notebook))
    assert "Answer(labels=" in shown(notebook)
