"""The families that are timm's: our backbones and the PyTorch reference give what timm gives.

No extra brings timm: what it gave stands in tests/support/timm_golden.json.
"""

import functools
import json

import jax
import keras
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fusion_keras.backbones.presets import load_image
from tests.support.hf_encoders import TOLERANCE
from tests.support.shared import slow_but
from tests.support.timm_families import IMAGENET, family_of
from tests.support.timm_golden import CASES, FILE, digest, held, pixels, weights

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
GOLDEN = json.loads(FILE.read_text())["cases"]


def _worst(taps, wanted) -> float:
    """The largest difference from timm's values over the tap's largest magnitude."""
    worst = 0.0
    for tap, known in zip(taps, wanted, strict=True):
        assert list(tap.shape) == known["shape"]
        assert known["largest"] > 0.5, "the tap's values have faded"
        places = np.linspace(0, tap.size - 1, len(known["values"])).astype(int)
        apart = np.abs(tap.reshape(-1)[places] - known["values"]).max()
        worst = max(worst, apart / known["largest"])
    return worst


@pytest.mark.parametrize("case", slow_but(["small, SAME"], CASES))
def test_every_tap_is_that_of_timm(tmp_path, case):
    architecture, changes, size = CASES[case]
    fields = {"architecture": architecture, "model_args": changes}
    family, image = family_of(architecture), pixels(size)
    network = family.build(fields, headed=False)
    shapes = held(network.state_dict())
    assert digest(shapes) == GOLDEN[case]["tensors"]
    tensors = {name: torch.from_numpy(x) for name, x in weights(shapes).items()}
    network.load_state_dict(tensors, strict=False)
    with torch.no_grad():
        theirs = [x.numpy() for x in family.taps(network, torch.from_numpy(image))]
    assert _worst(theirs, GOLDEN[case]["taps"]) <= TOLERANCE

    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**fields, "pretrained_cfg": IMAGENET}))
    backbone = load_image(str(tmp_path), size).backbone
    model = keras.Model(backbone.input, [*backbone.taps.values(), backbone.summary])
    found = jax.jit(functools.partial(model, training=False))(image.transpose(0, 2, 3, 1))
    ours = [np.asarray(x) for x in found]
    assert _worst(ours, GOLDEN[case]["taps"]) <= TOLERANCE
