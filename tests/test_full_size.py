"""The published sizes build, take a training step, save, and fit into 12 GiB."""

import json
import subprocess
import sys

import pytest

from tests.support.tiny import OF_TEXT_AND_IMAGES as VARIANTS

# One process for each case: the peak of a process says nothing of one part of it.
STEP = """
import json, resource, sys
import fusion_keras, keras
import numpy as np
from fusion_keras.config import get_config
from fusion_keras.fusion.graph import build
from fusion_keras.fusion.variants import make_spec
from fusion_keras.training.optimizers import make_optimizer
from fusion_keras.training.recipes import resolve
from fusion_keras.fusion.architectures import FUSION
from fusion_keras.training.task import set_up_keras

variant, image_preset, path = sys.argv[1:]
config = get_config()
config.variant, config.recipe = variant, "best"
config.text.preset, config.image.preset = "random:bert_base", image_preset
config.text.dropout, config.image.size, config.data.max_length = 0.1, 224, 64
config = resolve(config)
set_up_keras(config)
presets, spec = FUSION.presets(config, {}), FUSION.spec(config)
model = build(spec, presets, num_classes=2, sequence_length=64).model
rng = np.random.default_rng(0)
batch = {
    "token_ids": rng.integers(1000, 30000, (4, 64)).astype("int32"),
    "image": rng.integers(0, 256, (4, 224, 224, 3)).astype("uint8"),
}
batch = {x.name: batch[x.name] for x in model.inputs}
optimizer = make_optimizer(config.train, model, 10)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(optimizer, loss={"logits": loss})
loss = model.train_on_batch(batch, {"logits": np.array([0, 1, 0, 1])})
model.save(path)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"loss": float(loss), "peak_gib": peak, "parameters": model.count_params()}))
"""


FURTHER = ("mobilenet_v3_large_1.0", "efficientnet_lite0", "convnext_tiny")
CASES = [(v, image) for v in VARIANTS for image in ("random:mobilenet_v2_1.4", "random:vit_base")]
CASES += [("inter", f"random:{name}") for name in FURTHER]


@pytest.mark.large
@pytest.mark.slow
@pytest.mark.parametrize(("variant", "image"), CASES)
def test_a_full_size_step_fits_into_12_gib(variant, image, tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", STEP, variant, image]
    path = tmp_path / "model.keras"
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(variant, image, found)
    assert found["peak_gib"] < 12
    assert path.stat().st_size > 4 * found["parameters"]
