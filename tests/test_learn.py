"""The reference's trainer: with the same seed and no dropout it learns what ours learns."""

import subprocess
import sys

import numpy as np
import pytest

from fusion_keras.errors import UsageError
from fusion_keras.reference.learn import PYTORCH
from fusion_keras.reference.optimizers import rate_factor
from fusion_keras.training.experiment import train
from fusion_keras.training.restored import load_model, restore
from fusion_keras.training.run import read_json
from tests.support import tiny
from tests.support.pairs import called
from tests.support.shared import slow_but

# No dropout: each framework draws its own.
PLAIN = {"fusion__dropout": 0.0, "train__epochs": 2, "train__learning_rate": 1e-2}
CASES = {
    "inter": {"fusion__junctions": "1+1:linear,2+2:attention"},
    "late": {"parent__epochs": 1, "train__learning_rate": 1e-3},
    "late_score": {"parent__epochs": 1},
    "image": {"augment__mixup": 0.3, "train__label_smoothing": 0.1},
    "text": {"train__text_rate": 1e-3, "train__select": "last"},
    "hybrid": {"fusion__junctions": "1+1:attention,last+last:concat", "train__text_rate": 0.0},
}


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> tiny.Bench:
    return tiny.beside(tmp_path_factory.mktemp("learn"))


@pytest.fixture(scope="module")
def both(bench):
    """variant -> our run and the reference's, of the same command."""
    made = {}

    def both(variant):
        if variant not in made:
            config = bench.config(variant=variant, **{**PLAIN, **CASES[variant]})
            made[variant] = (
                train(config, bench.folder / f"{variant}-keras"),
                train(config, bench.folder / f"{variant}-pytorch", PYTORCH),
            )
        return made[variant]

    return both


@pytest.mark.slow
@pytest.mark.parametrize("variant", CASES)
def test_both_frameworks_learn_the_same(both, variant):
    ours, theirs = (
        [table["loss"] for table in tiny.table(r, "history.csv")] for r in both(variant)
    )
    losses = np.array([ours, theirs], float)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    probabilities = [
        [float(row["p_positive"]) for row in tiny.table(run, "predictions.csv")]
        for run in both(variant)
    ]
    np.testing.assert_allclose(*probabilities, rtol=0, atol=5e-3)


def test_a_run_of_the_reference_is_a_run(both):
    _, run = both("image")
    described = run.read_json("config.json")
    assert described["framework"] == "pytorch"
    assert "torch" in described["provenance"]["packages"]
    # The weights of PyTorch are in model.keras: Keras gives what PyTorch said.
    task = restore(run.folder)
    golden = np.load(run.folder / "golden.npz")
    inputs = {n.removeprefix("input_"): golden[n] for n in golden if n.startswith("input_")}
    outputs = called(task.graph.model, inputs)["logits"]
    np.testing.assert_allclose(outputs, golden["output_logits"], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_parents_are_trained_by_the_same_framework(both):
    for run, framework in zip(both("late"), ("keras", "pytorch"), strict=True):
        for modality in ("text", "image"):
            parent = read_json(run.folder / "parents" / modality / "config.json")
            assert parent["framework"] == framework


def test_a_run_of_one_framework_is_not_taken_for_one_of_the_other(both, bench):
    _, theirs = both("image")
    config = bench.config(variant="image", **{**PLAIN, **CASES["image"]})
    with pytest.raises(UsageError, match="framework was pytorch, is keras"):
        train(config, theirs.folder)
    assert train(config, theirs.folder, PYTORCH).complete


@pytest.mark.parametrize("changes", [{"regression": True}, {"dtype": "bfloat16"}])
def test_what_the_reference_has_not_is_refused(bench, tmp_path, changes):
    with pytest.raises(UsageError, match="for classes and float32"):
        train(bench.config(variant="text", **changes), tmp_path / "run", PYTORCH)


@pytest.mark.slow
def test_given_weights_of_scores_leave_nothing_to_learn(bench, tmp_path):
    changes = {"fusion__weights": (0.5, 0.5), "parent__epochs": 1}
    run = train(bench.config(variant="late_score", **changes), tmp_path / "run", PYTORCH)
    assert run.read_json("metrics.json")["best_epoch"] == 0
    assert load_model(run.folder)


def test_the_schedule_warms_up_and_ends_at_zero():
    factors = [rate_factor(step, 10, 0.2, "linear") for step in range(11)]
    assert factors[:4] == pytest.approx([0.5, 1.0, 1.0, 0.875])
    assert factors[10] == 0


def entry(code: str, *flags: str) -> subprocess.CompletedProcess:
    """`python -m fusion_keras.train` after some code of ours."""
    started = f"from fusion_keras import cli, train\n{code}"
    return subprocess.run([sys.executable, "-c", started, *flags], capture_output=True, text=True)


@pytest.mark.parametrize("library", slow_but(["torch"], ["torch", "transformers"]))
def test_without_pytorch_the_extra_is_named(library, tmp_path):
    absent = f"import sys\nsys.modules[{library!r}] = None\ncli.run(train.main, '')"
    found = entry(absent, "--framework=pytorch", f"--run={tmp_path / 'run'}")
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert f"needs {library}, which is not installed" in line
    assert "pip install -e '.[torch]'" in line


@pytest.mark.parametrize(("framework", "said"), [("keras", "goes on"), ("pytorch", "begins anew")])
def test_an_interrupted_training_says_how_it_goes_on(framework, said):
    stopped = (
        "import os, signal\n"
        # A shell's background job starts with SIGINT ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "cli.run(lambda: os.kill(os.getpid(), signal.SIGINT), '', train.interrupted)"
    )
    found = entry(stopped, f"--framework={framework}")
    assert found.returncode == 130
    assert f"The same command {said}" in found.stderr
