"""Plans: what is wrong with a training is told before data are decoded or weights loaded."""

from __future__ import annotations

import pytest
from transformers import BertConfig, BertForMaskedLM

from fusion_keras.backbones import presets
from fusion_keras.data import load
from fusion_keras.errors import UsageError
from fusion_keras.fusion.architectures import of_variant
from fusion_keras.modalities import audio, image, text
from fusion_keras.training import planning
from fusion_keras.training.experiment import KERAS, carry_out, train
from fusion_keras.training.plan import make_plan, plan_of
from fusion_keras.training.recipes import resolve
from fusion_keras.training.run import read_json
from tests.support.tiny import write_manifest


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("weights were loaded, or files decoded")

    monkeypatch.setattr(presets.Source, "load", never)
    monkeypatch.setattr(image, "decode_all", never)
    monkeypatch.setattr(audio.sound, "decode_all", never)
    monkeypatch.setattr(text, "cached_tokens", never)


def test_a_plan_says_what_is_trained_first(tiny, nothing_is_loaded):
    plan = make_plan(tiny.config(variant="late", parent__share=0.25, parent__epochs=3))
    assert plan.part == ("second", 0.25)
    assert plan.spec.modalities == ("text", "image")
    assert {m: (p.config.variant, p.part) for m, p in plan.parents.items()} == {
        "text": ("text", ("first", 0.25)), "image": ("image", ("first", 0.25))
    }  # fmt: skip
    assert all(p.config.train.epochs == 3 and not p.parents for p in plan.parents.values())
    # The run's own config says nothing of the halves: its parents' share does.
    assert plan.config.data.part == "all"


# What is set -> what is said.
WRONG = {
    "a depth": ({"variant": "inter", "fusion__junctions": "9+1:linear"}, "depth 9.* 0 to 2"),
    "a preset": ({"text__preset": "bort"}, "got preset 'bort', wanted one of [0-9]+ names such as"),
    "another kind": ({"text__preset": "vit_base"}, "got 'vit_base' for the text backbone"),
    "a length": ({"data__max_length": 600}, "max_length is 600; .* takes 3 to 512"),
    "no table": ({"data__path": "nowhere.csv"}, "nowhere.csv"),
    "a column": ({"data__manifest__text_column": "tweet"}, "got no column 'tweet'"),
    "a class": ({"data__manifest__classes": ("a", "b")}, "none of a, b"),
    "no sound": ({"variant": "audio", "audio__preset": "tiny_audio"}, "without sound"),
    "no columns": ({"variant": "tabular"}, "name no column"),
    "a part": ({"data__part": "third"}, "all, first or second"),
    "a parent": ({"variant": "inter", "parents": ("nowhere",)}, "nowhere is not a finished run"),
    "a setting": ({"data__demo__size": 50}, "manifest reads no such setting"),
    "a source": ({"data__source": "mosei"}, "'mosei', wanted one of"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_told_while_nothing_is_loaded(tiny, nothing_is_loaded, name):
    changes, said = WRONG[name]
    with pytest.raises(UsageError, match=said):
        make_plan(tiny.config(**{"variant": "text", **changes}))


def test_keras_on_another_backend_is_a_mistake(tiny, nothing_is_loaded, monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "tensorflow")
    with pytest.raises(UsageError, match="Keras runs on 'tensorflow', and jax is wanted: unset"):
        make_plan(tiny.config(variant="text"))


@pytest.fixture
def masked(tiny, tmp_path):
    """A BERT of three layers that guesses masked words, with the tiny presets' vocabulary."""
    vocabulary = (tiny.folder / "presets" / "text" / "vocab.txt").read_text()
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    described = BertConfig(vocab_size=len(vocabulary.split()), intermediate_size=16, **sizes)
    BertForMaskedLM(described).save_pretrained(tmp_path / "masked")
    (tmp_path / "masked" / "vocab.txt").write_text(vocabulary)
    return tmp_path / "masked"


def test_weights_without_a_pooler_are_planned_wherever_it_is_not_tapped(
    tiny, nothing_is_loaded, masked
):
    for variant, instead in (
        ("text", "--config.fusion.junctions='3[+]-:concat'"),
        ("hybrid", "--config.fusion.junctions='1[+]1:attention,3[+]last:concat'"),
        ("late", "such as inter or early"),
    ):
        with pytest.raises(UsageError, match=f"{variant} taps text at .* no pooler.*{instead}"):
            make_plan(tiny.config(variant=variant, text__preset=masked))
    for variant, junctions in (("text", "3+-:concat"), ("inter", ""), ("early", "")):
        settings = {"variant": variant, "fusion__junctions": junctions}
        assert make_plan(tiny.config(text__preset=masked, **settings)).spec.depths("text")


def test_a_tokenizer_with_more_ids_than_the_embedding_has_rows_is_refused(
    tiny, nothing_is_loaded, masked
):
    rows = len((masked / "vocab.txt").read_text().split())
    with (masked / "vocab.txt").open("a") as file:
        file.write("added\nwords\n")
    settings = {"variant": "early", "text__preset": masked}
    message = rf"{rows + 2} ids in .* \('added' is id {rows}\).* {rows} rows .*resize_token"
    with pytest.raises(UsageError, match=message):
        make_plan(tiny.config(**settings))


def test_a_script_that_the_vocabulary_lacks_is_told(tiny, nothing_is_loaded, tmp_path):
    def translate(lines):
        for line in lines[20:]:
            line[0] = "他们的服务态度非常好"

    table = write_manifest(tmp_path / "data", change=translate)
    message = (
        r"got 540 of 720 tokens \(75.0%\) .*manifest.csv line 22: '他们的.*at most 20%.*max_unknown"
    )
    with pytest.raises(UsageError, match=message):
        make_plan(tiny.config(data__path=table))
    assert make_plan(tiny.config(data__path=table, text__max_unknown=0.9))
    with pytest.raises(UsageError, match="max_unknown is 20"):
        make_plan(tiny.config(text__max_unknown=20.0))


def test_facts_are_those_of_the_backbones_that_are_loaded(tiny):
    for config in (
        tiny.config(variant="late"),
        tiny.config(variant="late", text__preset="tiny_bert", image__preset="tiny_mobilenet"),
        tiny.config(variant="late", text__preset="minilm", image__preset="tiny_vit"),
    ):
        resolved = resolve(config)
        architecture = of_variant("late")
        facts = architecture.facts(resolved)
        for modality, preset in architecture.presets(resolved, {}).items():
            assert facts[modality].num_depths == preset.backbone.num_depths
            assert facts[modality].out_of == preset.backbone.out_of


def test_data_are_read_once_and_backbones_built_once_per_training(tiny, tmp_path, monkeypatch):
    calls = {"table": 0, "text": 0, "image": 0}

    def counting(name, call):
        def counted(*args, **kwargs):
            calls[name] += 1
            return call(*args, **kwargs)

        return counted

    config = tiny.config(variant="late", train__epochs=1, parent__epochs=1)
    plan = make_plan(config)
    monkeypatch.setattr(load, "load_dataset", counting("table", load.load_dataset))
    monkeypatch.setattr(text, "load_text", counting("text", text.load_text))
    monkeypatch.setattr(image, "load_image", counting("image", image.load_image))
    run = carry_out(plan, tmp_path / "late", KERAS)
    # Once for three trainings; each backbone for its own training and for the one that joins them.
    assert calls == {"table": 1, "text": 2, "image": 2}
    # A parent whose rows were handed on is the run that it would be alone.
    alone = train(plan.parents["image"].config, tmp_path / "image")
    inside = run.folder / "parents" / "image"
    assert (inside / "predictions.csv").read_text() == (
        alone.folder / "predictions.csv"
    ).read_text()
    described = [(r / "config.json") for r in (inside, alone.folder)]
    first, second = (read_json(path)["dataset"] for path in described)
    assert first == second


def test_a_plan_of_a_resolved_config_has_no_parents(tiny):
    plan = plan_of(resolve(tiny.config(variant="late")))
    assert plan.parents == {}


# ml_collections loads the file in a way that Python is to lose.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_all_mistakes_of_several_runs_are_told_at_once(tiny, tmp_path):
    flags = [flag for flag in tiny.flags() if not flag.startswith("--variant")]
    runs = {
        tmp_path / "a": ("a", [*flags, "--variant=text"]),
        tmp_path / "b": ("b", [*flags, "--variant=inter", "--config.fusion.junctions=9+1:linear"]),
        tmp_path / "c": ("c", [*flags, "--variant=intre"]),
        tmp_path / "d": ("d", [*flags, "--variant=intre", "--seed=1"]),
        tmp_path / "e": ("e", [*flags, "--variant=text", "--config.fusion.wdith=8"]),
    }
    with pytest.raises(UsageError) as caught:
        planning.check_all(runs)
    first, *lines = str(caught.value).splitlines()
    assert first == "4 of 5 runs could not be trained, and none was started."
    assert [line.split(":")[0] for line in lines] == ["b", "c, d", "e"]
    assert "wdith" in lines[2]


def test_a_sweep_of_nine_ends_before_its_first_run(tiny, entries, tmp_path):
    flags = [flag for flag in tiny.flags() if not flag.startswith("--variant")]
    swept = ["--variant=text,image,inter", "--seed=0,1,2", "--config.fusion.junctions=9+9:linear"]
    done = entries.run("fusion_keras.sweep", *flags, *swept, f"--workdir={tmp_path / 'sweep'}")
    assert done.returncode == 2
    assert "9 of 9 runs could not be trained, and none was started" in done.stderr
    assert not (tmp_path / "sweep").exists()


def test_the_command_says_what_would_be_trained(tiny, entries):
    text, late = tiny.flags(variant="text"), tiny.flags(variant="late")
    done = entries.run("fusion_keras.plan", *text, "--", *late)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("text s0, of text, on ")
    assert lines[1].endswith("text trained first, image trained first")
    done = entries.run("fusion_keras.plan", "--", *text, "--seed=-1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: config.seed is -1")
    done = entries.run("fusion_keras.plan", *text, "--", *late, "--seed=-1")
    assert done.returncode == 2
    assert "error: 1 of 2 could not be trained: " in done.stderr
    assert "config.seed is -1" in done.stderr
