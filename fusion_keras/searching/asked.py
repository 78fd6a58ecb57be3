"""What a search is asked for, checked before anything is built."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path

from fusion_keras import jobs
from fusion_keras.data.cache import cache_dir
from fusion_keras.errors import UsageError
from fusion_keras.fusion.architectures import FUSION
from fusion_keras.searching import space_file
from fusion_keras.searching.base import untaught
from fusion_keras.searching.converter import check_there
from fusion_keras.searching.request import SAMPLERS, Request
from fusion_keras.searching.space import VARIANT, variant_point
from fusion_keras.training import teachers
from fusion_keras.training.plan import check_teaching, make_plan
from fusion_keras.training.recipes import resolve

PACKAGES = ("tf2onnx", "onnx", "onnx_ir", "onnxscript", "onnxruntime")
PRECISIONS = ("fp32", "fp16", "int8", "int8_static")
_log = logging.getLogger(__name__)
# What runs models that are measured -> the precisions that it takes; first those that are searched
# over unless others are asked for. Dynamic int8 is ONNX Runtime's own.
RUNNERS = {
    "ort": (("fp32", "int8"), PRECISIONS),
    "ort-cuda": (("fp32", "fp16"), ("fp32", "fp16")),
    "ort-tensorrt": (("fp16", "int8_static"), ("fp32", "fp16", "int8_static")),
    "openvino": (("fp32", "int8_static"), ("fp32", "fp16", "int8_static")),
}


def request(
    config,
    *,
    folder: Path,
    space: str | None,
    count: int,
    budget: float | None,
    memory: float | None = None,
    energy: float | None = None,
    precisions: Sequence[str] | None,
    sampler: str,
    storage: str,
    named: Sequence[str] | None,
    teacher: str = "",
    finalists: int = 0,
    seeds: int = 1,
    side_by_side: str = "1",
    device: str | None = None,
    ssh: str = "ssh",
    runner: str | None = None,
) -> Request:
    """The request of flags; `side_by_side` as `jobs.count_of` has it, `device`, `ssh` and `runner`
    as the bench has them; `precisions` of None are those of the runner, which is ort if it is None.

    Raises:
        UsageError: whatever is wrong with them, with the space, or with the data.
    """
    limits = {"budget_ms": budget, "budget_mb": memory, "budget_mj": energy}
    _check_flags(count, limits, sampler, finalists, seeds)
    if device and runner is None:
        _log.info(
            "note: measured is ONNX Runtime on the CPU there; --runner=ort-cuda or ort-tensorrt is "
            "for its GPU"
        )
    runner = runner or "ort"
    precisions = _precisions_of(runner, precisions)
    trials_at_a_time = jobs.count_of(side_by_side, count)
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{', '.join(missing)} not installed: pip install -e '.[search,export,bench,cpu]'."
        )
    check_there()
    if config.dtype != "float32":
        raise UsageError(f"--dtype is {config.dtype}; only float32 can be exported and measured.")
    if config.fusion.junctions:
        raise UsageError(
            "config.fusion.junctions is given, which is what a search varies: leave it out, or "
            "narrow the space with --space."
        )
    # The teacher is there only when it has been trained.
    plain = untaught(config)
    held = space_file.of_file(Path(space), plain) if space else space_file.default(plain)
    if all(len(values) == 1 for values in held.dimensions.values()) and held.dimensions[
        "junctions"
    ] == (1,):
        raise UsageError("The space has a single point: give some dimension of it several values.")
    joined = config.fusion.modalities.split("+")
    if named is None:
        named = [*(m for m in ("text",) if m in joined), "late", "inter", "early"]
    _check_trainings(config, named, teacher)
    return Request(
        base=config,
        space=held,
        folder=folder,
        count=count,
        budget=budget,
        memory=memory,
        energy=energy,
        precisions=tuple(dict.fromkeys(precisions)),
        sampler=sampler,
        storage=storage,
        named=tuple(dict.fromkeys(named)),
        seed=config.seed,
        teacher=teacher,
        cache=cache_dir(config.data.cache_dir),
        jobs=trials_at_a_time,
        device=(f"--device={device}", f"--ssh={ssh}") if device else (),
        runner=runner,
    )


def _check_trainings(config, named: Sequence[str], teacher: str) -> None:
    """Raises UsageError for what is wrong with the data or the settings, before the first model is
    built."""
    # The teacher is there only when it has been trained.
    for variant in dict.fromkeys([*named, *([teacher] if teacher else [])]):
        make_plan(variant_point(variant).config(untaught(config)))
    joint = variant_point(VARIANT).config(config)
    if not teacher:
        make_plan(joint)
        return
    joint.teacher.runs = (teacher,)
    check_teaching(resolve(joint), "keras")
    if joint.teacher.unlabelled:
        teachers.unlabelled_of(joint, FUSION.modalities(joint))


def _check_flags(count, limits, sampler, finalists, seeds) -> None:
    """Raises UsageError for a flag whose value cannot be, whatever the data are."""
    # Written so that a nan is refused.
    for name, most in limits.items():
        if most is not None and not most > 0:
            raise UsageError(f"--{name} is {most:g}; more than 0 is wanted.")
    if count < 1:
        raise UsageError(f"--trials is {count}; at least 1 is wanted.")
    if finalists < 0 or seeds < 1:
        raise UsageError(
            f"--finalists is {finalists} and --seeds {seeds}; at least 0 and 1 are wanted."
        )
    if sampler not in SAMPLERS:
        raise UsageError(f"--sampler is {sampler!r}; one of {', '.join(SAMPLERS)} is wanted.")
    if sampler == "gp" and importlib.util.find_spec("torch") is None:
        raise UsageError("--sampler=gp needs torch: pip install torch, or take tpe.")


def _precisions_of(runner: str, precisions: Sequence[str] | None) -> Sequence[str]:
    """Raises UsageError for a runner that a search cannot measure with, or that takes them not."""
    if runner not in RUNNERS:
        raise UsageError(f"--runner is {runner!r}; one of {', '.join(RUNNERS)} is wanted.")
    usual, taken = RUNNERS[runner]
    if precisions is None:
        return usual
    if not precisions or not set(precisions) <= set(taken):
        on = "" if taken == PRECISIONS else f" on {runner}"
        raise UsageError(
            f"--precisions is {','.join(precisions)!r}; some of {', '.join(taken)} are wanted{on}."
        )
    return precisions
