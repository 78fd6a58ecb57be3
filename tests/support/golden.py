"""What every engine is held against."""

import numpy as np

from bench.edge.artifact import golden


def assert_golden(runner, folder, batch=1, tolerance=1e-4):
    """It gives the artifact's golden outputs."""
    inputs, outputs = golden(folder)
    assert np.ptp(outputs["logits"], axis=0).max() > 10 * tolerance, "examples differ"
    for row in range(0, len(outputs["logits"]), batch):
        taken = slice(row, row + batch)
        found = runner.infer({name: x[taken] for name, x in inputs.items()})
        assert found["logits"].dtype == np.float32
        wanted = outputs["logits"][taken]
        np.testing.assert_allclose(found["logits"], wanted, rtol=0, atol=tolerance)
