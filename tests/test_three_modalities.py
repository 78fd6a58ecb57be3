"""Sound as a third modality: joins by hand, every variant, and the way to a device."""

import csv
import json

import keras
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from bench.__main__ import main as bench_main
from bench.edge.artifact import read
from bench.edge.predict import main as ask
from bench.edge.predictor import Predictor
from bench.edge.runners.workstation import torch_call
from export.pipeline import export
from export.request import Request
from fusion_keras import api
from fusion_keras.backbones.presets import load_audio, load_image, load_text
from fusion_keras.config import get_config
from fusion_keras.data import sound
from fusion_keras.data.log_mel import log_mel
from fusion_keras.data.pipeline import train_batches
from fusion_keras.errors import UsageError
from fusion_keras.fusion.describe import count_macs, describe
from fusion_keras.fusion.draw import draw
from fusion_keras.fusion.graph import build, rebuilt
from fusion_keras.fusion.joins import join
from fusion_keras.fusion.spec import Junction
from fusion_keras.fusion.state_dict import load_state_dict, state_dict
from fusion_keras.fusion.variants import VARIANTS, make_spec
from fusion_keras.reference.build import of_run, tensors
from fusion_keras.reference.learn import PYTORCH
from fusion_keras.studies.robustness import cells
from fusion_keras.studies.robustness.load import load
from fusion_keras.studies.robustness.study import Options, measure
from fusion_keras.training.experiment import train
from fusion_keras.training.porting import from_pytorch, to_pytorch
from fusion_keras.training.recipes import resolve
from fusion_keras.training.restored import load_model
from fusion_keras.training.run import Run
from tests.support.backbones import facts
from tests.support.graphs import normed, run, weigh
from tests.support.pairs import called
from tests.support.shared import slow_but
from tests.support.tiny import Bench, table

LENGTH, CLASSES = 6, 3
MODALITIES = ("text", "image", "audio")
JOINS = ("linear", "add", "gate", "attention", "cross")


# --- Joins by hand ------------------------------------------------------------------------------

TEXT = np.array([[[1.0, 2.0], [3.0, 4.0], [100.0, 200.0]]], "float32")  # [1, 3, 2]
MASK = np.array([[1, 1, 0]], "int32")
MAP = np.arange(12, dtype="float32").reshape(1, 2, 2, 3)
SOUND = np.random.default_rng(0).normal(size=(1, 5, 4, 4)).astype("float32")  # [1, t, f, C]
MEANS = {
    "text": TEXT[:, :2].mean(1),
    "image": MAP.mean((1, 2)),
    "audio": SOUND.mean((1, 2)),
}


def joined(kind, width=4, **changes):
    """A model of one junction of all three modalities on fixed taps, and its inputs."""
    junction = Junction({"text": 1, "image": 1, "audio": 1}, kind, width, **changes)
    given = {"text": TEXT, "image": MAP, "audio": SOUND}
    taps = {m: keras.Input(x.shape[1:], name=m) for m, x in given.items()}
    mask = keras.Input((3,), dtype="int32", name="mask")
    model = keras.Model({**taps, "mask": mask}, join(junction, taps, mask, "mean", "j"))
    return model, {**given, "mask": MASK}


def projected(model):
    """Modality -> its mean, normed and projected by random weights."""
    to = weigh(model, **{m: f"j_{m}_project" for m in MODALITIES})
    return {m: to[m](normed(x)) for m, x in MEANS.items()}


def test_concat_puts_sound_last():
    model, inputs = joined("concat", width=0)
    np.testing.assert_allclose(model(inputs), np.concatenate(list(MEANS.values()), -1), rtol=1e-6)


def test_add_sums_three_projections():
    model, inputs = joined("add")
    expected = sum(projected(model).values())
    np.testing.assert_allclose(model(inputs), expected, atol=1e-5)


def test_gate_has_one_gate_for_each_of_three():
    model, inputs = joined("gate")
    h = {m: np.tanh(x) for m, x in projected(model).items()}
    gates = weigh(model, seed=1, **{m: f"j_{m}_gate" for m in MODALITIES})
    every = np.concatenate(list(h.values()), -1)
    z = {m: 1 / (1 + np.exp(-gates[m](every))) for m in MODALITIES}
    assert not np.allclose(z["text"] + z["image"], 1, atol=0.1)
    np.testing.assert_allclose(model(inputs), sum(z[m] * h[m] for m in MODALITIES), atol=1e-5)


@pytest.mark.parametrize("tokens", ["pooled", "sequence"])
@pytest.mark.parametrize("kind", slow_but(["attention"], ["attention", "cross"]))
def test_attention_gives_a_vector_for_each_of_three_and_sees_no_padding(kind, tokens):
    grid = 2 if tokens == "sequence" else 0
    model, inputs = joined(kind, blocks=2, heads=2, tokens=tokens, grid=grid)
    assert model(inputs).shape == (1, 12)
    masked = np.where(MASK[..., None], TEXT, -7.0)
    np.testing.assert_allclose(model({**inputs, "text": masked}), model(inputs), atol=1e-6)


@pytest.mark.parametrize("tokens", slow_but(["pooled"], ["pooled", "sequence"]))
def test_each_modality_crosses_with_both_others(tokens):
    grid = 2 if tokens == "sequence" else 0
    model, inputs = joined("cross", blocks=1, heads=2, tokens=tokens, grid=grid)
    parts = np.split(np.asarray(model(inputs)), 3, axis=-1)
    for modality in MODALITIES:
        turned = {**inputs, modality: inputs[modality][..., ::-1]}
        changed = np.split(np.asarray(model(turned)), 3, axis=-1)
        moved = [np.abs(a - b).max() > 1e-4 for a, b in zip(parts, changed, strict=True)]
        assert moved == [True] * 3


@pytest.mark.parametrize(("grid", "tokens"), slow_but([(2, 3)], [(1, 1), (2, 3), (3, 5)]))
def test_sound_gives_at_most_the_grids_tokens_along_time(grid, tokens):
    model, inputs = joined("attention", blocks=1, heads=2, tokens="sequence", grid=grid)
    assert model.get_layer("j_audio_positions").position_embeddings.shape == (tokens, 4)
    # Frequency is averaged away: turned upside down, the sound is the same.
    turned = model({**inputs, "audio": SOUND[:, :, ::-1]})
    np.testing.assert_allclose(turned, model(inputs), atol=1e-5)
    assert np.abs(np.asarray(model({**inputs, "audio": SOUND[:, ::-1]}) - model(inputs))).max() > (
        1e-4 if tokens > 1 else -1
    )


# --- Whole models -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def presets():
    return load_text("tiny_bert"), load_image("tiny_mobilenet"), load_audio("tiny_audio", 0.5)


@pytest.fixture(scope="module")
def make(presets):
    """(variant, ...) -> (spec, graph), each made once."""
    made = {}

    def make(variant, **changes):
        key = (variant, *changes.items())
        if key not in made:
            fusion = get_config().fusion
            fusion.update({"width": 16, "modalities": "text+image+audio", **changes})
            spec = make_spec(variant, fusion, facts(6, 16, audio=8))
            taken = dict(zip(MODALITIES, presets, strict=True))
            made[key] = spec, build(spec, taken, num_classes=CLASSES, sequence_length=LENGTH)
        return made[key]

    return make


def inputs_of(model):
    rng = np.random.default_rng(0)
    values = {"token_ids": rng.integers(1, 1000, (2, LENGTH)).astype("int32")}
    values["token_ids"][0, -2:] = 0
    values["image"] = rng.integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    values["audio"] = rng.random((2, 48, 64), "float32")
    values |= {f"present_{m}": np.ones((2, 1), "float32") for m in MODALITIES}
    return {x.name: values[x.name] for x in model.inputs}


@pytest.mark.slow
@pytest.mark.parametrize("variant", [v for v in VARIANTS if v not in ("text", "image", "tabular")])
def test_variant_takes_sound_and_comes_back_from_disk(make, tmp_path, variant):
    spec, graph = make(variant)
    assert "audio" in {x.name for x in graph.model.inputs}
    inputs = inputs_of(graph.model)
    logits = run(graph.model, inputs)["logits"]
    assert logits.shape == (2, CLASSES)
    louder = run(graph.model, {**inputs, "audio": inputs["audio"] ** 2})["logits"]
    assert np.abs(louder - logits).max() > 1e-5
    graph.model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    halves = rebuilt(again, spec)
    found = run(halves.fusion, halves.encoders(inputs, training=False))["logits"]
    np.testing.assert_allclose(found, logits, atol=1e-5)


def test_early_fusion_builds_half_of_the_audio_encoder(make, presets):
    _, graph = make("early")
    names = {layer.name for layer in graph.model.get_layer("audio_backbone").layers}
    assert "layer.3.reduce_1x1.convolution" in names
    assert "layer.4.expand_1x1.convolution" not in names


@pytest.mark.parametrize("join", JOINS)
def test_weights_go_to_a_state_dict_and_back(make, join):
    spec, graph = make("early", junctions=f"2+3+1:{join}")
    before = state_dict(graph.model, spec)
    numbers = sum(x.size for x in before.values())
    assert numbers == graph.model.count_params()
    assert any(name.startswith("audio.conv_stem.") for name in before)
    rng = np.random.default_rng(0)
    drawn = {name: rng.random(x.shape, "float32") for name, x in before.items()}
    load_state_dict(graph.model, spec, drawn, "drawn")
    after = state_dict(graph.model, spec)
    for name, x in drawn.items():
        np.testing.assert_array_equal(after[name], x, name)
    load_state_dict(graph.model, spec, before, "before")


@pytest.mark.parametrize("variant", ["inter", "late_score", "audio"])
def test_description_adds_up_and_is_drawn(make, tmp_path, variant):
    spec, graph = make(variant)
    *parts, total = describe(spec, graph)
    assert total.parameters == sum(p.parameters for p in parts) == graph.model.count_params()
    assert total.macs == sum(p.macs for p in parts) == count_macs(graph.model)
    (audio,) = (part for part in parts if part.name.startswith("audio, taps"))
    assert audio.takes == "48x64"
    tops = {"text": 6, "image": 16, "audio": 8}
    draw(spec, tops, parts, variant, tmp_path / "picture.svg")
    assert "audio" in (tmp_path / "picture.svg").read_text()


def test_sound_passes_through_augmentation_and_nothing_is_mixed():
    from fusion_keras.data.augment import AugmentSpec
    from fusion_keras.modalities.augmentation import augmentation

    rng = np.random.default_rng(0)
    arrays = {
        "label": np.arange(16) % 2,
        "image": rng.integers(0, 256, (16, 8, 8, 3)).astype("uint8"),
        "audio": np.arange(16, dtype="float32")[:, None] * np.ones((1, 4), "float32"),
    }
    inputs, labels = next(
        iter(
            train_batches(
                arrays,
                np.arange(16),
                16,
                0,
                1,
                augmentation=augmentation(AugmentSpec(mixup=0.3), 2, {}),
            )
        )
    )
    np.testing.assert_array_equal(labels, inputs["audio"][:, 0] % 2)


# --- From training to a device ------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> Bench:
    return tiny.beside(tmp_path_factory.mktemp("three"))


LATE = {
    "variant": "late",
    "train__batch_size": 4,
    "parent__epochs": 1,
    "fusion__dropout": 0.0,
    "fusion__stand_ins": True,
    "augment__enabled": True,
    "augment__drop_audio": 0.4,
}


@pytest.fixture(scope="module")
def late(bench) -> Run:
    """Late fusion of three parents, trained on the way, that can do without the sound."""
    return train(bench.config(**bench.with_sound(**LATE)), bench.folder / "late")


@pytest.fixture(scope="module")
def artifact(entries, late):
    folder = late.folder.parent / "artifact"
    flags = [str(late.folder), f"--out={folder}", "--precisions=fp16,int8,int8_static"]
    done = entries.run("export", *flags)
    assert done.returncode == 0, done.stderr
    assert '--text "..." --image FILE --audio FILE.wav' in done.stdout
    return folder


@pytest.mark.slow
def test_a_missing_modality_of_three_has_no_say(make):
    _, graph = make("inter", stand_ins=True)
    model = graph.model
    inputs = inputs_of(model)
    other = inputs | {"audio": inputs["audio"][:, ::-1] ** 2}
    silent = {"present_audio": np.zeros((2, 1), "float32")}
    logits = run(model, inputs | silent)["logits"]
    np.testing.assert_allclose(run(model, other | silent)["logits"], logits, atol=1e-6)
    assert np.abs(run(model, other)["logits"] - run(model, inputs)["logits"]).max() > 1e-5


@pytest.mark.slow
def test_late_fusion_freezes_three_parents(late):
    model = load_model(late.folder)
    for modality in MODALITIES:
        parent = load_model(late.folder / "parents" / modality)
        part = f"{modality}_backbone"
        theirs = parent.get_layer(part).get_weights()
        for a, b in zip(model.get_layer(part).get_weights(), theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    with (late.folder / "splits.csv").open() as file:
        assert file.readline() == "id,split,text,image,audio,tabular\n"
    described = late.read_json("config.json")
    assert described["inputs"]["audio"]["frames"] == 48
    assert described["spec"]["junctions"][0]["audio"] == "last"


@pytest.mark.slow
def test_a_run_is_asked_with_sound(late, bench):
    with (late.folder / "predictions.csv").open(newline="") as file:
        told = [line for line in csv.DictReader(file) if line["split"] == "test"]
    folder = bench.folder / "data"
    with (folder / "sounds.csv").open(newline="", encoding="utf-8") as file:
        table = {line["id"]: line for line in csv.DictReader(file)}
    files = [{n: folder / table[x["id"]][n] for n in ("image", "audio")} for x in told]
    rows = [{"text": table[x["id"]]["text"], **each} for x, each in zip(told, files, strict=True)]
    opened = api.Run.load(late.folder)

    found = opened.predict(rows)

    name = opened.classes[0]
    wanted = [float(line[f"p_{name}"]) for line in told]
    assert [p.probabilities[name] for p in found] == pytest.approx(wanted, abs=1e-5)
    waveform = sound.decode(rows[0]["audio"])
    (same,) = opened.predict([rows[0] | {"audio": waveform}])
    assert same.probabilities == pytest.approx(found[0].probabilities, abs=1e-6)
    silent = {n: x for n, x in rows[0].items() if n != "audio"}
    (without,) = opened.predict([silent])
    assert abs(without.probabilities[name] - same.probabilities[name]) > 1e-5


@pytest.mark.slow
def test_weights_go_to_pytorch_and_come_back(late, bench):
    path = bench.folder / "late.safetensors"
    assert to_pytorch(late.folder, path) == len(load_file(path))
    inputs, logits = golden(late)
    reference = of_run(late.folder, path)
    with torch.no_grad():
        found = reference(**tensors(reference, inputs, 1 / 127.5, -1.0)).numpy()
    np.testing.assert_allclose(found, logits, rtol=0, atol=1e-5)
    back = from_pytorch(late.folder, path, bench.folder / "back")
    assert table(back, "predictions.csv") == table(late, "predictions.csv")


@pytest.mark.slow
def test_the_runner_of_pytorch_takes_sound(late):
    inputs, logits = golden(late)
    call, _ = torch_call(late.folder, threads=0, compiled=False)
    np.testing.assert_allclose(call(inputs)["logits"], logits, rtol=0, atol=1e-5)


def golden(run):
    arrays = np.load(run.folder / "golden.npz")
    inputs = {n.removeprefix("input_"): arrays[n] for n in arrays if n.startswith("input_")}
    return inputs, arrays["output_logits"]


SMALL = {
    "fusion__junctions": "1+1+1:attention,-+2+2:gate",
    "fusion__dropout": 0.0,
    "fusion__stand_ins": True,
    "augment__enabled": True,
    "augment__drop_audio": 0.4,
    "parent__warm_start": (),
}


@pytest.fixture(scope="module")
def theirs(bench) -> Run:
    """A training of the reference."""
    config = bench.config(**bench.with_sound(variant="inter", **SMALL))
    return train(config, bench.folder / "inter-pytorch", PYTORCH)


def losses(run) -> list[float]:
    return [float(line["loss"]) for line in table(run, "history.csv")]


def test_the_reference_learns_with_sound_and_leaves_a_run(theirs):
    assert theirs.complete
    assert theirs.read_json("config.json")["framework"] == "pytorch"
    assert losses(theirs)[-1] < losses(theirs)[0]
    # The weights of PyTorch are in model.keras: Keras gives what PyTorch said.
    inputs, logits = golden(theirs)
    ours = called(load_model(theirs.folder), inputs)["logits"]
    np.testing.assert_allclose(ours, logits, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_both_frameworks_learn_the_same_of_sound(theirs, late, bench):
    config = bench.config(**bench.with_sound(variant="inter", **SMALL))
    ours = train(config, bench.folder / "inter-keras")
    np.testing.assert_allclose(losses(ours), losses(theirs), rtol=1e-3)
    config = bench.config(**bench.with_sound(**LATE))
    other = train(config, bench.folder / "late-pytorch", PYTORCH)
    # Shifts that the next BatchNorm takes out again have no gradient but rounding, of which Adam
    # makes whole steps: the parents of sound drift apart, in either framework's float32.
    np.testing.assert_allclose(losses(late), losses(other), rtol=2e-2)
    for modality in MODALITIES:
        described = Run(other.folder / "parents" / modality).read_json("config.json")
        assert described["framework"] == "pytorch"


@pytest.mark.slow
def test_every_precision_holds_and_its_files_are_there(artifact):
    meta = read(artifact)
    assert list(meta["models"]) == ["fp32", "fp16", "int8", "int8_static"]
    assert all(rung["holds"] for rung in meta["ladder"])
    assert meta["backbones"]["audio"] == "tiny_audio"
    assert {"queries/15.wav", "queries/15.png"} < set(meta["files"])
    assert meta["may_lack"] == ["audio"]


@pytest.mark.slow
def test_the_graph_without_sound_answers_as_the_whole_one_told_so(late, artifact, bench):
    folder = late.folder.parent / "silent"
    export(Request(late.folder, folder, precisions=(), without="audio"))
    assert list(read(folder)["inputs"]) == ["token_ids", "image", "present_text", "present_image"]
    asked = {"text": "a good day", "image": bench.folder / "data" / "1.png"}
    found = [Predictor(f).predict(**asked).probabilities for f in (artifact, folder)]
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_data_without_sound_are_refused_before_a_parent_is_trained(bench, tmp_path, capsys):
    changes = bench.with_sound(variant="late", data__manifest__audio_column="")
    with pytest.raises(UsageError, match="without sound"):
        train(bench.config(**changes), tmp_path / "late")
    assert "First the parent" not in capsys.readouterr().out


def test_sound_cannot_be_withheld_from_a_model_without(bench):
    with pytest.raises(UsageError, match="this late takes no audio"):
        resolve(bench.config(variant="late", augment__drop_audio=0.2))


@pytest.mark.slow
def test_robustness_of_sound_runs_from_clean_to_missing(late, tmp_path):
    names = ("audio_noise", "audio_missing")
    options = Options(
        (late.folder,), tmp_path / "r.json", corruptions=names, repeats=1,
        strengths=("audio_noise:0.01:100", "audio_missing:1"),
    )  # fmt: skip
    content = measure(options)
    assert [c["corruption"] for c in content["curves"]] == list(names)
    assert {c["modality"] for c in content["curves"]} == {"audio"}
    (contender,) = load([late.folder], [], [], "test")
    rows = contender.rows
    again = np.stack([log_mel(waveform) for waveform in rows.waveforms()])
    np.testing.assert_array_equal(again, rows.inputs["audio"])
    noisy = cells.damaged(rows, "audio_noise", 1.0, seed=0, repeat=0)["audio"]
    assert noisy.shape == rows.inputs["audio"].shape
    assert noisy.mean() > rows.inputs["audio"].mean() + 0.1
    told = cells.damaged(rows, "audio_missing", 1.0, seed=0, repeat=0)
    assert list(told) == ["present_audio"]
    assert not told["present_audio"].any()


@pytest.mark.slow
def test_predict_asks_for_nothing_that_may_be_missing(artifact, bench, capsys):
    data = bench.folder / "data"
    asked = [str(artifact), "--text", "a good day", f"--image={data / '1.png'}"]
    assert ask([*asked, f"--audio={data / '1.wav'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] in ("negative", "positive")
    assert any(line.endswith("ms  sound") for line in lines)
    assert ask(asked) == 0
    said = {"text": "a good day", "image": data / "1.png"}
    heard = {**said, "audio": data / "1.wav"}
    predictor = Predictor(artifact)
    with_it, without = (predictor.predict(**given).probabilities for given in (heard, said))
    assert abs(with_it["positive"] - without["positive"]) > 1e-6
    assert ask([str(artifact), f"--audio={data / '1.wav'}", "--text", "a good day"]) == 2
    assert "late model was given no image" in capsys.readouterr().err
    assert ask([*asked, f"--audio={data / '1.png'}"]) == 2
    assert "1.png cannot be used" in capsys.readouterr().err


@pytest.mark.slow
def test_bench_times_every_stage_of_three(artifact, tmp_path):
    target = tmp_path / "results.json"
    flags = [str(artifact), "--profile=quick", "--precisions=fp32", f"--out={target}"]
    assert bench_main(flags) == 0
    (found,) = json.loads(target.read_text())["contenders"]
    assert {"tokens", "image", "sound", "inference", "all"} <= set(found["stages"])
