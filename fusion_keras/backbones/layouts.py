"""One tensor of PyTorch and the variables of ours that it holds, in either layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops


@dataclass(frozen=True)
class Weight:
    """One tensor of PyTorch and the variables of ours that it holds.

    Attributes:
        variables: several where PyTorch keeps side by side what Keras has apart.
        to_pytorch: their values, in that order -> PyTorch's array.
        to_keras: PyTorch's array -> their values.
    """

    variables: tuple[keras.Variable, ...]
    to_pytorch: Callable[..., np.ndarray]
    to_keras: Callable[[np.ndarray], list[np.ndarray]]

    @property
    def shape(self) -> tuple[int, ...]:
        """PyTorch's."""
        return self.to_pytorch(*(np.empty(v.shape, np.float32) for v in self.variables)).shape

    def read(self) -> np.ndarray:
        """float32, in PyTorch's layout."""
        return self.to_pytorch(*(_array(v) for v in self.variables))


def fill(named: Mapping[str, Weight], weights) -> None:
    """Sets the variables of every part from the tensor of its name.

    Args:
        named: PyTorch's name -> the part.
        weights: hf_files.Weights.

    Raises:
        UsageError: a tensor is missing or has another shape.
    """
    for name, weight in named.items():
        values = weight.to_keras(weights.get(name, weight.read().shape))
        for variable, value in zip(weight.variables, values, strict=True):
            variable.assign(value)


def _array(variable) -> np.ndarray:
    # float32 also where the variable is bfloat16, which safetensors' numpy side has not.
    return np.asarray(ops.convert_to_numpy(variable), np.float32)


def under(prefix: str, parts: Mapping[str, Weight]) -> dict[str, Weight]:
    """The parts of a module by their names outside of it."""
    return {f"{prefix}.{name}": weight for name, weight in parts.items()}


def same(variable) -> Weight:
    """A tensor that both keep alike."""
    return Weight((variable,), lambda x: x, lambda x: [x])


def moved(variable, axes: tuple[int, ...]) -> Weight:
    """PyTorch's axes in the order of ours."""
    inverse = tuple(np.argsort(axes))
    return Weight((variable,), lambda x: x.transpose(axes), lambda x: [x.transpose(inverse)])


def reshaped(variable, shape: tuple[int, ...]) -> Weight:
    """The same values in PyTorch's shape."""
    ours = tuple(variable.shape)
    return Weight((variable,), lambda x: x.reshape(shape), lambda x: [x.reshape(ours)])


def _kernel(layer) -> Weight:
    """[..., out], heads apart or not -> [out, in]."""
    shape = tuple(layer.kernel.shape)
    # Without a bias its one axis that enters is the first.
    outs = int(np.prod(shape[1:] if layer.bias is None else layer.bias.shape))
    return Weight((layer.kernel,), lambda x: x.reshape(-1, outs).T, lambda x: [x.T.reshape(shape)])


def dense(layer) -> dict[str, Weight]:
    """Weight, and bias if there is one, of `Dense` or `EinsumDense`."""
    parts = {"weight": _kernel(layer)}
    return parts | ({"bias": reshaped(layer.bias, (-1,))} if layer.bias is not None else {})


def norm(layer) -> dict[str, Weight]:
    """Weight and bias of a normalisation."""
    return {"weight": same(layer.gamma), "bias": same(layer.beta)}


def convolution(layer) -> dict[str, Weight]:
    """Weight [out, in, k, k], or along time [out, in, k], and bias if there is one, of a
    convolution, depthwise too."""
    depthwise, axes = "DepthwiseConv2D" in type(layer).__name__, len(layer.kernel.shape)
    usual = (axes - 1, axes - 2, *range(axes - 2))
    parts = {"weight": moved(layer.kernel, (2, 3, 0, 1) if depthwise else usual)}
    return parts | ({"bias": same(layer.bias)} if layer.bias is not None else {})


def side_by_side(parts: list[Weight]) -> Weight:
    """Tensors of equal shape, one below the other."""
    return Weight(
        tuple(part.variables[0] for part in parts),
        lambda *values: np.concatenate(
            [p.to_pytorch(x) for p, x in zip(parts, values, strict=True)]
        ),
        lambda x: [p.to_keras(y)[0] for p, y in zip(parts, np.split(x, len(parts)), strict=True)],
    )
