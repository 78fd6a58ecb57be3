"""Gradients of a variant, ours beside those of PyTorch."""

import functools

import numpy as np
import pytest

from tests.support.pairs import (
    CLASSES,
    in_pytorch,
    make_family,
    tiny_image,
    tiny_text,
    torch_gradients,
)

SIZE, ROWS = 64, 16
TOLERANCE = 1e-3  # of the largest gradient in the layer
ZERO = 1e-5  # likewise, for what is zero in exact arithmetic
_KEY_BIASES = ("attention.self.key.bias", "attention.k_proj.bias")
LABELS = np.arange(ROWS) % CLASSES


@functools.cache
def tiny_family(vision: str):
    return make_family(tiny_text(3), tiny_image(vision, SIZE, layers=3), width=32)


def layer_of(name: str) -> str:
    """PyTorch's module of a parameter."""
    return name.rpartition(".")[0]


def largest_of_layers(gradients: dict) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, x in gradients.items():
        found[layer_of(name)] = max(found.get(layer_of(name), 0.0), float(np.abs(x).max()))
    return found


def key_biases(gradients: dict) -> dict[str, np.ndarray]:
    """They shift all scores of a query alike, which softmax does not see."""
    found = {n: x for n, x in gradients.items() if n.endswith(_KEY_BIASES)}
    joint = {n: np.split(x, 3)[1] for n, x in gradients.items() if n.endswith("in_proj_bias")}
    return found | joint


def ratios(ours: dict, theirs: dict) -> dict[str, float]:
    """Name -> largest difference over the layer's largest gradient."""
    assert ours.keys() == theirs.keys()
    largest = largest_of_layers(theirs)
    dead = [layer for layer, value in largest.items() if not value > 0]
    assert not dead, f"no gradient reaches {dead}"
    return {n: float(np.abs(ours[n] - x).max()) / largest[layer_of(n)] for n, x in theirs.items()}


def gradients_of(family, variant, values, labels):
    """(our loss, our gradients), under PyTorch's names."""
    targets = np.eye(CLASSES)[labels]
    loss, gradients, _ = family.step(variant, values, targets)
    return loss, in_pytorch(family.pairs[variant], gradients)


def check(family, variant, values, labels) -> float:
    """Assert that a variant's gradients agree; give the worst ratio."""
    loss, ours = gradients_of(family, variant, values, labels)
    reference = family.pairs[variant].reference()
    their_loss, theirs = torch_gradients(reference, values, labels)
    assert loss == pytest.approx(their_loss, rel=1e-5)
    found = ratios(ours, theirs)
    worst = max(found, key=found.get)
    assert found[worst] <= TOLERANCE, f"{worst}: {found[worst]:.2g}"
    for gradients in (ours, theirs):
        largest = largest_of_layers(gradients)
        for name, x in key_biases(gradients).items():
            assert np.abs(x).max() <= ZERO * largest[layer_of(name)], name
    return found[worst]
