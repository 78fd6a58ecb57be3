"""An artifact is either there, whole and as it was exported, or refused with its reason."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from bench.edge.artifact import ArtifactError, golden, read
from export.artifact import building, seal
from fusion_keras.errors import UsageError


def write(target, text="weights"):
    with building(target) as folder:
        (folder / "saved_model").mkdir()
        (folder / "saved_model" / "model.pb").write_text(text)
        np.savez(folder / "golden.npz", input_image=np.arange(3), output_logits=np.ones(2))
        seal(folder, {"variant": "inter"})


@pytest.fixture
def target(tmp_path):
    write(tmp_path / "artifact")
    return tmp_path / "artifact"


def test_what_was_written_is_read(target):
    meta = read(target)
    assert meta["variant"] == "inter"
    assert set(meta["files"]) == {"golden.npz", "saved_model/model.pb"}
    inputs, outputs = golden(target)
    assert (inputs["image"].tolist(), outputs["logits"].tolist()) == ([0, 1, 2], [1, 1])
    assert os.listdir(target.parent) == ["artifact"]


@pytest.mark.parametrize("damage", ["changed", "cut", "missing", "meta cut", "meta missing"])
def test_a_damaged_artifact_is_refused_with_the_name_of_the_file(target, damage):
    name = "meta.json" if damage.startswith("meta") else "model.pb"
    file = target / name if name == "meta.json" else target / "saved_model" / name
    if damage.endswith("missing"):
        file.unlink()
    elif damage == "changed":
        file.write_text("Weights")
    else:
        file.write_text(file.read_text()[:-3])
    with pytest.raises(ArtifactError, match=name):
        read(target)


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta.update(variant="early"),
        lambda meta: meta.update(files={}),
        lambda meta: meta.pop("variant"),
        lambda meta: meta.pop("seal"),
    ],
)
def test_a_changed_description_is_refused(target, change):
    path = target / "meta.json"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))
    with pytest.raises(ArtifactError, match=r"meta\.json"):
        read(target)


def test_a_failed_export_leaves_the_old_artifact(target):
    def fail():
        with building(target) as folder:
            (folder / "half").write_text("")
            raise UsageError("too far")

    with pytest.raises(UsageError, match="too far"):
        fail()
    assert set(read(target)["files"]) == {"golden.npz", "saved_model/model.pb"}
    assert os.listdir(target.parent) == ["artifact"]


def test_a_new_artifact_takes_the_place_of_the_old(target):
    write(target, "better weights")
    assert (target / "saved_model" / "model.pb").read_text() == "better weights"
    read(target)
    assert os.listdir(target.parent) == ["artifact"]


KILLED = """
import os, signal, sys
from pathlib import Path
from export.artifact import building
with building(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_export_leaves_the_old_artifact_and_the_next_one_cleans_up(target):
    done = subprocess.run([sys.executable, "-c", KILLED, target])
    assert done.returncode == -signal.SIGKILL
    assert read(target)["variant"] == "inter"
    write(target, "next")
    assert os.listdir(target.parent) == ["artifact"]


def test_two_processes_do_not_build_the_same_artifact(target):
    with building(target) as folder:
        (folder / "mine").write_text("")
        with pytest.raises(UsageError, match="Another process is writing"), building(target):
            pass
        assert (folder / "mine").is_file()
        seal(folder, {"variant": "early"})
    assert read(target)["variant"] == "early"


def test_what_is_no_artifact_is_not_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    with pytest.raises(UsageError, match="is no artifact"), building(tmp_path / "thesis"):
        pass
    assert (tmp_path / "thesis").is_dir()


def test_another_programs_meta_json_makes_no_artifact(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "meta.json").write_text('{"title": "my photos"}')
    with pytest.raises(UsageError, match="is no artifact"):
        write(tmp_path / "photos")
    assert (tmp_path / "photos" / "meta.json").is_file()


def test_a_training_of_the_same_name_is_left_alone(tmp_path):
    (tmp_path / "late-s0.partial").mkdir()
    (tmp_path / "late-s0.partial" / "checkpoint.npz").write_text("")
    write(tmp_path / "late-s0")
    assert (tmp_path / "late-s0.partial" / "checkpoint.npz").is_file()


def test_a_link_to_an_artifact_stays_one(target):
    link = target.with_name("link")
    link.symlink_to(target)
    write(link, "better weights")
    assert link.is_symlink()
    assert (target / "saved_model" / "model.pb").read_text() == "better weights"
    assert sorted(os.listdir(target.parent)) == ["artifact", "link"]


def test_a_file_system_that_cannot_swap_names_still_replaces(target, monkeypatch):
    def refuse(a, b):
        raise OSError("Invalid argument")

    monkeypatch.setattr("export.artifact._exchange", refuse)
    write(target, "better weights")
    assert (target / "saved_model" / "model.pb").read_text() == "better weights"
    assert os.listdir(target.parent) == ["artifact"]


@pytest.mark.parametrize("name", ["x" * 250, "file/artifact"])
def test_an_unwritable_name_is_a_sentence(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="Could not write"):
        write(tmp_path / name)
