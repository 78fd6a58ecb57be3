"""Whether two runs learned the same, but for rounding."""

import io
import zipfile

import h5py
import numpy as np
import pytest

from tests.support import tiny

# In small batches BatchNorm makes a rounding a thousand times as large with each step, on one
# device too: its statistics are compared while the weights hardly move.
MOBILENET = {
    "variant": "image",
    "image__preset": "random:small_mobilenet",
    "train__learning_rate": 1e-6,
    "train__image_rate": 1e-6,
}


def statistics(run) -> dict[str, np.ndarray]:
    """BatchNorm's moving statistics in model.keras: the third and fourth variables of a layer."""
    found = {}

    def keep(name, item):
        if isinstance(item, h5py.Dataset) and name.endswith(("vars/2", "vars/3")):
            found[name] = item[()]

    with zipfile.ZipFile(run.folder / "model.keras") as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as file:
        file.visititems(keep)
    return found


def probabilities(run) -> np.ndarray:
    """float64 [N, 2], of every row."""
    rows = tiny.table(run, "predictions.csv")
    return np.array([[float(x) for name, x in row.items() if name[:2] == "p_"] for row in rows])


def assert_same(found, wanted):
    """Not weight by weight: where a gradient is but rounding (a key's bias) Adam walks anywhere."""
    lines = [tiny.table(run, "history.csv") for run in (found, wanted)]
    for ours, theirs in zip(*lines, strict=True):
        for name in ("loss", "valid_nll", "valid_accuracy"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), abs=1e-4), name
    np.testing.assert_allclose(probabilities(found), probabilities(wanted), atol=1e-4)
    ours, theirs = statistics(found), statistics(wanted)
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-4, atol=1e-4, err_msg=name)
