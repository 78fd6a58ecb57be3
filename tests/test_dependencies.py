"""What pyproject.toml asks for: one ONNX Runtime, one CUDA, the interpreters that README names."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
RUNTIMES = {"cpu": "onnxruntime", "gpu": "onnxruntime-gpu"}
README = (ROOT / "README.md").read_text()
PAGES = [README, *(page.read_text() for page in sorted((ROOT / "docs").rglob("*.md")))]


def requirements(*extras: str) -> list[Requirement]:
    """Of the project and these extras, with the extras that they name."""
    found = []
    for line in [*PROJECT["dependencies"], *(line for name in extras for line in EXTRAS[name])]:
        requirement = Requirement(line)
        own = requirement.name == PROJECT["name"]
        found += requirements(*requirement.extras) if own else [requirement]
    return found


def named(name: str, *extras: str) -> list[Requirement]:
    return [r for r in requirements(*extras) if r.name == name]


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_the_onnx_runtime_of_its_processor_or_none(extra):
    """So that any set of extras without both `cpu` and `gpu` installs at most one.

    Plug-ins (onnxruntime-ep-) have files of their own, and want any.
    """
    brought = {r.name for r in requirements(extra) if re.match("onnxruntime(?!-ep-)", r.name)}
    assert brought == ({RUNTIMES[extra]} if extra in RUNTIMES else set())


def test_every_command_of_the_documents_that_wants_an_onnx_runtime_names_one():
    commands = re.findall(r'pip install -e "\.\[([\w,]+)\]"', "\n".join(PAGES))
    assert commands
    for extras in (set(command.split(",")) for command in commands):
        if extras & {"export", "bench", "test"}:
            assert len(RUNTIMES.keys() & extras) == 1, extras


def test_what_runs_on_a_gpu_is_built_for_one_cuda():
    (jax,) = (r for r in named("jax", "gpu") if r.extras)
    (runtime,) = named("onnxruntime-gpu", "gpu")
    (tensorrt,) = (r for r in requirements("tensorrt") if r.name.startswith("tensorrt"))
    assert jax.extras == {"cuda13"}
    assert tensorrt.name == "tensorrt-cu13"
    # Up to 1.26 ONNX Runtime is built for CUDA 12. 1.27 is the first for 13, but its extras
    # name packages that do not exist.
    assert runtime.extras == {"cuda", "cudnn"}
    assert not any(runtime.specifier.contains(v) for v in ("1.23.2", "1.26.0", "1.27.0"))
    # Up to 1.31 its provider for TensorRT loads libnvinfer.so.10.
    assert not runtime.specifier.contains("1.32.0")
    assert tensorrt.specifier.contains("10.16.1.11")
    assert not tensorrt.specifier.contains("11.0.0.114")


def test_a_gpu_changes_no_other_bound():
    """A run trained on a GPU, an artifact measured there, are of the same releases."""
    assert len({str(r.specifier) for r in named("jax", "gpu")}) == 1
    (cpu,), (gpu,) = named("onnxruntime", "cpu"), named("onnxruntime-gpu", "gpu")
    assert cpu.specifier.contains("1.31.1")
    assert gpu.specifier.contains("1.31.1")


@pytest.mark.parametrize("minor", [11, 12, 13])
def test_readme_names_every_interpreter_that_is_supported(minor):
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"3.{minor}.0")
    assert f"3.{minor}" in README.split("## Start")[1].split("```bash")[0]


def test_no_other_interpreter_is_promised():
    supported = SpecifierSet(PROJECT["requires-python"])
    assert not any(supported.contains(f"3.{minor}.0") for minor in (10, 14))


def test_jax_has_a_release_for_every_interpreter():
    """0.10 is the last for Python 3.11; from 0.11 on JAX wants 3.12."""
    (jax,) = named("jax")
    assert all(jax.specifier.contains(version) for version in ("0.10.2", "0.11.2"))
