"""A missing modality at the device: told to the whole artifact, or left out of the graph."""

import json
import shutil

import numpy as np
import onnx
import pytest

from bench.edge.artifact import golden, queries, read
from bench.edge.errors import InputError
from bench.edge.predictor import Predictor
from export.pipeline import export
from export.request import Request, kept
from fusion_keras.errors import UsageError
from fusion_keras.exported import run_onnx
from fusion_keras.training.evaluate import predict
from fusion_keras.training.experiment import train
from fusion_keras.training.restored import restore

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory):
    return tiny.beside(tmp_path_factory.mktemp("missing"))


@pytest.fixture(scope="module")
def run(bench):
    changes = {"augment__drop_text": 0.3, "augment__drop_image": 0.3, "augment__enabled": True}
    return train(
        bench.config(variant="inter", fusion__stand_ins=True, **changes), bench.folder / "inter"
    )


def exported(entries, run, out, *flags):
    done = entries.run("export", str(run.folder), f"--out={out}", *flags)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def whole(entries, run):
    out = run.folder.with_name("whole")
    exported(entries, run, out, "--precisions=")
    return out


@pytest.fixture(scope="module", params=["image", "text"])
def part(entries, run, request):
    out = run.folder.with_name(f"no_{request.param}")
    exported(entries, run, out, "--precisions=int8", f"--without={request.param}")
    return request.param, out


def _answers(run, missing):
    """What JAX says of the test rows when a modality is missing."""
    task = restore(run.folder)
    arrays = dict(task.arrays)
    arrays[f"present_{missing}"] = np.zeros_like(arrays[f"present_{missing}"])
    return task, predict(task.graph.model, arrays, task.rows["test"])["logits"]


@pytest.mark.slow
def test_the_graph_without_it_has_no_such_backbone_and_answers_as_the_run(run, whole, part):
    missing, out = part
    other = "token_ids" if missing == "image" else "image"
    graph = onnx.load(out / "model.onnx").graph
    assert [x.name for x in graph.input] == [other]
    assert len(graph.node) < len(onnx.load(whole / "model.onnx").graph.node)
    task, wanted = _answers(run, missing)
    rows = {other: np.asarray(task.arrays[other][task.rows["test"]])}
    found = run_onnx(out / "model.onnx", rows)["logits"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    meta = read(out)
    right = (wanted.argmax(-1) == task.dataset.labels[task.rows["test"]]).mean()
    assert meta["models"]["fp32"]["metrics"]["accuracy"] == pytest.approx(right)
    assert meta["variant"] == f"inter without {missing}"
    assert list(meta["inputs"]) == [other]
    assert set(queries(out)) == {other} == set(golden(out)[0])


@pytest.mark.slow
def test_the_whole_artifact_is_told_what_is_missing(run, whole):
    task, wanted = _answers(run, "image")
    rows = {
        x.name: np.asarray(task.arrays[x.name][task.rows["test"]]) for x in task.graph.model.inputs
    }
    rows["present_image"] = np.zeros_like(rows["present_image"])
    rows["image"] = 255 - rows["image"]
    found = run_onnx(whole / "model.onnx", rows)["logits"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_predict_answers_for_one_alone_alike_from_both(whole, part, bench):
    missing, out = part
    both = {"text": "a lovely day", "image": bench.folder / "data" / "3.png"}
    given = {modality: value for modality, value in both.items() if modality != missing}
    found = [Predictor(folder).predict(**given).probabilities for folder in (whole, out)]
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    assert Predictor(whole).predict(**both).probabilities != pytest.approx(found[0], abs=1e-4)
    with pytest.raises(InputError, match="leave it out"):
        Predictor(out).predict(**both)


def test_what_is_read_without_one():
    two = ["token_ids", "image", "present_text", "present_image"]
    assert kept(two, "image") == ["token_ids"]
    assert kept(two, "text") == ["image"]


@pytest.mark.parametrize(
    ("changed", "without", "said"),
    [
        ({}, "audio", "one of text, image is wanted"),
        ({"spec": {"stand_ins": False}}, "image", "no stand-in for image"),
        ({"augment": {"drop_image": 0.0}}, "image", "no stand-in for image"),
    ],
)
def test_what_has_no_stand_in_cannot_be_left_out(tiny_run, tmp_path, changed, without, said):
    shutil.copytree(tiny_run, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    described = json.loads(path.read_text())
    described["spec"] |= {"stand_ins": True} | changed.get("spec", {})
    described["config"]["augment"] |= changed.get("augment", {})
    path.write_text(json.dumps(described))
    with pytest.raises(UsageError, match=said):
        export(Request(tmp_path / "run", tmp_path / "out", without=without))
    assert not (tmp_path / "out").exists()
