"""What is measured: every artifact at every precision, on every runner, in every way."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from bench.edge import artifact
from bench.edge.artifact import ArtifactError
from bench.edge.method import INPUTS, Contender, check, names
from bench.edge.runners import engines

_SWEPT = ("precision", "runner", "batch", "threads", "inputs", "hz")


def contenders(
    artifacts: Sequence[Path],
    *,
    precisions: Sequence[str] = ("fp32",),
    runners: Sequence[str] = ("ort",),
    batches: Sequence[int] = (1,),
    threads: Sequence[int] = (0,),
    inputs: Sequence[str] = ("data",),
    rates: Sequence[float] = (0.0,),
    run: Path | None = None,
    allow_fallback: bool = False,
) -> list[Contender]:
    """The product of what is asked for, checked.

    Args:
        artifacts: folders; one that is there twice is measured twice.
        precisions: of all of them; ["all"] for those that each has.
        runners, batches, threads, inputs, rates, run, allow_fallback: see `method.Contender`, where
            a rate is `hz`.

    Raises:
        ArtifactError: something of it cannot be measured.
    """
    for name, given, known in (("runners", runners, engines.RUNNERS), ("inputs", inputs, INPUTS)):
        for value in given:
            if value not in known:
                raise ArtifactError(f"--{name}={value} is unknown; there are {', '.join(known)}.")
    metas = {folder: artifact.read(folder) for folder in dict.fromkeys(artifacts)}
    every = []
    for folder in artifacts:
        own = list(metas[folder]["models"]) if list(precisions) == ["all"] else precisions
        product = itertools.product(own, runners, batches, threads, inputs, rates)
        every += [{"folder": folder, **dict(zip(_SWEPT, values))} for values in product]  # noqa: B905
    found = [
        Contender(name, meta=metas[each["folder"]], run=run, allow_fallback=allow_fallback, **each)
        for name, each in zip(names(every), every)  # noqa: B905
    ]
    for contender in found:
        check(contender)
    return found
