"""What a contender of `bench.frameworks` runs: a step or an inference, on Keras or on PyTorch.

Imported by all contenders; each brings in only its own framework.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Contender(NamedTuple):
    """One framework, ready to run.

    Attributes:
        call: a step of training or an inference; gives the loss or a logit, on the host.
        device: the name of what it runs on.
        peak: the accelerator's peak so far in bytes, 0 on CPUs.
        inputs: name -> shape and dtype, for the reader.
    """

    call: Callable[[], float]
    device: str
    peak: Callable[[], int]
    inputs: dict[str, str]


class _Task(NamedTuple):
    """What both run: the config resolved; modality -> preset, of a C-LSTM none."""

    config: object
    spec: object
    presets: dict
    model: object
    classes: int


def on_keras(options, compiled: bool = False) -> Contender:
    """Ours, always compiled.

    Args:
        options: the flags of `bench.frameworks`.

    Raises:
        UsageError: flags that name no model.
    """
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import keras

    from fusion_keras.training.loop import losses_of
    from fusion_keras.training.optimizers import make_optimizer

    # What JAX does unasked on a GPU is TF32.
    full = options.precision == "float32"
    jax.config.update("jax_default_matmul_precision", "highest" if full else None)
    half = options.precision == "bfloat16"
    keras.config.set_dtype_policy("mixed_bfloat16" if half else "float32")
    task = _task(options)
    model, train = task.model, task.config.train
    inputs, labels = _batch(options.batch, task)
    device = jax.devices()[0]

    def peak() -> int:
        return device.memory_stats()["peak_bytes_in_use"] if device.platform == "gpu" else 0

    if options.mode == "step":
        model.compile(optimizer=make_optimizer(train, model, 10_000), **losses_of(model, train))
        targets = {"logits": labels}

        def step() -> float:
            return float(model.train_on_batch(inputs, targets))

        return Contender(step, device.device_kind, peak, _described(inputs))
    trainable = [v.value for v in model.trainable_variables]
    rest = [v.value for v in model.non_trainable_variables]

    @jax.jit
    def forward(trainable, rest, inputs):
        return model.stateless_call(trainable, rest, inputs, training=False)[0]["logits"]

    def infer() -> float:
        return float(np.asarray(forward(trainable, rest, inputs))[0, 0])

    return Contender(infer, device.device_kind, peak, _described(inputs))


def on_pytorch(options, compiled: bool) -> Contender:
    """The reference with our initial weights, as it is or under `torch.compile`.

    Args, Raises: as for `on_keras`.
    """
    import torch

    from fusion_keras.reference import optimizers
    from fusion_keras.reference.build import twin
    from fusion_keras.reference.learn import step

    task = _task(options)
    train = task.config.train
    inputs, labels = _batch(options.batch, task)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = {"num_classes": task.classes, "device": device}
    reference, taken = twin(task.spec, task.model, task.presets, **sizes)
    del task
    optimizer, scheduler = optimizers.make_optimizer(train, reference, 10_000)
    called = torch.compile(reference) if compiled else reference
    full, half = options.precision == "float32", options.precision == "bfloat16"
    torch.set_float32_matmul_precision("highest" if full else "high")
    torch.backends.cudnn.allow_tf32 = not full

    def forward(inputs):
        with torch.autocast(device, torch.bfloat16, enabled=half):
            return called(**taken(inputs)).float()

    def peak() -> int:
        return torch.cuda.max_memory_allocated() if device == "cuda" else 0

    kind = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    if options.mode == "step":
        optimizers.train_mode(reference, train)

        def learn() -> float:
            return step(forward, inputs, labels, train, optimizer, scheduler)

        return Contender(learn, kind, peak, _described(inputs))
    reference.eval()

    def infer() -> float:
        with torch.inference_mode():
            return float(forward(inputs).cpu()[0, 0])

    return Contender(infer, kind, peak, _described(inputs))


def _task(options) -> _Task:
    import keras

    from fusion_keras.fusion.architectures import CLSTM

    keras.utils.set_random_seed(0)
    return (_digits if options.variant in CLSTM.variants else _sentences)(options)


def _sentences(options) -> _Task:
    """Recipe `best`, with random weights where the presets have none."""
    from fusion_keras.config import get_config
    from fusion_keras.errors import UsageError
    from fusion_keras.fusion.architectures import FUSION
    from fusion_keras.training.recipes import resolve

    if options.units:
        raise UsageError(f"--units is for C-LSTMs: leave it out for --variant={options.variant}.")
    config = get_config()
    config.recipe, config.variant = "best", options.variant
    config.text.preset, config.text.dropout = options.text, options.dropout
    config.image.preset, config.image.size = options.image, options.size or 96
    config.data.max_length = options.length or 40
    config = resolve(config)
    presets, spec = FUSION.presets(config, {}), FUSION.spec(config)
    return _Task(config, spec, presets, FUSION.build(spec, presets, num_classes=2).model, 2)


def _digits(options) -> _Task:
    """Recipe `digits`, the sizes of configs/digits_small.py where the flags name no others."""
    from configs.digits_small import get_config
    from fusion_keras.fusion.architectures import CLSTM
    from fusion_keras.training.recipes import resolve

    config = get_config()
    config.variant = options.variant
    given = {"image": options.size, "steps": options.length, "units": options.units}
    config.clstm.update({name: size for name, size in given.items() if size})
    spec = CLSTM.spec(config)
    model = CLSTM.build(spec, {}, num_classes=spec.sizes.classes).model
    return _Task(resolve(config), spec, {}, model, spec.sizes.classes)


def _batch(count: int, task: _Task) -> tuple[dict, np.ndarray]:
    """The inputs that the model has, and labels int32 [B].

    Token ids int32 [B, T] of every length, images uint8 [B, S, S, 3], log-mel energies float32
    [B, F, 64]; digits with their noise are float32, [B, S, S, 1] and spectrograms [B, T, F].
    """
    rng = np.random.default_rng(0)
    made = {}
    for x in task.model.inputs:
        shape = (count, *x.shape[1:])
        if x.name == "token_ids":
            made[x.name] = _token_ids(
                count, task.config.data.max_length, task.presets["text"].backbone.pad_id, rng
            )
        elif "image" in task.presets and x.name == "image":
            made[x.name] = rng.integers(0, 256, shape).astype(np.uint8)
        else:
            high = 255 if x.name == "image" else 1
            made[x.name] = rng.uniform(0, high, shape).astype(np.float32)
    return made, rng.integers(0, task.classes, count).astype(np.int32)


def _token_ids(count: int, length: int, pad_id: int, rng) -> np.ndarray:
    token_ids = rng.integers(1000, 30000, (count, length)).astype(np.int32)
    for row, kept in enumerate(rng.integers(4, length + 1, count)):
        token_ids[row, kept:] = pad_id
    return token_ids


def _described(inputs: dict) -> dict[str, str]:
    return {n: f"{'x'.join(map(str, x.shape))} {x.dtype}" for n, x in inputs.items()}
