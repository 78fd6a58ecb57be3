"""What backbones cost, by depth."""

import json

import pytest

from fusion_keras.config import get_config
from fusion_keras.errors import UsageError
from fusion_keras.searching import prices, trial
from fusion_keras.searching.outcome import Outcome


def test_every_name_with_weights_is_of_one_list():
    text, image = prices.names("text"), prices.names("image")

    assert {"minilm", "roberta_base", "albert_base"} <= set(text)
    assert {"resnet_18", "mobilenet_v2_1.0", "dinov2_small"} <= set(image)
    assert {"mobilenet_v3_small_0.5", "efficientnet_lite0", "convnext_v2_atto"} <= set(image)
    assert not set(text) & set(image)
    assert not any("tiny_" in name[:5] or "audio" in name for name in text + image)
    assert not any("whisper" in name for name in text + image)


@pytest.mark.parametrize(
    ("modality", "name", "depths"),
    [
        ("text", "bert_tiny", [1, 2]),
        ("text", "minilm", [2, 3, 4, 6]),
        ("image", "resnet_18", [2, 4, 6, 8]),
        ("image", "mobilenet_v3_small_0.5", [3, 6, 8, 11]),
    ],
)
def test_a_backbone_is_measured_at_four_shares_of_its_depth(modality, name, depths):
    found = prices.points(modality, name, get_config())

    assert [depth for depth, _ in found] == depths
    assert len({json.dumps(point.settings) for _, point in found}) == len(depths)


def test_what_could_not_be_measured_stands_in_the_table_with_its_reason():
    times = {name: {"p50": 1.25, "min": 1.2} for name in prices.PRECISIONS}
    one = {"name": "a", "depth": 1, "parameters": 4_400_000, "macs": 61e6, "latency": times}

    table = prices.as_markdown([one, {"name": "b", "depth": 2, "error": "out of memory"}])

    assert "| a | 1 | 4.4 | 61 | 1.25 (1.20) | 1.25 (1.20) |" in table
    assert "| b | 2 | out of memory |" in table


def test_what_failed_is_tried_again_and_what_was_measured_is_not(tmp_path, monkeypatch):
    config = get_config()
    config.data.cache_dir = str(tmp_path / "cache")
    tried = []

    def measured(place, point, key, folder, settings):
        tried.append(key)
        if len(tried) == 1:
            raise UsageError("out of memory")
        outcome = Outcome(key, point.name, {}, parameters=1, macs=2)
        outcome.latency = {name: {"p50": 1.0, "min": 1.0} for name in prices.PRECISIONS}
        return outcome

    monkeypatch.setattr(trial, "measured", measured)
    found = [prices.prices([("text", "bert_tiny")], config, tmp_path, str) for _ in range(2)]

    assert ["error" in line for line in found[0]] == [True, False]
    assert not any("error" in line for line in found[1])
    assert len(tried) == 3


def test_prices_of_two_machines_do_not_stand_in_one_table(tmp_path):
    (tmp_path / "prices.json").write_text('{"a model": {}}')
    with pytest.raises(UsageError, match="prices of another machine: give --workdir another"):
        prices.prices([], get_config(), tmp_path, str, ["--device=ssh://orin"])
    (tmp_path / "device.json").write_text("{}")
    with pytest.raises(UsageError, match="or the --device that it was made with"):
        prices.prices([], get_config(), tmp_path, str)


@pytest.mark.slow
def test_one_command_makes_the_price_list_and_measures_nothing_twice(entries, tmp_path):
    flags = ["--texts=bert_tiny", "--images=", "--length=8", f"--workdir={tmp_path}"]
    first = entries.run("fusion_keras.prices", *flags)
    assert first.returncode == 0, first.stderr
    assert "[2/2] bert_tiny at 2: fp32 and int8 " in first.stdout
    assert "| bert_tiny | 2 | 4." in (tmp_path / "prices.md").read_text()
    before = (tmp_path / "prices.json").stat().st_mtime_ns

    again = entries.run("fusion_keras.prices", *flags)

    assert again.stdout in first.stdout
    assert "[" not in again.stdout
    assert (tmp_path / "prices.json").stat().st_mtime_ns == before


def test_an_unknown_backbone_is_named(entries, tmp_path):
    done = entries.run("fusion_keras.prices", "--texts=bert", f"--workdir={tmp_path}")

    assert done.returncode == 2
    assert "--texts has 'bert'; some of minilm, bert_tiny" in done.stderr
