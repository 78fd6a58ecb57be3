"""On a GPU the same training gives the same losses as on a CPU.

`python -m pytest -m gpu`; each run is a process of its own, as users start them.
"""

import csv
import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.gpu

VARIANTS = ("text", "image", "late", "inter", "early")
# A seed, 20 steps of each variant.
_SWEEP = (
    f"--variant={','.join(VARIANTS)} --config.text.preset=random:tiny_bert "
    "--config.data.demo.size=900 --config.train.epochs=1"
)


@pytest.fixture(scope="module", autouse=True)
def gpu():
    asked = shutil.which("nvidia-smi")
    if not asked or subprocess.run([asked, "-L"], capture_output=True, check=False).returncode:
        pytest.skip("no GPU here: nvidia-smi does not answer")


def trained(folder, platform, *arguments, **environment):
    """Variant -> the last line of its history.csv."""
    command = [sys.executable, "-m", "fusion_keras.sweep", *_SWEEP.split(), *arguments]
    done = subprocess.run(
        [*command, f"--workdir={folder}", f"--config.data.cache_dir={folder}/cache"],
        env={**os.environ, "JAX_PLATFORMS": platform, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = {}
    for variant in VARIANTS:
        with open(folder / "demo" / f"{variant}-s0" / "history.csv", newline="") as file:
            lines[variant] = list(csv.DictReader(file))[-1]
    return lines


@pytest.fixture(scope="module")
def on_cpu(gpu, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("cpu"), "cpu")


def differences(found, wanted, names=("loss", "valid_nll")):
    return {
        (variant, name): abs(float(found[variant][name]) - float(wanted[variant][name]))
        for variant in VARIANTS
        for name in names
    }


def test_losses_and_validation_are_the_cpus(on_cpu, tmp_path):
    found = trained(tmp_path, "cuda", JAX_DEFAULT_MATMUL_PRECISION="highest")
    apart = differences(found, on_cpu)
    print(apart)
    assert max(apart.values()) < 1e-3, apart


def test_tf32_is_near_and_bfloat16_not_far(on_cpu, tmp_path):
    apart = differences(trained(tmp_path / "tf32", "cuda"), on_cpu)
    print(apart)
    assert max(apart.values()) < 1e-2, apart
    apart = differences(trained(tmp_path / "bf16", "cuda", "--config.dtype=bfloat16"), on_cpu)
    print(apart)
    assert max(apart.values()) < 5e-2, apart
