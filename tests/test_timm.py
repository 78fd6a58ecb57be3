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
from fusion_keras.data.images import ImageSpec
from fusion_keras.errors import UsageError
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


def _with(tmp_path, **published):
    """A directory of a tiny family whose pretrained_cfg is changed."""
    family = family_of("mobilenetv3_small_050")
    fields = {"pretrained_cfg": {**IMAGENET, **published}}
    family.save(family.build({**family.tiny, **fields}, headed=False), tmp_path)
    return str(tmp_path)


def test_pretrained_cfg_says_how_images_are_prepared(tmp_path):
    halves = {"mean": [0.5] * 3, "std": [0.5] * 3}
    sizes = {"input_size": [3, 48, 48], "crop_pct": 0.9, "interpolation": "bilinear"}
    preset = load_image(_with(tmp_path, **halves, **sizes))
    # timm resizes to floor(48 / 0.9).
    assert preset.image_spec == ImageSpec(48, "crop", 48 / 53, "bilinear")
    assert (preset.scale, preset.offset) == (pytest.approx(1 / 127.5), -1.0)
    assert preset.backbone.input.shape == (None, 48, 48, 3)


@pytest.mark.parametrize(
    ("published", "named"),
    [
        ({"crop_mode": "border"}, "crop_mode border"),
        ({"interpolation": "lanczos"}, "KeyError.*lanczos"),
        ({"input_size": [3, 224]}, r"input_size \[3, 224\]"),
    ],
)
def test_a_preparation_that_is_not_known_here_is_named(tmp_path, published, named):
    with pytest.raises(UsageError, match=rf"config\.json with preprocessing.*{named}"):
        load_image(_with(tmp_path, **published))


def test_without_pretrained_cfg_the_familys_own_preparation_is_taken(tmp_path):
    directory = _with(tmp_path)
    with_it = load_image(directory)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"architecture": "mobilenetv3_small_050"}))
    without = load_image(directory)
    assert without.image_spec == with_it.image_spec
    assert (without.scale, without.offset) == (with_it.scale, with_it.offset)
