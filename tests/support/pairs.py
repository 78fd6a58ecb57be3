"""One architecture twice: our model and its PyTorch reference, with the same weights.

A family is all variants over one pair of backbones. Its gradients are one compiled program,
in which a number for each variant says whose loss counts: eight programs would take minutes.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import keras
import numpy as np
import pytest
import torch
from keras import ops

from fusion_keras.backbones.audio_cnn import AudioCnnBackbone
from fusion_keras.backbones.bert import BertBackbone
from fusion_keras.backbones.mobilenet_v2 import MobileNetV2Backbone
from fusion_keras.backbones.presets import AudioPreset, ImagePreset, TextPreset
from fusion_keras.backbones.vit import ViTBackbone
from fusion_keras.config import get_config
from fusion_keras.data.images import ImageSpec
from fusion_keras.data.log_mel import BANDS
from fusion_keras.fusion.graph import Graph, build
from fusion_keras.fusion.spec import FusionSpec
from fusion_keras.fusion.state_dict import state_dict, weights
from fusion_keras.fusion.variants import make_spec
from fusion_keras.modalities.text import PaddingMask, SegmentIds
from fusion_keras.reference.build import empty, filled, tensors
from fusion_keras.reference.model import Reference
from fusion_keras.training.losses import losses_of
from tests.support.backbones import known
from tests.support.tiny import OF_TEXT_AND_IMAGES as VARIANTS

VISION = ("mobilenet", "vit")
CLASSES, VOCABULARY = 3, 60
SCALE, OFFSET = 1 / 127.5, -1.0
SMALL = {"num_heads": 4, "hidden_dim": 32}


@pytest.fixture(autouse=True)
def one_thread():
    """Of PyTorch's: its threads spin while they wait, for small sums longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_text(layers: int = 6) -> TextPreset:
    """A narrow BERT without dropout."""
    sizes = {"num_layers": layers, "intermediate_dim": 64, "dropout": 0.0}
    return TextPreset(BertBackbone(vocabulary_size=VOCABULARY, **SMALL, **sizes), Path())


def tiny_image(vision: str, size: int, layers: int = 12) -> ImagePreset:
    """A narrow MobileNetV2, which always has its 16 blocks, or a narrow ViT."""
    shape = (size, size, 3)
    if vision == "mobilenet":
        backbone = MobileNetV2Backbone(0.35, shape, finegrained_output=False)
    else:
        backbone = ViTBackbone(shape, size // 8, num_layers=layers, mlp_dim=64, **SMALL)
    return ImagePreset(backbone, ImageSpec(size), SCALE, OFFSET)


def tiny_audio(frames: int) -> AudioPreset:
    """A narrow encoder of sound, which always has its 8 blocks."""
    return AudioPreset(AudioCnnBackbone(frames, depth_multiplier=0.25), frames / 100)


# --- One variant --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """Our graph of a spec, and the presets it was built of, by modality; the reference is made on
    demand."""

    graph: Graph
    spec: FusionSpec
    presets: dict
    classes: int

    @functools.cached_property
    def weights(self) -> dict:
        return weights(self.graph.model, self.spec)

    def reference(self) -> Reference:
        """A new one, with our weights, in evaluation mode."""
        made = empty(self.spec, self.presets, num_classes=self.classes)
        return filled(made, state_dict(self.graph.model, self.spec)).eval()

    def taken(self, values: dict) -> dict:
        """The inputs that this architecture has."""
        return {x.name: values[x.name] for x in self.graph.model.inputs}


def make_pair(
    variant: str, text=None, image=None, audio=None, *, num_classes: int = CLASSES, **changes
) -> Pair:
    """Build our graph, and draw its weights so that no tap fades and every weight matters.

    Args:
        variant: a key of `variants.VARIANTS`.
        text, image, audio: presets, as far as the variant takes them.
        num_classes: C.
        changes: of `config.fusion`.
    """
    fusion = get_config().fusion
    fusion.update({"dropout": 0.0, **changes})
    given = {"text": text, "image": image, "audio": audio}
    presets = {m: preset for m, preset in given.items() if preset}
    spec = make_spec(variant, fusion, known(presets))
    presets = {m: presets[m] for m in spec.modalities}
    graph = build(spec, presets, num_classes=num_classes)
    pair = Pair(graph, spec, presets, num_classes)
    _draw(pair.weights)
    return pair


def _draw(named: dict) -> None:
    """Set every weight. Its name is its seed: variants that share a backbone agree on it."""
    for name, weight in named.items():
        shape = weight.read().shape
        values = _drawn(name, shape, np.random.default_rng(zlib.crc32(name.encode())))
        for variable, value in zip(weight.variables, weight.to_keras(values), strict=True):
            variable.assign(value.astype("float32"))


def _drawn(name: str, shape: tuple, rng) -> np.ndarray:
    """Values for a tensor of PyTorch.

    BatchNorm's put the activations of a batch into the middle of ReLU6's range, four standard
    deviations from its edges: some are cut off on either side, and hardly one lies so close
    to an edge that rounding decides on which side, which would decide on its gradient.
    The values of attention are small, as its averages otherwise make all tokens one within
    twelve layers (Dong, Cordonnier and Loukas 2021, arXiv 2103.03404), and then nothing but
    rounding reaches the queries and keys of the last ones.
    """
    noise = rng.normal(size=shape)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if len(shape) == 1:
        if ".normalization." in name:
            return 0.75 + 0.1 * noise if name.endswith(".weight") else 3 + 0.1 * noise
        return 0.2 * noise + name.endswith(".weight")
    if name.endswith(("cls_token", "positions", "embeddings", "embeddings.weight")):
        return noise
    if name.endswith((".value.weight", ".v_proj.weight")):
        noise = 0.3 * noise
    return noise * math.sqrt((2 if len(shape) == 4 else 1.7) / math.prod(shape[1:]))


# --- What goes in -------------------------------------------------------------------------------


def tiny_batch(rows: int, size: int, length: int = 10) -> dict:
    """Sentences of all lengths from none, [CLS][SEP], to full, and noise for images."""
    rng = np.random.default_rng(0)
    token_ids = rng.integers(1, VOCABULARY, (rows, length)).astype(np.int32)
    for row in range(rows):
        token_ids[row, 2 + row % (length - 1) :] = 0
    images = rng.integers(0, 256, (rows, size, size, 3)).astype(np.uint8)
    return {"token_ids": token_ids, "image": images}


def tiny_sounds(rows: int, frames: int, bands: int = BANDS) -> np.ndarray:
    """Log-mel energies of noise under another envelope in every row, float32 [B, F, bands].

    The first is silence, the second as loud as can be.
    """
    rng = np.random.default_rng(2)
    envelopes = rng.random((rows, frames, 1)) * rng.random((rows, 1, bands))
    sounds = envelopes * rng.random((rows, frames, bands))
    sounds[0], sounds[1] = 0, 1
    return sounds.astype(np.float32)


def extreme_images(size: int) -> np.ndarray:
    """Black, white, noise and a checkerboard of single pixels: uint8 [4, S, S, 3]."""
    noise = np.random.default_rng(1).integers(0, 256, (size, size, 3))
    board = np.indices((size, size)).sum(0)[..., None] % 2 * np.full(3, 255)
    blank = np.zeros((size, size, 3))
    return np.stack([blank, blank + 255, noise, board]).astype(np.uint8)


def torch_inputs(reference: Reference, values: dict) -> dict:
    """The batch as the reference takes it."""
    return tensors(reference, values, SCALE, OFFSET)


# --- Outputs ------------------------------------------------------------------------------------


def our_outputs(pair: Pair, values: dict) -> dict[str, np.ndarray]:
    """Every tap that the junctions take, under its name, and `logits`."""
    graph = pair.graph
    taps = graph.taps()
    model = keras.Model(graph.model.input, {**taps, **graph.model.output})
    return called(model, pair.taken(values))


def called(model: keras.Model, values: dict, training: bool = False) -> dict[str, np.ndarray]:
    """The outputs of a model, compiled; nothing of it changes."""

    def run(trainable, fixed, values):
        return model.stateless_call(trainable, fixed, values, training=training)[0]

    weights_of = model.trainable_variables, model.non_trainable_variables
    given = [[v.value for v in variables] for variables in weights_of]
    found = quick_jit(run)(*given, values)
    return {name: np.asarray(x) for name, x in found.items()}


def quick_jit(function):
    """`jax.jit` for what runs a few times: LLVM's optimisation would cost more than it brings."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def their_outputs(pair: Pair, values: dict) -> dict[str, np.ndarray]:
    """The same of the reference, feature maps channels last."""
    reference = pair.reference()
    with torch.no_grad():
        given = torch_inputs(reference, values)
        taps, mask = reference.taps(given["inputs"])
        found = {"logits": reference.fuse(taps, mask, given["present"])}
    for modality, by_depth in taps.items():
        for depth in pair.spec.depths(modality):
            x = by_depth[depth]
            found[f"{modality}_{depth}"] = x.permute(0, 2, 3, 1) if x.ndim == 4 else x
    return {name: x.numpy() for name, x in found.items()}


def differences(ours: dict, theirs: dict) -> dict[str, float]:
    """Name -> largest difference over the largest magnitude; the names must agree."""
    assert ours.keys() == theirs.keys()
    for name, x in theirs.items():
        assert ours[name].shape == x.shape, name
        apart = np.ptp(x, axis=0).max()
        # A hundred times what they may differ by: the last vector of a random MobileNetV2 1.4
        # hardly differs from image to image.
        assert apart > 0.01 * np.abs(x).max(), f"{name} does not tell the examples apart"
    return {n: float(np.abs(ours[n] - x).max() / np.abs(x).max()) for n, x in theirs.items()}


# --- Gradients ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """All variants, or some, over the same backbones.

    Attributes:
        pairs: variant -> its pair; the backbones' layers are the same in all.
        encoders: the inputs -> every tap of the backbones, and the mask.
        compile: `quick_jit`, or `jax.jit` where the sizes pay for it.
    """

    pairs: dict[str, Pair]
    encoders: keras.Model
    compile: Callable

    @functools.cached_property
    def _compiled(self):
        parts = [self.encoders, *(pair.graph.fusion for pair in self.pairs.values())]
        first = next(iter(self.pairs.values()))
        cross_entropy = losses_of(first.graph.model, plain_train())["loss"]["logits"]

        def loss(trainable, fixed, values, targets, chosen):
            run = [functools.partial(p.stateless_call, training=True) for p in parts]
            taps, after = run[0](trainable[0], fixed[0], values)
            total, states = 0.0, [after]
            for i, part in enumerate(parts[1:], 1):
                taken = {name: taps[name] for name in part.input}
                outputs, after = run[i](trainable[i], fixed[i], taken)
                total = total + chosen[i - 1] * ops.mean(cross_entropy(targets, outputs["logits"]))
                states.append(after)
            return total, states

        return parts, self.compile(jax.value_and_grad(loss, has_aux=True))

    def step(self, variant: str, values: dict, targets, changed: dict | None = None):
        """One variant's loss in training, and what it gives.

        Args:
            variant: whose loss.
            values, targets: the batch; targets float [B, C].
            changed: id of a variable -> its value, where it is no longer the model's own.

        Returns:
            (loss, id -> gradient, id -> value after), the last of what is not trained.
        """
        parts, compiled = self._compiled
        trainable = [part.trainable_variables for part in parts]
        fixed = [part.non_trainable_variables for part in parts]
        changed = changed or {}
        given = jax.tree.map(lambda v: changed.get(id(v), v.value), (trainable, fixed))
        chosen = np.array([v == variant for v in self.pairs], np.float32)
        targets = np.asarray(targets, np.float32)
        (loss, after), gradients = compiled(*given, values, targets, chosen)
        found = [
            {id(v): x for v, x in zip(jax.tree.leaves(vs), jax.tree.leaves(xs), strict=True)}
            for vs, xs in ((trainable, gradients), (fixed, after))
        ]
        return float(loss), *found


def make_family(
    text, image, audio=None, variants=VARIANTS, compile: Callable | None = None, **changes
) -> Family:
    """Build every variant over two presets or three; changes are of `config.fusion`."""
    pairs = {v: make_pair(v, text, image, audio, **changes) for v in variants}
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    pixels = keras.Input(image.backbone.input.shape[1:], dtype="uint8", name="image")
    mask = PaddingMask()(token_ids)
    read = {"token_ids": token_ids, "segment_ids": SegmentIds()(token_ids), "padding_mask": mask}
    scaled = keras.layers.Rescaling(image.scale, image.offset)(pixels)
    taps = {"mask": mask, **_all_taps("text", text, read), **_all_taps("image", image, scaled)}
    inputs = {"token_ids": token_ids, "image": pixels}
    if audio:
        inputs["audio"] = keras.Input(audio.backbone.input.shape[1:], name="audio")
        taps |= _all_taps("audio", audio, inputs["audio"])
    encoders = keras.Model(inputs, taps)
    return Family(pairs, encoders, compile or quick_jit)


def _all_taps(modality: str, preset, inputs) -> dict:
    backbone = preset.backbone
    taps = {**backbone.taps, "last": backbone.summary}
    named = {f"{modality}_{depth}": x for depth, x in taps.items()}
    return keras.Model(backbone.input, named)(inputs)


def plain_train(**changes):
    """`config.train` as far as a loss reads it: no smoothing."""
    train = get_config().train
    train.update({"label_smoothing": 0.0, **changes})
    return train


def in_pytorch(pair: Pair, by_id: dict) -> dict[str, np.ndarray]:
    """Id of a variable -> its gradient, as PyTorch's name -> array; what is missing is left out."""
    return {
        name: weight.to_pytorch(*(np.asarray(by_id[id(v)]) for v in weight.variables))
        for name, weight in pair.weights.items()
        if all(id(v) in by_id for v in weight.variables)
    }


def torch_gradients(reference: Reference, values: dict, labels, dtype=torch.float32):
    """(loss, name -> gradient) in training mode; the reference becomes one of that dtype."""
    reference.to(dtype).train().zero_grad()
    taken = torch_inputs(reference, values)
    inputs = taken["inputs"].items()
    cast = {m: x.to(dtype) if x.is_floating_point() else x for m, x in inputs}
    logits = reference(cast, taken["present"])
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels).long())
    loss.backward()
    learned = ((name, p) for name, p in reference.named_parameters() if p.requires_grad)
    found = {name: p.grad.numpy() for name, p in learned}
    return loss.item(), found
