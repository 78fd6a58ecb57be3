"""PyTorch's own optimiser and schedule for the settings of a run, written a second time.

`fusion_keras/training/optimizers.py` is what must equal these; nothing of it is imported. A
step is

    train_mode(reference, train)            # once, and again after every evaluation
    optimizer.zero_grad()
    loss.backward()
    step(optimizer, scheduler, train)
"""

import math

import torch
from torch import nn


def make_optimizer(
    train, reference: nn.Module, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """The optimiser of a resolved `config.train`, and its schedule; freezes frozen parts.

    Rates are `text_rate`, `image_rate`, `audio_rate` and, for everything else, `learning_rate`.
    Decay is PyTorch's own: of all weights in SGD and Adam, where it enters the gradient; in AdamW,
    decoupled, of matrices only (neither biases nor normalisation).

    Args:
        train: optimizer, learning_rate, text_rate, image_rate, ... of each backbone there is,
            momentum, weight_decay, beta_1, beta_2, epsilon, schedule, warmup.
        reference: the model; parameters of frozen parts lose `requires_grad`.
        steps: all optimiser steps of the run. The schedule counts `scheduler.step()`.
    """
    for part in frozen_parts(reference, train):
        part.requires_grad_(False)
    groups = [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in _grouped(train, reference).items()
    ]
    if train.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=train.learning_rate, momentum=train.momentum)
    else:
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[train.optimizer]
        betas = (train.beta_1, train.beta_2)
        optimizer = kind(groups, lr=train.learning_rate, betas=betas, eps=train.epsilon)

    def factor(step: int) -> float:
        return rate_factor(step, steps, train.warmup, train.schedule)

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def step(optimizer, scheduler, train) -> None:
    """Clip the whole gradient to `train.clip_norm` (0: not at all), step, move the schedule."""
    if train.clip_norm:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, train.clip_norm)
    optimizer.step()
    scheduler.step()


def frozen_parts(reference: nn.Module, train) -> list[nn.Module]:
    """The backbones that do not learn: a rate of 0, or a variant whose parts are frozen."""
    rates, taken = _rates(train, reference), getattr(reference, "backbones", ())
    held = [name for name in taken if reference.spec["frozen"] or rates[name] == 0]
    return [getattr(reference, name) for name in held]


def train_mode(reference: nn.Module, train) -> None:
    """Training mode, but for frozen parts: their BatchNorm keeps its statistics, as Keras's."""
    reference.train()
    for part in frozen_parts(reference, train):
        part.eval()


def rate_factor(step: int, steps: int, warmup: float, shape: str) -> float:
    """Share of the peak rate at a step counted from 0: linear warm-up, then the shape.

    Args:
        step, steps: the step, and how many the run has.
        warmup: share of `steps` that warms up, in [0, 1).
        shape: "constant", or "linear" or "cosine" decay to zero.
    """
    rising = warmup * steps
    start = min(1.0, (step + 1) / max(1.0, rising))
    if shape == "constant":
        return start
    done = min(max((step - rising) / max(1.0, steps - rising), 0.0), 1.0)
    return start * (1 - done if shape == "linear" else (1 + math.cos(math.pi * done)) / 2)


def _rates(train, reference) -> dict[str, float]:
    return {name: train[f"{name}_rate"] for name in getattr(reference, "backbones", ())}


def _grouped(train, reference) -> dict[tuple[float, float], list[nn.Parameter]]:
    """(rate, decay) -> the parameters that learn with them."""
    rates = _rates(train, reference)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in reference.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = rates.get(name.split(".")[0], train.learning_rate)
        # ConvNeXt V2's response norms are vectors, though PyTorch has them with four axes.
        # CLIP's class token is a vector there, and has three axes here, as others' have.
        matrix = parameter.ndim > 1 and ".grn." not in name
        matrix = matrix or name.endswith("class_embedding")
        decays = train.optimizer != "adamw" or matrix
        groups.setdefault((rate, train.weight_decay if decays else 0.0), []).append(parameter)
    return groups
