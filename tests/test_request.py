"""What an export asks for is checked before any work begins."""

import copy
import json
import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from export.request import Request, backbones
from fusion_keras.errors import UsageError

CONFIG = {
    "variant": "inter",
    "seed": 0,
    "spec": {},
    "dataset": {"name": "demo"},
    "provenance": {},
    "classes": ["negative", "positive"],
    "inputs": {"token_ids": {"max_length": 12}, "image": {"size": 32}},
    "config": {
        "dtype": "float32",
        "text": {"preset": "minilm"},
        "image": {"preset": "presets/mobilenet"},
        "augment": {"enabled": True, "drop_text": 0.1, "drop_image": 0.0},
    },
}
METRICS = {"splits": {"test": {"metrics": {"accuracy": {"value": 0.9}}}}}


def run(folder: Path, change=lambda config, metrics: None) -> Path:
    config, metrics = copy.deepcopy(CONFIG), copy.deepcopy(METRICS)
    change(config, metrics)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "model.keras").touch()
    Tokenizer(models.WordLevel({"[UNK]": 0}, "[UNK]")).save(str(folder / "tokenizer.json"))
    return folder


def test_a_whole_run_is_taken(tmp_path):
    request = Request(run(tmp_path), tmp_path / "out", buckets=("6",))
    assert request.lengths(request.checked()) == (6, 12)


def test_backbones_have_the_names_of_their_presets():
    assert backbones(CONFIG) == {"text": "minilm", "image": "mobilenet"}
    assert backbones({**CONFIG, "inputs": {"image": {}}}) == {"image": "mobilenet"}


@pytest.mark.parametrize("name", [*CONFIG, "augment", "test"])
def test_a_run_that_lacks_something_is_refused_at_once(tmp_path, name):
    def change(config, metrics):
        config.pop(name, None)
        config.get("config", {}).pop(name, None)
        metrics["splits"].pop(name, None)

    request = Request(run(tmp_path, change), tmp_path / "out")
    with pytest.raises(UsageError, match=f"damaged or of another version.*{name}"):
        request.checked()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c, m: c.update(classes=["one"]), "fewer than two classes"),
        (lambda c, m: c.update(inputs=["token_ids"]), "damaged"),
    ],
)
def test_a_run_of_another_kind_is_refused(tmp_path, change, said):
    with pytest.raises(UsageError, match=said):
        Request(run(tmp_path, change), tmp_path / "out").checked()


def test_of_a_clstm_nothing_can_be_left_out(tmp_path):
    def change(config, metrics):
        inputs, spec = {"image": {}, "spectrogram": {}}, {"architecture": "clstm_fc"}
        config.update(variant="clstm_fc", inputs=inputs, spec=spec)

    with pytest.raises(UsageError, match=r"clstm_fc is a C-LSTM .*: it always takes both"):
        Request(run(tmp_path, change), tmp_path / "out", without="image").checked()


@pytest.mark.parametrize("name", ["config.json", "model.keras", "tokenizer.json"])
def test_a_file_that_is_not_there_is_named_at_once(tmp_path, name):
    (run(tmp_path) / name).unlink()
    with pytest.raises(UsageError, match=rf"lacks {re.escape(name)}: copy or train the run again"):
        Request(tmp_path, tmp_path / "out").checked()


def test_a_tokenizer_that_cannot_be_read_is_named_first(tmp_path):
    (run(tmp_path) / "tokenizer.json").write_text("garbage")
    with pytest.raises(UsageError, match=r"tokenizer\.json cannot be read"):
        Request(tmp_path, tmp_path / "out").checked()


def test_flags_that_would_be_ignored_are_refused(tmp_path):
    folder = run(tmp_path)
    with pytest.raises(UsageError, match="leave --batch out"):
        Request(folder, tmp_path / "out", dynamic=True, batch=2).checked()
    images = run(tmp_path, lambda c, m: c["inputs"].pop("token_ids"))
    request = Request(images, tmp_path / "out", buckets=("6",))
    with pytest.raises(UsageError, match="lengths of sentences"):
        request.lengths(request.checked())


@pytest.mark.parametrize("points", [-1.0, 100.5, float("nan")])
def test_what_may_be_lost_is_points(tmp_path, points):
    with pytest.raises(UsageError, match=f"--allow_loss is {points:g}; points, 0 to 100"):
        Request(run(tmp_path), tmp_path / "out", allow_loss=points).checked()
    assert Request(run(tmp_path), tmp_path / "out", allow_loss=0.0).checked()
