"""The steps of a study, taken: one after another, side by side, or trainings on a cluster."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.edge.entry import Progress, detail, tell
from bench.edge.files import last_line
from bench.studies.study import ALONE, Step, StudyError

# Kinds of steps that others of their kind may run beside, and those that a cluster may take.
SIDE_BY_SIDE = ("train", "control", "export")
TRAININGS = ("train", "control")
LATER = ("tf2onnx", "onnxscript", "onnxruntime", "plotly")


def study(
    planned: list[Step],
    note: Callable[[str], None],
    say: Callable[[str], None],
    shares: Sequence,
    trainers: Sequence = (),
    whole: Sequence = (),
) -> None:
    """Take every step that is not done.

    Args:
        note: told of each step that is done.
        say: told where the study stands, in a line that the next one may replace.
        shares: of the machine, `fusion_keras.jobs.Share`, one for each step that may run at a time.
        trainers: what starts trainings, instead: as many at a time on the nodes of a cluster.
        whole: the machine, for what runs alone, which else has the first share; a measurement on
            a part of the cores would be of another machine.

    Raises:
        StudyError: one failed.
    """
    start, spent, ahead = time.monotonic(), {}, list(planned)
    places = {id(step): f"[{n}/{len(planned)}]" for n, step in enumerate(planned, 1)}

    def done(step: Step, said: str) -> None:
        ahead.remove(step)
        note(f"{places[id(step)]} {step.kind} {step.name}: {said}")

    trainers = trainers or shares
    for batch in _batches(planned, len(shares), len(trainers)):
        kind = batch[0].kind if batch else ""
        alone = shares if kind in SIDE_BY_SIDE else whole or shares
        starters = trainers if kind in TRAININGS else alone
        waiting, running, free = list(batch), [], list(starters)
        try:
            while waiting or running:
                while waiting and free:
                    step = waiting.pop(0)
                    if step.done():
                        done(step, "done before")
                    else:
                        running.append(_Running(step, free.pop(0)))
                if not running:
                    continue
                time.sleep(0.5)
                codes = [(r, r.poll()) for r in running]
                begun = [r for r in running if r.process.where is not None]
                first, more = (begun or running)[0], len(running) - 1
                beside = f" and {more} beside it" if more else ""
                on = f" on {first.process.where}" if first.process.where else ""
                where = f"{places[id(first.step)]} {first.step.kind} {first.step.name}{on}{beside}"
                say(f"{where}, {_clock(start)} gone: {last_line(first.step.log)[:100]}")
                for ended in [r for r, code in codes if code is not None]:
                    running.remove(ended)
                    free.append(ended.share)
                    ended.check()
                    seconds = time.monotonic() - ended.began
                    spent.setdefault(ended.step.kind, []).append(seconds)
                    left = _left([s for s in ahead if s is not ended.step], spent)
                    say("")
                    done(ended.step, f"{seconds:.0f} s{left}")
        finally:
            # Interrupted, or one failed: trainings keep their checkpoints.
            for other in running:
                other.process.terminate()
            for other in running:
                other.process.wait()


def _batches(planned: list[Step], at_a_time: int, trainings: int) -> list[list[Step]]:
    """Steps that may run at the same time, in order: trainings, those of one modality before those
    that find their parents among them, and exports. Measurements are alone."""
    batches = []
    for kind, group in itertools.groupby(planned, lambda step: step.kind):
        steps = list(group)
        if (trainings if kind in TRAININGS else at_a_time) < 2:
            batches += [[step] for step in steps]
        elif kind == "train":
            alone = [s for s in steps if set(s.name.rpartition("-s")[0].split("-")) & set(ALONE)]
            batches += [alone, [s for s in steps if s not in alone]]
        else:
            batches += [steps] if kind in SIDE_BY_SIDE else [[step] for step in steps]
    return batches


class _Running:
    """A step that has begun."""

    def __init__(self, step: Step, share):
        self.step, self.share, self.began = step, share, time.monotonic()
        step.log.parent.mkdir(parents=True, exist_ok=True)
        step.log.write_bytes(b"")
        command = step.command() if callable(step.command) else step.command
        detail(f"{shlex.join(map(str, command))} > {step.log}")
        self.process = share.start(command, step.log)

    def poll(self) -> int | None:
        """The exit code; None before it has ended. Time counts from when a node has begun it."""
        code = self.process.poll()
        if self.process.where is None:
            self.began = time.monotonic()
        return code

    def check(self) -> None:
        """Raises StudyError where it has failed."""
        step = self.step
        if self.process.returncode not in step.fine:
            said = last_line(step.log, "error: ")
            # Checks come before everything else: there is nothing yet to go on from.
            on = "" if step.kind == "check" else " The same command goes on from here."
            raise StudyError(
                f"{step.kind} {step.name} failed ({said.removeprefix('error: ')}); all it said is "
                f"in {step.log}.{on}"
            )


def _left(planned: list[Step], spent: dict[str, list[float]]) -> str:
    """An estimate where each kind that is left has been met before."""
    known = [s.kind for s in planned if s.kind in spent]
    if not known:
        return ""
    seconds = sum(sum(spent[kind]) / len(spent[kind]) for kind in known)
    more = "" if len(known) == len(planned) else f" and {len(planned) - len(known)} other steps"
    return f"; about {seconds / 60:.0f} min{more} left"


def _clock(start: float) -> str:
    seconds = int(time.monotonic() - start)
    return f"{seconds // 60}:{seconds % 60:02}"


def add_growth(made: argparse.ArgumentParser) -> None:
    """The flags of what runs side by side, here or on a cluster."""
    add = made.add_argument
    help_text = "trainings and exports at a time, which divide cores and GPUs, or auto (default 1)"
    add("--jobs", default="1", help=help_text)
    help_text = "train on the nodes of a Ray cluster: HOST:PORT of its head, or auto for the one "
    help_text += "that this machine belongs to; all else stays on this machine"
    add("--ray", metavar="ADDRESS", help=help_text)
    add("--num_cpus", type=int, help="of its node that a training takes (4, or what there is)")
    add("--num_gpus", type=float, help="likewise (1 where there are any)")
    add("--memory_gb", type=float, help="likewise (8, or what there is)")


def conduct(options: argparse.Namespace, plan: Callable[[], list[Step]]) -> str:
    """Plan a study and take its steps, with a line on each; returns what the report said.

    With `dry_run` no step is taken, and what they are is returned.

    Args:
        options: workdir, dry_run, and the flags of `add_growth`.

    Raises:
        StudyError: a mistake in the plan, a step that failed, or a file that cannot be written.
    """
    # Of what stands outside the bench, so that the bench can be had without it.
    from fusion_keras.errors import UsageError

    for polite in (signal.SIGTERM, signal.SIGHUP):  # the step that runs ends with us
        signal.signal(polite, _interrupt)
    try:
        all_installed()
        planned = plan()
        if options.dry_run:
            _check(planned)
            return _described(planned)
        shares = _shares(options.jobs, len([s for s in planned if s.kind in SIDE_BY_SIDE]))
        with _nodes(options) as nodes:
            trainers = nodes.slots(len(planned)) if nodes else ()
            if nodes:
                tell(nodes.described())
            study(planned, tell, Progress(), shares, trainers, _shares("1", 1))
        return (options.workdir / "logs" / "report.log").read_text(encoding="utf-8").strip()
    except (OSError, UsageError) as error:
        raise StudyError(str(error)) from None


def _check(planned: list[Step]) -> None:
    """Take the steps that check and ask for nothing of the steps before; leave no log.

    Raises:
        StudyError: what one of them found.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        for step in planned:
            if step.kind == "check" and not callable(step.command) and not step.done():
                with log.open("wb") as file:
                    done = subprocess.run(step.command, stdout=file, stderr=subprocess.STDOUT)
                if done.returncode:
                    raise StudyError(last_line(log, "error: ").removeprefix("error: "))


def _described(planned: list[Step]) -> str:
    """The steps, a line each, and how many of them are left."""
    before = [step.done() or _trained(step) for step in planned]
    lines = [
        f"[{n}/{len(planned)}] {step.kind} {step.name}{': done before' if done else ''}"
        for n, (step, done) in enumerate(zip(planned, before, strict=True), 1)
    ]
    left = len(planned) - sum(before)
    return "\n".join([*lines, f"{left} of {len(planned)} steps are left; nothing was begun."])


def _trained(step: Step) -> bool:
    """Whether a training is complete; of which settings, it tells when its turn comes."""
    if step.kind != "train" or callable(step.command):
        return False
    run = next(flag for flag in step.command if str(flag).startswith("--run="))
    return Path(run.removeprefix("--run="), "metrics.json").exists()


def _shares(jobs: str, wanted: int) -> list:
    from fusion_keras.jobs import count_of, shares

    return shares(count_of(jobs, max(1, wanted)))


def _nodes(options: argparse.Namespace):
    """The cluster that is asked for, if any, as long as the block."""
    from fusion_keras import cluster

    needs = (options.num_cpus, options.num_gpus, options.memory_gb)
    # Of a study --jobs is of what stays on this machine.
    return cluster.asked(options.ray, needs, "1", options.workdir)


def all_installed() -> None:
    """Check for what only the later steps import: they would miss it after the training.

    Raises:
        StudyError: names the packages that are not installed.
    """
    missing = [name for name in LATER if importlib.util.find_spec(name) is None]
    if missing:
        raise StudyError(
            f'{", ".join(missing)} not installed: pip install -e ".[export,bench,cpu]", on a '
            'workstation with an NVIDIA GPU ".[export,bench,gpu]".'
        )


def _interrupt(number, frame) -> None:
    raise KeyboardInterrupt
