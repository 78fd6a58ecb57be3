"""Checkpoints to resume from: every variable and the loop's own state, in one file."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

from fusion_keras.errors import UsageError
from fusion_keras.training import processes
from fusion_keras.training.run import CHECKPOINT, Run


def save(run: Run, variables: list, best: list[np.ndarray], state: dict) -> None:
    """Write the checkpoint of an epoch's end, replacing the one before as a whole.

    Args:
        run: where to.
        variables: Keras variables of model and optimiser, in a fixed order.
        best: values of the model's variables at the best epoch.
        state: plain JSON types: epoch, history, best epoch and so on.
    """
    if not processes.is_first():
        return
    arrays = {f"v{i}": np.asarray(v.value) for i, v in enumerate(variables)}
    arrays.update({f"b{i}": value for i, value in enumerate(best)})
    arrays["state"] = np.array(json.dumps(state))
    run.write_npz(CHECKPOINT, arrays)


def restore(run: Run, variables: list, best_count: int) -> tuple[list[np.ndarray], dict] | None:
    """Load the checkpoint into the variables, if there is one.

    Returns:
        (values of the best epoch, state), or None.

    Raises:
        UsageError: the file is damaged or belongs to another model.
    """
    path = Path(run.partial) / CHECKPOINT
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = [arrays[f"v{i}"] for i in range(len(variables))]
            best = [arrays[f"b{i}"] for i in range(best_count)]
            state = json.loads(str(arrays["state"]))
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"The checkpoint {path} cannot be read ({error}). Remove the folder {run.partial} to "
            "start this run anew."
        ) from error
    return best, state
