"""Time one CPU training step of MobileNetV2: ours on JAX against Hugging Face's on PyTorch.

    python -m bench.train_step --rounds=6

Both contenders run the same step (forward, backward and SGD update of MobileNetV2 with a
linear head, BatchNorm in training mode) on the same batch, each in a process of its own:
within one, the idle threads of one library would slow down the other. The steps alternate,
so that a machine that slows down slows both. Prints every sample and the two ratios.
"""

import argparse
import json
import multiprocessing
import os
import time

import numpy as np


def _keras_step(options):
    """Return a function that takes one training step with our backbone."""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["JAX_PLATFORMS"] = "cpu"
    import keras

    from fusion_keras.backbones.mobilenet_v2 import MobileNetV2Backbone

    shape = (options.size, options.size, 3)
    backbone = MobileNetV2Backbone(options.depth_multiplier, image_shape=shape)
    model = keras.Model(backbone.input, keras.layers.Dense(2)(backbone.summary))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss)
    images, labels = _batch(options)
    return lambda: model.train_on_batch(images, labels)


def _torch_step(options):
    """Return a function that takes one training step with transformers' model."""
    import torch
    from transformers import MobileNetV2Config, MobileNetV2Model

    torch.set_num_threads(os.cpu_count())
    backbone = MobileNetV2Model(MobileNetV2Config(depth_multiplier=options.depth_multiplier))
    head = torch.nn.Linear(backbone.conv_1x1.convolution.out_channels, 2)
    backbone.train()
    optimizer = torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=0.01)
    images, labels = _batch(options)
    images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    labels = torch.from_numpy(labels)

    def step():
        optimizer.zero_grad()
        logits = head(backbone(images).pooler_output)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


CONTENDERS = {"jax": _keras_step, "torch": _torch_step}


def _batch(options):
    """The same images float32 [B, S, S, 3] in [-1, 1] and labels int64 [B] for both."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (options.batch, options.size, options.size, 3))
    return images.astype(np.float32), rng.integers(0, 2, options.batch)


def _serve(contender, options, pipe):
    """Build one contender, warm it up, then answer every message with a step's seconds."""
    step = CONTENDERS[contender](options)
    start = time.perf_counter()
    step()
    first = time.perf_counter() - start
    step()
    pipe.send(first)  # only now: nothing of ours may run during the other's steps
    while pipe.recv():
        start = time.perf_counter()
        step()
        pipe.send(time.perf_counter() - start)


def measure(options) -> dict[str, list[float]]:
    """Return the seconds of `options.rounds` alternating steps per contender."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name in CONTENDERS:
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=_serve, args=(name, options, theirs), daemon=True))
        processes[-1].start()
        theirs.close()
        print(f"{name}: first step, with compilation, {pipes[name].recv():.1f} s", flush=True)
    samples = {name: [] for name in CONTENDERS}
    for _ in range(options.rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            samples[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    for process in processes:
        process.join()
    return samples


def main():
    """Measure, then print the samples, minima, medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6, help="steps of each contender")
    parser.add_argument("--batch", type=int, default=32, help="images a step")
    parser.add_argument("--size", type=int, default=224, help="pixels, width and height")
    parser.add_argument("--depth_multiplier", type=float, default=1.0, help="width of the model")
    parser.add_argument("--json", help="also write the samples to this file")
    options = parser.parse_args()
    samples = measure(options)
    for name, seconds in samples.items():
        print(f"{name:6} samples [s]: {' '.join(f'{s:.3f}' for s in seconds)}")
    for label, statistic in (("min", np.min), ("median", np.median)):
        ours, theirs = statistic(samples["jax"]), statistic(samples["torch"])
        print(f"{label:6} jax {ours:.3f} s, torch {theirs:.3f} s, ratio {ours / theirs:.2f}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({**vars(options), "cpus": os.cpu_count(), "seconds": samples}, file)


if __name__ == "__main__":
    main()
