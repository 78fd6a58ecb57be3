"""The part of a backbone that chosen depths need, and nothing behind it."""

from collections.abc import Sequence
from numbers import Integral

import keras

from fusion_keras.errors import UsageError

LAST = "last"


def cut(backbone, depths: Sequence[int | str], name: str | None = None) -> keras.Model:
    """The model from a backbone's inputs to its taps at `depths`; weights are shared.

    Args:
        backbone: has `taps`, `summary` (None where its weights lack that) and `num_depths`.
        depths: each 0..num_depths, or "last" for the published model's summary vector.
        name: of the new model.

    Returns:
        A model with the backbone's inputs and a list of outputs, in the order of `depths`.
        Only layers that an output needs are in it.

    Raises:
        UsageError: no depth, or one that the backbone has not.
    """
    if not depths:
        raise UsageError(f"got no depth to cut {backbone.name} at, wanted at least one.")
    return keras.Model(backbone.input, [_tensor(backbone, depth) for depth in depths], name=name)


def _tensor(backbone, depth):
    if depth == LAST:
        if backbone.summary is None:
            raise UsageError(
                f"got depth {LAST!r} for {backbone.name}, whose weights have no pooler, wanted 0 "
                f"to {backbone.num_depths}; choose a depth in that range."
            )
        return backbone.summary
    known = isinstance(depth, Integral) and not isinstance(depth, bool)
    if not known or depth not in backbone.taps:
        raise UsageError(
            f"got depth {depth!r} for {backbone.name}, wanted 0 to {backbone.num_depths} or "
            f"{LAST!r}; choose a depth in that range."
        )
    return backbone.taps[depth]
