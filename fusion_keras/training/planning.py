"""Plans of several trainings, made from their command lines before the first one starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fusion_keras import training_flags
from fusion_keras.errors import UsageError
from fusion_keras.training.plan import Plan, make_plan
from fusion_keras.training.run import Run


def plan_of_flags(arguments: Sequence[str]) -> Plan:
    """The plan of a training's command line.

    Raises:
        UsageError: a flag that there is not, and whatever `make_plan` says.
    """
    return make_plan(*training_flags.parse(arguments))


def described(plan: Plan) -> str:
    """One line: the variant, its seed, what it is made of and what is trained first."""
    first = [
        f"{name} trained first" if isinstance(parent, Plan) else f"{name} from {parent}"
        for name, parent in plan.parents.items()
    ]
    taken = "+".join(plan.spec.modalities)
    rows = plan.config.data.path or plan.config.data.source
    first += [f"taught by {folder}" for folder in plan.teachers]
    parts = [f"{plan.config.variant} s{plan.config.seed}", f"of {taken}", f"on {rows}", *first]
    return ", ".join(parts)


def check_all(runs: dict[Path, tuple[str, Sequence[str]]]) -> None:
    """Plan all runs that are not there yet.

    Args:
        runs: the directory of each -> what it is called, and its command line.

    Raises:
        UsageError: all that is wrong, each sentence once with the runs it is said of.
    """
    said: dict[str, list[str]] = {}
    for folder, (label, arguments) in runs.items():
        # What became of a finished run's presets and parents no longer matters.
        if Run(folder).complete:
            continue
        try:
            plan_of_flags(arguments)
        except UsageError as error:
            said.setdefault(str(error), []).append(label)
    if said:
        lines = [f"{_some(labels)}: {sentence}" for sentence, labels in said.items()]
        count = sum(map(len, said.values()))
        raise UsageError(
            f"{count} of {len(runs)} runs could not be trained, and none was started.\n"
            + "\n".join(lines)
        )


def _some(labels: list[str]) -> str:
    more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
    return ", ".join(labels[:3]) + more
