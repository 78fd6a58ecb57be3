"""A run of version 0.1.0, as it was before modalities and settings had sections, is still read.

`older_run` is early fusion of sentences, images and sounds with stand-ins, a tiny one, without the
data that it was trained on.
"""

from pathlib import Path

import numpy as np

from fusion_keras.fusion.architectures import FUSION, of_values
from fusion_keras.fusion.state_dict import state_dict
from fusion_keras.training.restored import config_of, load_model
from fusion_keras.training.run import read_json

OLDER = Path(__file__).with_name("older_run")


def test_its_model_gives_the_logits_that_it_gave():
    values = read_json(OLDER / "config.json")["spec"]
    assert of_values(values) is FUSION
    spec = FUSION.from_dict(values)
    assert FUSION.to_dict(spec) == values
    graph = FUSION.rebuilt(load_model(OLDER), spec)
    with np.load(OLDER / "golden.npz") as golden:
        inputs = {n.removeprefix("input_"): x for n, x in golden.items() if n.startswith("input_")}
        logits = golden["output_logits"]
    assert set(inputs) == {x.name for x in graph.model.inputs}
    whole = graph.model(inputs, training=False)["logits"]
    np.testing.assert_allclose(np.asarray(whole), logits, atol=1e-5)
    halves = graph.fusion(graph.encoders(inputs, training=False), training=False)["logits"]
    np.testing.assert_allclose(np.asarray(halves), logits, atol=1e-5)
    assert graph.tap_names == {"text": ("text_1",), "image": ("image_1",), "audio": ("audio_4",)}
    assert any(name.startswith("stand_ins.audio_4") for name in state_dict(graph.model, spec))


def test_its_settings_are_found_under_the_names_of_today():
    config = config_of(OLDER)
    assert config.data.manifest.audio_column == "audio"
    assert config.augment.drop_audio == 0.2
    assert config.augment.drop_tabular == 0.0
    # It knew no limit, so none may keep it from being restored.
    assert config.text.max_unknown == 1.0
    assert FUSION.modalities(config) == ("text", "image", "audio")
