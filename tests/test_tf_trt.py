"""TF-TRT: refused where TensorFlow has none, called as TensorFlow's own class takes it."""

from unittest.mock import create_autospec

import numpy as np
import pytest

from export import tf_trt
from export.artifact import building, seal


@pytest.fixture
def artifact(tmp_path):
    with building(tmp_path / "artifact") as folder:
        (folder / "saved_model").mkdir()
        np.savez(
            folder / "golden.npz",
            input_token_ids=np.ones((3, 6), np.int32),
            output_logits=np.ones((3, 2)),
        )
        seal(folder, {"shapes": {"batch": 2, "length": 6}})
    return tmp_path / "artifact"


def test_this_tensorflow_has_none_and_says_what_to_do(convert, artifact, tmp_path):
    done = convert.run("export.tf_trt", artifact, f"--out={tmp_path / 'out'}")
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert "left its builds at 2.18" in said[0]
    assert "bench.engine" in said[0]
    assert not (tmp_path / "out").exists()


def test_the_converter_is_called_as_tensorflows_takes_it(artifact, tmp_path, monkeypatch):
    """TensorFlow still has the class, without what it calls: its signatures are checked."""
    real = pytest.importorskip("tensorflow").experimental.tensorrt.Converter
    built = []

    def converter(**settings):
        double = create_autospec(real)(**settings)
        built.append((settings, double))
        double.save.side_effect = lambda output_saved_model_dir: (tmp_path / "out.partial").mkdir()
        return double

    monkeypatch.setattr(tf_trt, "_converter_class", lambda: converter)
    assert tf_trt.main([str(artifact), f"--out={tmp_path / 'out'}", "--workspace=64"]) == 0
    ((settings, double),) = built
    assert settings == {
        "input_saved_model_dir": str(artifact / "saved_model"),
        "precision_mode": "FP16",
        "max_workspace_size_bytes": 64 << 20,
        "use_dynamic_shape": False,
    }
    (examples,) = double.build.call_args.kwargs["input_fn"]()
    assert examples["token_ids"].shape == (2, 6)
    assert (tmp_path / "out").is_dir()
