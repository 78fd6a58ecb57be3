"""The names that settings had before: as flags, in experiment files, in older runs' files."""

import functools
import warnings

import pytest
from absl import flags
from ml_collections import config_flags

from fusion_keras import cli
from fusion_keras.config import copied, get_config
from fusion_keras.renamed import RENAMED, RenamedSetting, with_todays_names
from fusion_keras.training.run import as_json


def value_of(config, name: str):
    return functools.reduce(lambda section, part: section[part], name.split("."), config)


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_reads_and_sets_what_it_is_called_now(old):
    config, new = get_config(), RENAMED[old]
    before = value_of(config.data, new)
    changed = (*before, "x") if isinstance(before, tuple) else before + type(before)(2)
    with pytest.warns(RenamedSetting, match=f"data.{old} is now config.data.{new};"):
        setattr(config.data, old, changed)
    assert value_of(copied(config).data, new) == changed
    with pytest.warns(RenamedSetting):
        assert getattr(copied(config).data, old) == changed


def test_an_old_name_takes_no_value_of_another_type():
    config = get_config()
    with pytest.warns(RenamedSetting), pytest.raises(TypeError):
        config.data.train_pairs = "many"


# ml_collections loads the file in a way that Python is to lose.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_old_names_are_flags_and_their_notes_come_once(tmp_path, capsys):
    file = tmp_path / "experiment.py"
    file.write_text(
        "from fusion_keras.config import get_config as default\n"
        "def get_config():\n"
        "    config = default()\n"
        "    config.data.text_column = 'sentence'\n"
        "    return config\n"
    )
    argv = ["train", f"--config={file}", "--config.data.text_column=tweet"]
    argv += ["--config.data.classes=('b','a')", "--config.data.demo_noise=0.5"]
    values = flags.FlagValues()
    with warnings.catch_warnings():
        cli.show_notes()
        made = config_flags.DEFINE_config_file(
            "config", str(cli.CONFIG_FILE), flag_values=values, sys_argv=argv
        )
        values(argv)
    data = made.value.data
    assert data.manifest.text_column == "tweet"
    assert data.manifest.classes == ("b", "a")
    assert data.demo.noise == 0.5
    notes = capsys.readouterr().err.splitlines()
    assert sorted(line.split(";")[0] for line in notes) == [
        "note: config.data.classes is now config.data.manifest.classes",
        "note: config.data.demo_noise is now config.data.demo.noise",
        "note: config.data.text_column is now config.data.manifest.text_column",
    ]


def test_the_config_of_an_older_run_is_read_without_a_note():
    config = as_json(get_config())
    older = {"path": "x.csv", "text_column": "tweet", "classes": ["b", "a"], "demo_size": 50}
    found = with_todays_names({**config, "data": older})
    assert found["data"] == {
        "path": "x.csv",
        "manifest": {"text_column": "tweet", "classes": ["b", "a"]},
        "demo": {"size": 50},
    }
    assert with_todays_names(config) == config
    assert with_todays_names({"data": []}) == {"data": []}
