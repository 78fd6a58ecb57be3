"""Weights to PyTorch and back, and Hugging Face's classifiers as parents of late fusion."""

import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
)

from fusion_keras.backbones import presets
from fusion_keras.errors import UsageError
from fusion_keras.reference.build import of_run, tensors
from fusion_keras.training import porting
from fusion_keras.training.experiment import train
from fusion_keras.training.run import read_json
from tests.support import tiny


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> tiny.Bench:
    return tiny.beside(tmp_path_factory.mktemp("port"))


@pytest.fixture(scope="module")
def inter(bench):
    changes = {"fusion__junctions": "1+1:linear,2+2:attention", "train__epochs": 1}
    return train(bench.config(variant="inter", **changes), bench.folder / "inter").folder


@pytest.fixture(scope="module")
def weights(inter, bench):
    path = bench.folder / "inter.safetensors"
    assert porting.to_pytorch(inter, path) == len(load_file(path))
    return path


def golden(folder):
    arrays = np.load(folder / "golden.npz")
    inputs = {n.removeprefix("input_"): arrays[n] for n in arrays if n.startswith("input_")}
    return inputs, arrays["output_logits"]


def test_pytorch_gives_the_runs_own_answers(inter, weights):
    inputs, logits = golden(inter)
    model = of_run(inter, weights)
    with torch.no_grad():
        found = model(**tensors(model, inputs, 1 / 127.5, -1.0)).numpy()
    np.testing.assert_allclose(found, logits, rtol=0, atol=1e-5)


def test_the_way_back_gives_a_run_with_the_same_predictions(inter, weights, tmp_path):
    run = porting.from_pytorch(inter, weights, tmp_path / "back")
    assert run.complete
    described = run.read_json("config.json")
    assert described["framework"] == "ported"
    assert described["ported"]["from"] == str(weights)
    before = tiny.table(type(run)(inter), "predictions.csv")
    assert tiny.table(run, "predictions.csv") == before


def test_other_weights_make_no_run(inter, weights, tmp_path):
    arrays = load_file(weights)
    arrays.pop("heads.0.1.bias")
    save_file(arrays, tmp_path / "less.safetensors")
    with pytest.raises(UsageError, match=r"less\.safetensors lacks heads\.0\.1\.bias"):
        porting.from_pytorch(inter, tmp_path / "less.safetensors", tmp_path / "run")
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UsageError, match=r"cut\.safetensors cannot be read as safetensors"):
        porting.from_pytorch(inter, tmp_path / "cut.safetensors", tmp_path / "run")
    with pytest.raises(UsageError, match="is not a finished run"):
        porting.from_pytorch(tmp_path, weights, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_there_is_not_replaced(inter, weights, tmp_path):
    shutil.copytree(inter, tmp_path / "there")
    with pytest.raises(UsageError, match="is there already"):
        porting.from_pytorch(inter, weights, tmp_path / "there")


# --- Hugging Face's classifiers -----------------------------------------------------------------


@pytest.fixture(scope="module")
def classifiers(bench):
    """Modality -> a directory as a fine-tuning with transformers leaves it."""
    torch.manual_seed(0)
    names = {0: "Positive", 1: "negative"}  # neither the data's order nor its spelling
    labels = {"id2label": names, "label2id": {n: i for i, n in names.items()}}
    vocabulary = bench.folder / "presets" / "text" / "vocab.txt"
    text = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(vocabulary.read_text().split()),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            initializer_range=0.3,
            **labels,
        )
    )
    image = MobileNetV2ForImageClassification(
        MobileNetV2Config(depth_multiplier=0.1, image_size=32, finegrained_output=False, **labels)
    )
    folders = {"text": bench.folder / "bert", "image": bench.folder / "mobilenet"}
    text.save_pretrained(folders["text"])
    image.save_pretrained(folders["image"])
    shutil.copy(vocabulary, folders["text"])
    return folders


@pytest.fixture(scope="module")
def settings(classifiers):
    return {f"{modality}__preset": str(path) for modality, path in classifiers.items()}


@pytest.fixture(scope="module")
def parents(bench, classifiers, settings):
    made = {}
    for modality, folder in classifiers.items():
        config = bench.config(variant=modality, **settings)
        made[modality] = porting.from_classifier(config, folder, bench.folder / f"p-{modality}")
    return made


def test_a_text_classifier_tells_what_it_told(parents, classifiers):
    inputs, logits = golden(parents["text"].folder)
    model = BertForSequenceClassification.from_pretrained(classifiers["text"]).eval()
    token_ids = torch.from_numpy(inputs["token_ids"]).long()
    with torch.no_grad():
        found = model(input_ids=token_ids, attention_mask=token_ids != 0).logits.numpy()
    assert np.ptp(found[:, 0]) > 0.01  # that sentences differ is what is compared
    np.testing.assert_allclose(logits, found[:, ::-1], rtol=0, atol=1e-5 * np.abs(found).max())


def test_an_image_classifier_tells_what_it_told(parents, classifiers):
    inputs, logits = golden(parents["image"].folder)
    model = MobileNetV2ForImageClassification.from_pretrained(classifiers["image"]).eval()
    pixels = torch.from_numpy(inputs["image"]).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        found = model(pixel_values=pixels).logits.numpy()
    np.testing.assert_allclose(logits, found[:, ::-1], rtol=0, atol=1e-5 * np.abs(found).max())


def _of(family, sizes, **more):
    """A classifier of two classes with random weights."""
    torch.manual_seed(0)
    auto = transformers.AutoModelForSequenceClassification
    if family != "albert":
        auto = transformers.AutoModelForImageClassification
    names = {0: "Positive", 1: "negative"}
    config = transformers.AutoConfig.for_model(
        family, **sizes, id2label=names, label2id={n: i for i, n in names.items()}, **more
    )
    if family == "deit":  # there are two of it
        auto = transformers.DeiTForImageClassification
    model = auto._from_config(config) if family == "deit" else auto.from_config(config)
    for name, value in model.state_dict().items():
        if "classifier" in name:
            value.normal_()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # the statistics of one batch, so that no layer silences the next
    if norms:
        with torch.no_grad():
            model.train()(pixel_values=torch.randn(8, 3, 32, 32))
    return model.eval()


_ENCODER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
_PATCHES = {**_ENCODER, "image_size": 32, "patch_size": 8, "initializer_range": 0.3}


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("albert", {**_ENCODER, "embedding_size": 8, "initializer_range": 0.3}),
        *(
            pytest.param(family, sizes, marks=pytest.mark.slow)
            for family, sizes in {
                "deit": _PATCHES,
                "vit": _PATCHES,
                "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1] * 4},
                "convnext": {
                    "hidden_sizes": [8, 16, 16, 16],
                    "depths": [1] * 4,
                    "layer_scale_init_value": 1.0,
                    "initializer_range": 0.3,
                },
                "convnextv2": {
                    "hidden_sizes": [8, 16, 16, 16],
                    "depths": [1] * 4,
                    "initializer_range": 0.3,
                },
                "efficientnet": {
                    "width_coefficient": 0.25,
                    "hidden_dim": 320,
                    "image_size": 32,
                    "kernel_sizes": [3, 5],
                    "in_channels": [32, 16],
                    "out_channels": [16, 24],
                    "strides": [1, 2],
                    "num_block_repeats": [1, 1],
                    "expand_ratios": [1, 6],
                    "initializer_range": 0.3,
                },
            }.items()
        ),
    ],
)
def test_classifiers_of_each_family_tell_what_they_told(bench, tmp_path, family, sizes):
    vocabulary = bench.folder / "presets" / "text" / "vocab.txt"
    text = family == "albert"
    more = {"vocab_size": len(vocabulary.read_text().split())} if text else {}
    model = _of(family, sizes, **more)
    model.save_pretrained(tmp_path / "theirs")
    if text:
        shutil.copy(vocabulary, tmp_path / "theirs")
    variant = "text" if text else "image"
    config = bench.config(variant=variant, **{f"{variant}__preset": str(tmp_path / "theirs")})
    run = porting.from_classifier(config, tmp_path / "theirs", tmp_path / "run")
    inputs, logits = golden(run.folder)
    with torch.no_grad():
        if text:
            token_ids = torch.from_numpy(inputs["token_ids"]).long()
            taken = {"input_ids": token_ids, "attention_mask": token_ids != 0}
        else:
            *_, (scale, offset) = presets.find_image(str(tmp_path / "theirs"), tiny.EDGE)
            pixels = np.asarray(inputs["image"] * np.float32(scale) + np.float32(offset))
            taken = {"pixel_values": torch.from_numpy(pixels).permute(0, 3, 1, 2)}
        found = model(**taken).logits.numpy()
    assert np.ptp(found[:, 0]) > 0.01
    np.testing.assert_allclose(logits, found[:, ::-1], rtol=0, atol=1e-4 * np.abs(found).max())


@pytest.mark.slow
def test_classifiers_are_parents_of_late_fusion(parents, bench, settings, tmp_path):
    folders = tuple(str(run.folder) for run in parents.values())
    config = bench.config(variant="late", parents=folders, **settings)
    run = train(config, tmp_path / "late")
    assert set(read_json(run.folder / "config.json")["parents"]) == {"text", "image"}


def test_a_ported_run_is_not_taken_for_a_trained_one(parents, bench, settings):
    with pytest.raises(UsageError, match="framework was ported, is keras"):
        train(bench.config(variant="text", **settings), parents["text"].folder)


@pytest.mark.parametrize(
    ("theirs", "order"),
    [(["b", "A"], [1, 0]), (["LABEL_0", "LABEL_1"], [0, 1])],
)
def test_classes_are_matched_by_name(theirs, order):
    assert porting.class_order(theirs, ["a", "b"], "x") == order


@pytest.mark.parametrize("theirs", [["a"], ["a", "c"], ["LABEL_0", "LABEL_1", "LABEL_2"], []])
def test_other_classes_are_refused(theirs):
    with pytest.raises(UsageError, match="name the classes alike"):
        porting.class_order(theirs, ["a", "b"], "x")


@pytest.mark.parametrize("names", [None, {0: "bad", 1: "good"}, {0: 0, 1: 1}])
def test_labels_are_those_that_transformers_writes(tmp_path, names):
    more = {"id2label": names, "label2id": {n: i for i, n in names.items()}} if names else {}
    BertConfig(num_labels=2, **more).save_pretrained(tmp_path)
    wanted = list(map(str, names.values())) if names else ["LABEL_0", "LABEL_1"]
    assert porting.labels_of(read_json(tmp_path / "config.json")) == wanted


def test_scores_and_several_labels_are_no_classifiers(bench, classifiers, tmp_path):
    config = bench.config(variant="text", regression=True)
    with pytest.raises(UsageError, match="gives no score"):
        porting.from_classifier(config, classifiers["text"], tmp_path / "run")


def test_settings_beside_a_run_are_refused(entries, tmp_path):
    flags = (f"--out={tmp_path / 'w.safetensors'}", "--config.data.path=other.csv")
    done = entries.run("fusion_keras.port", "runs/any", *flags)
    assert done.returncode == 2
    assert "a RUN has settings of its own" in done.stderr


@pytest.mark.parametrize(
    "changes", [{"variant": "late"}, {"fusion__hidden": 8}, {"fusion__junctions": "2+-:concat"}]
)
def test_a_classifier_is_one_modality_with_a_linear_head(bench, classifiers, tmp_path, changes):
    config = bench.config(**{"variant": "text", **changes})
    with pytest.raises(UsageError, match="A classifier becomes a run of"):
        porting.from_classifier(config, classifiers["text"], tmp_path / "run")
