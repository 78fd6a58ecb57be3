"""Every family of image backbones all the way: its PyTorch reference, training, export, an answer.

ViT and MobileNetV2 go this way in most other tests.
"""

import dataclasses
import functools

import numpy as np
import pytest

from bench.edge.artifact import read
from bench.edge.predictor import Predictor
from export import doctor
from fusion_keras.backbones.convnext import GlobalResponseNorm
from fusion_keras.backbones.named import ARCHITECTURES
from fusion_keras.backbones.presets import load_image
from tests.support.gradients import LABELS, ROWS, check
from tests.support.pairs import (
    OFFSET,
    SCALE,
    called,
    differences,
    extreme_images,
    make_family,
    one_thread,  # noqa: F401
    their_outputs,
    tiny_batch,
    tiny_text,
)
from tests.support.shared import slow_but

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NAMES = (
    *("tiny_resnet", "tiny_efficientnet", "tiny_mobilenet_v3", "tiny_efficientnet_lite"),
    *("tiny_convnext", "tiny_convnext_v2"),
    *("tiny_deit", "tiny_dinov2", "tiny_clip", "tiny_siglip"),
)
VARIANTS = ("late", "inter", "early")
# These halve the image five times. Of one pixel of each of sixteen images the mean of squares
# loses digits against the squared mean (`pointwise.BatchNormalization`): 3e-4 of a tap, measured.
SIZES = {"tiny_resnet": 64, "tiny_efficientnet_lite": 64}
# Deep random networks hardly tell one image from another.
SHALLOW = {
    "tiny_efficientnet": {
        "kernel_sizes": (3, 5, 3),
        "in_channels": (32, 16, 24),
        "out_channels": (16, 24, 40),
        "strides": (1, 2, 2),
        "num_block_repeats": (1, 2, 1),
        "expand_ratios": (1, 6, 4),
    },
    "tiny_efficientnet_lite": {"depth_coefficient": 0.3},
    "tiny_deit": {"num_layers": 3},
    "tiny_dinov2": {"num_layers": 3},
    "tiny_clip": {"num_layers": 3},
    "tiny_siglip": {"num_layers": 3},
}
TOLERANCE = 1e-4  # of the tap's largest magnitude


def size_of(name: str) -> int:
    return SIZES.get(name, 32)


@functools.cache
def family(name: str):
    """The three variants over a narrow text and image backbone, some of them shallow."""
    image = load_image(f"random:{name}", size_of(name))
    cls, arguments = ARCHITECTURES[name]
    if name in SHALLOW:
        shape = image.backbone.input.shape[1:]
        arguments = {**arguments, **SHALLOW[name], "image_shape": shape}
        image = dataclasses.replace(image, backbone=cls(**arguments))
    rng = np.random.default_rng(0)
    for layer in image.backbone.layers:
        if isinstance(layer, GlobalResponseNorm):
            # They start at 0, where neither outputs nor gradients see what they multiply.
            for variable in layer.weights:
                variable.assign(rng.normal(0, 0.5, variable.shape))
    image = dataclasses.replace(image, scale=SCALE, offset=OFFSET)
    return make_family(tiny_text(3), image, variants=VARIANTS, width=32)


@pytest.mark.parametrize("name", slow_but(["tiny_deit"], NAMES))
def test_the_reference_built_of_the_spec_gives_the_same_taps_and_logits(name):
    made = family(name)
    values = tiny_batch(6, size_of(name))
    # Noise alone a random network hardly tells apart.
    values["image"][:4] = extreme_images(size_of(name))
    taps = called(made.encoders, values)
    for variant, pair in made.pairs.items():
        taken = {n: taps[n] for n in pair.graph.fusion.input}
        ours = {n: x for n, x in taken.items() if n != "mask"} | called(pair.graph.fusion, taken)
        found = differences(ours, their_outputs(pair, values))
        worst = max(found, key=found.get)
        assert found[worst] <= TOLERANCE, f"{variant}, {worst}: {found[worst]:.2g}"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_gradient_equals_pytorchs(name):
    for variant in VARIANTS:
        worst = check(family(name), variant, tiny_batch(ROWS, size_of(name)), LABELS)
        print(f"{variant} {name}: {worst:.1e}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n if n == "tiny_resnet" else pytest.param(n, marks=pytest.mark.large) for n in NAMES]
)
def test_a_family_is_described_trained_exported_and_asked(tiny, entries, tmp_path, name):
    bench = tiny.beside(tmp_path / "bench")
    changes = {"image__preset": name}
    described = entries.run(
        "fusion_keras.train", "--describe", *bench.flags(variant="inter", **changes)
    )
    assert described.returncode == 0, described.stderr
    assert name in described.stdout
    for variant in VARIANTS:
        flags = bench.flags(variant=variant, run=tmp_path / variant, **changes)
        done = entries.run("fusion_keras.train", *flags)
        assert done.returncode == 0, done.stderr
    # The one family that CI has time for is exported once.
    for variant in ("inter",) if name == "tiny_resnet" else VARIANTS:
        artifact = tmp_path / f"artifact-{variant}"
        flags = (str(tmp_path / variant), f"--out={artifact}", "--precisions=int8")
        done = entries.run("export", *flags)
        assert done.returncode == 0, done.stderr
        meta = read(artifact)
        assert [rung["name"] for rung in meta["ladder"]] == ["keras", "saved_model", "fp32", "int8"]
        assert all(rung["holds"] for rung in meta["ladder"])
        for model in meta["models"].values():
            assert doctor.examine(doctor.load(artifact / model["file"])) == []
        _ask(artifact, bench)


def _ask(artifact, bench):
    asked = {"text": "a good day, number 1", "image": bench.folder / "data" / "1.png"}
    for precision in ("fp32", "int8"):
        assert Predictor(artifact, precision).predict(**asked).label in ("negative", "positive")
