"""Fusion models on every text family: mask, PyTorch reference, training, export, answers."""

import functools
import json

import keras
import numpy as np
import pytest

from fusion_keras.backbones.presets import TextPreset
from fusion_keras.data.tokens import load_tokenizer
from fusion_keras.fusion.graph import rebuilt
from tests.support.pairs import (
    CLASSES,
    called,
    differences,
    make_pair,
    one_thread,  # noqa: F401
    our_outputs,
    their_outputs,
    tiny_image,
)
from tests.support.shared import slow_but
from tests.support.text_families import FAMILIES, write_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ROWS, LENGTH, SIZE = 6, 9, 32
SIZES = {
    "vocabulary_size": 60,
    "num_layers": 3,
    "num_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 64,
    "dropout": 0.0,
    "max_sequence_length": 16,
}
# What differs, and whose padding is no 0.
KINDS = {
    "bert": {"pad_id": 5},
    "distilbert": {},
    "roberta": {"pad_id": 1, "num_segments": 1},
    "roberta without a pooler": {"pad_id": 1, "pooler": False},
    "electra": {"embedding_dim": 16},
    "albert": {"embedding_dim": 16, "num_groups": 2, "pad_id": 3},
    "deberta": {"position_buckets": 4, "embeds_positions": False},
    "clip": {"pad_id": 3, "end_id": 58, "projection_dim": 24},
}
QUICK = ("roberta", "albert", "clip")


@functools.cache
def pair(kind: str, variant: str):
    text = TextPreset(FAMILIES[kind].cls(**SIZES, **KINDS[kind]), None)
    return make_pair(variant, text, tiny_image("vit", SIZE, layers=3), width=32)


def batch(pad_id: int, length: int = LENGTH) -> dict:
    """Sentences from none, two tokens, on, with every id but the padding's, 0 the first."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 59, (ROWS, LENGTH))
    ids += ids >= pad_id
    ids[:, 0] = 0 if pad_id else 2
    for row in range(ROWS):
        ids[row, 1 + row] = 58  # what ends a text of CLIP
        ids[row, 2 + row :] = pad_id
    padded = np.full((ROWS, length), pad_id, np.int32)
    padded[:, :LENGTH] = ids
    images = rng.integers(0, 256, (ROWS, SIZE, SIZE, 3)).astype(np.uint8)
    return {"token_ids": padded, "image": images}


@pytest.mark.parametrize("kind", slow_but(QUICK, KINDS))
def test_padding_changes_nothing_and_a_first_token_of_id_0_counts(kind):
    graph, pad_id = pair(kind, "early").graph, KINDS[kind].get("pad_id", 0)
    logits = called(graph.model, batch(pad_id))["logits"]
    longer = called(graph.model, batch(pad_id, LENGTH + 5))["logits"]
    np.testing.assert_allclose(longer, logits, atol=1e-4 * np.abs(logits).max())
    if pad_id:
        changed = batch(pad_id)
        changed["token_ids"][:, 0] = 2
        assert np.abs(called(graph.model, changed)["logits"] - logits).max() > 1e-3


@pytest.mark.parametrize("kind", slow_but(QUICK, KINDS))
def test_a_saved_model_is_the_same_graph_again(kind, tmp_path):
    made, values = pair(kind, "early"), batch(KINDS[kind].get("pad_id", 0))
    made.graph.model.save(tmp_path / "model.keras")
    again = rebuilt(keras.saving.load_model(tmp_path / "model.keras"), made.spec)
    taps = called(again.encoders, values)
    logits = called(again.fusion, taps)["logits"]
    wanted = called(made.graph.model, values)["logits"]
    np.testing.assert_allclose(logits, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("kind", "variant"),
    slow_but(
        [(kind, "early") for kind in QUICK],
        [(kind, variant) for kind in KINDS for variant in ("early", "inter", "late")],
    ),
)
def test_the_pytorch_reference_is_equal_at_every_tap(kind, variant):
    values = batch(KINDS[kind].get("pad_id", 0))
    made = pair(kind, variant)
    found = differences(our_outputs(made, values), their_outputs(made, values))
    assert len(found) > 2
    assert max(found.values()) <= 1e-4, found
    assert made.classes == CLASSES


# --- All the way ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("roberta", "inter"),
        ("roberta without a pooler", "late"),
        ("xlm-roberta", "early"),
        ("distilbert", "late"),
        ("electra", "inter"),
        ("albert", "early"),
        ("deberta", "inter"),
        ("deberta", "late"),
        ("deberta", "early"),
    ],
)
def test_a_checkpoint_is_trained_exported_and_answers(name, variant, tiny, tmp_path, entries):
    family, preset = FAMILIES[name], tmp_path / "preset"
    tokenizer = write_tokenizer(preset, family.kind)
    pad_id = load_tokenizer(preset).ids.pad
    rows = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 40}
    family.save(preset, **rows, pad_token_id=pad_id)
    place = tiny.beside(tmp_path / "bench")
    run, out = tmp_path / "run", tmp_path / "artifact"
    sizes = {"text__preset": preset, "data__max_length": 30, "train__epochs": 1}
    flags = place.flags(variant=variant, run=run, **sizes)
    described = entries.run("fusion_keras.train", *flags, "--describe")
    assert described.returncode == 0, described.stderr
    done = entries.run("fusion_keras.train", *flags)
    assert done.returncode == 0, done.stderr
    done = entries.run("export", str(run), f"--out={out}", "--precisions=int8", "--buckets=25")
    assert done.returncode == 0, done.stderr
    meta = json.loads((out / "meta.json").read_text())
    assert meta["inputs"]["token_ids"]["pad_id"] == pad_id
    assert {"fp32", "int8", "25 tokens"} <= {rung["name"] for rung in meta["ladder"]}
    if name == "deberta":
        operators = [cost["operator"] for cost in meta["costs"]]
        assert "GatherElements" not in operators
        assert operators.count("Shape") == 1, "a length that is open is asked for once"
    image = place.folder / "data" / "0.png"
    asked = ("--text=a good day", f"--image={image}")
    answered = entries.run("bench.predict", str(out), *asked)
    assert answered.returncode == 0, answered.stderr
    assert "positive" in answered.stdout
