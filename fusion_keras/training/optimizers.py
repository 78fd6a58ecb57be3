"""Optimisers with one learning rate for each part of the model.

Keras optimisers have a single rate and decouple weight decay. Fine-tuning wants a
small rate for pretrained parts and a large one for new ones; and the published runs
used PyTorch's SGD, which adds weight decay to the gradient.

The updates themselves are PyTorch's too. Keras's SGD keeps the rate inside the velocity, so a
falling rate lags behind its schedule; its Adam adds epsilon before the bias is corrected, which
in the first steps makes it thirty times as large.
"""

from __future__ import annotations

import math

import keras
from keras import ops

from fusion_keras.modalities import MODALITY


class _PartRates:
    """Mixin: per-variable learning rates and the weight decay of PyTorch's optimisers."""

    # SGD and Adam add decay * weight to the gradient; AdamW shrinks the weight itself.
    coupled = True

    def configure(self, rates: dict[int, float], decay: float, decays) -> None:
        """Set factors on the learning rate and the decay.

        Args:
            rates: id of a variable -> factor.
            decay: weight decay.
            decays: variable -> whether decay applies to it.
        """
        self._rates, self._decay, self._decays = rates, decay, decays

    def update_step(self, gradient, variable, learning_rate):
        gradient = ops.cast(gradient, variable.dtype)
        rate = ops.cast(learning_rate, variable.dtype) * self._rates[id(variable)]
        if self._decay and self._decays(variable):
            if self.coupled:
                gradient = gradient + self._decay * variable
            else:
                self.assign_sub(variable, variable * (self._decay * rate))
        super().update_step(gradient, variable, rate)


class _PyTorchSGD(keras.optimizers.SGD):
    """SGD whose velocity sums gradients, not steps (`torch.optim.SGD`, its documented form)."""

    def update_step(self, gradient, variable, learning_rate):
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            self.assign(velocity, self.momentum * velocity + gradient)
            gradient = velocity
        self.assign_sub(variable, learning_rate * gradient)


class _PublishedAdam(keras.optimizers.Adam):
    """Adam as published (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1).

    Epsilon is added to the root of the corrected second moment, where Keras follows the
    rearranged form behind the algorithm, whose epsilon is another.
    """

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        self.assign_add(mean, (1 - self.beta_1) * (gradient - mean))
        self.assign_add(square, (1 - self.beta_2) * (ops.square(gradient) - square))
        step = ops.cast(self.iterations + 1, variable.dtype)
        size = ops.sqrt(square / _one_less_power(self.beta_2, step)) + self.epsilon
        rate = learning_rate / _one_less_power(self.beta_1, step)
        self.assign_sub(variable, rate * mean / size)


def _one_less_power(beta: float, step):
    """1 - beta ** step; in float32 the difference itself would lose four digits."""
    return -ops.expm1(step * math.log(beta)) if beta else 1.0


class SGD(_PartRates, _PyTorchSGD):
    """SGD whose weight decay enters the gradient, and so the momentum, as in PyTorch."""


class Adam(_PartRates, _PublishedAdam):
    """Adam with L2 decay in the gradient, as in PyTorch."""


class AdamW(_PartRates, _PublishedAdam):
    """Adam with decoupled decay (Loshchilov and Hutter 2019, arXiv 1711.05101)."""

    coupled = False


OPTIMIZERS = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


@keras.saving.register_keras_serializable(package="fusion_keras")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then constant, or linear or cosine decay to zero.

    Args:
        peak: the highest rate.
        steps: all optimiser steps of the run.
        warmup: share of `steps` that warms up, in [0, 1).
        shape: "constant", "linear" or "cosine".
    """

    def __init__(self, peak: float, steps: int, warmup: float, shape: str):
        self.peak, self.steps, self.warmup, self.shape = peak, steps, warmup, shape

    def __call__(self, step):
        step = ops.cast(step, "float32")
        first = self.warmup * self.steps
        rising = ops.minimum(1.0, (step + 1) / max(1.0, first))
        done = ops.clip((step - first) / max(1.0, self.steps - first), 0.0, 1.0)
        falling = {
            "constant": lambda: 1.0,
            "linear": lambda: 1.0 - done,
            "cosine": lambda: 0.5 * (1.0 + ops.cos(done * 3.141592653589793)),
        }[self.shape]()
        return self.peak * rising * falling

    def get_config(self):
        return {
            "peak": self.peak,
            "steps": self.steps,
            "warmup": self.warmup,
            "shape": self.shape,
        }


def _is_matrix(variable) -> bool:
    # By name too: the biases of Keras's multi-head attention are [heads, head size].
    return len(variable.shape) > 1 and variable.name != "bias"


def make_optimizer(train, model: keras.Model, steps: int) -> keras.optimizers.Optimizer:
    """The optimiser of a resolved `config.train`, built on the model's variables.

    The rates of the backbones are `text_rate`, `image_rate`, ...; everything
    else has `learning_rate`. With AdamW, decay leaves biases and normalisation alone; with
    SGD and Adam it applies to all, as PyTorch's does.

    Args:
        train: the resolved settings.
        model: the model to train.
        steps: all optimiser steps of the run, for the schedule.
    """
    extra = {"global_clipnorm": train.clip_norm or None}
    if train.optimizer == "sgd":
        extra["momentum"] = float(train.momentum)
    else:
        extra.update(beta_1=train.beta_1, beta_2=train.beta_2, epsilon=train.epsilon)
    schedule = WarmupDecay(train.learning_rate, steps, train.warmup, train.schedule)
    optimizer = OPTIMIZERS[train.optimizer](schedule, **extra)
    # By identity: layers of different parts may well share a name.
    rates = {id(v): 1.0 for v in model.trainable_variables}
    pretrained = {m.part: train[f"{m.name}_rate"] for m in MODALITY.values()}
    for layer in model.layers:
        part_rate = pretrained.get(layer.name)
        for variable in layer.trainable_variables if part_rate is not None else ():
            rates[id(variable)] = part_rate / train.learning_rate
    decays = _is_matrix if train.optimizer == "adamw" else lambda variable: True
    optimizer.configure(rates, train.weight_decay, decays)
    optimizer.build(model.trainable_variables)
    return optimizer
