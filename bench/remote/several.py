"""`python -m bench A B --device=ssh://x,ssh://y`: the same on several machines at the same time.

Each has its own file of results, with its own fingerprint: no ratio is of two machines. A device
that fails does not hold the others up; the same command measures where it has not been done.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.edge import results
from bench.edge.elsewhere import Wanted
from bench.edge.entry import tell
from bench.edge.errors import BenchError
from bench.edge.method import Contender
from bench.remote.connection import each
from bench.remote.session import Session


def measure(
    wanted: Wanted, options: argparse.Namespace, contenders: Sequence[Contender], target: Path
) -> int:
    """
    Args:
        wanted: of the measurement, without the file that it writes.
        options: of `python -m bench`.
        contenders: that are measured.
        target: OUT.json, for OUT-<device>.json.

    Returns:
        The greatest exit code.

    Raises:
        BenchError: of some device there are no results; which, and why, is printed before.
    """
    devices, codes, failed = each(options.device), [0], []
    outs = {name: target.with_stem(f"{target.stem}-{name}") for name in devices}
    done = [name for name in devices if _measured(outs[name], options, contenders)]
    running: dict[str, Session] = {}
    try:
        for name, device in devices.items():
            if name in done:
                tell(f"{name}: measured before, {outs[name]}")
                continue
            own = argparse.Namespace(**{**vars(options), "device": device})
            session = Session(dataclasses.replace(wanted, writes={"out": outs[name]}), own)
            with _told(name, failed):
                session.prepare()
                session.start()
                running[name] = session
        for name in list(running):
            print(f"\n{name}:", flush=True)
            session = running.pop(name)
            with _told(name, failed):
                codes.append(session.finish())
    except KeyboardInterrupt:  # the one that was waited for has ended
        for name, session in running.items():
            with _told(name, failed):
                session.stop()
        raise
    if failed:
        raise BenchError(
            f"No results of {', '.join(failed)}: why stands above. The same command measures there "
            "alone."
        )
    return max(codes)


@contextlib.contextmanager
def _told(name: str, failed: list[str]) -> Iterator[None]:
    """What fails inside is said, and does not end the others."""
    try:
        yield
    except BenchError as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        failed.append(name)


def _measured(out: Path, options: argparse.Namespace, contenders: Sequence[Contender]) -> bool:
    """Whether the results are there.

    Raises:
        BenchError: others are.
    """
    if options.replace or not out.exists():
        return False
    found = results.read(out)
    same = [(c["name"], c["artifact"]["seal"]) for c in found["contenders"]] == [
        (c.name, c.meta["seal"]) for c in contenders
    ]
    same = same and all(
        found["method"][name] == getattr(options, name)
        for name in ("profile", "seed", "margin", "confidence")
    )
    if not same:
        raise BenchError(
            f"{out} is there, of another measurement: give --out another name, or --replace it."
        )
    return all(c["complete"] or c["error"] for c in found["contenders"])
