"""What backbones cost on this machine or another, by depth: parameters, multiply-adds, latency."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fusion_keras import terminal
from fusion_keras.backbones.families import AUDIO
from fusion_keras.backbones.named import ARCHITECTURES
from fusion_keras.backbones.text_encoder import TextEncoder
from fusion_keras.config import copied
from fusion_keras.data.cache import cache_dir
from fusion_keras.errors import MachineError, UsageError
from fusion_keras.files import write
from fusion_keras.fusion.architectures import FUSION
from fusion_keras.searching import trial
from fusion_keras.searching.base import outputs_of, reference_key
from fusion_keras.searching.converter import check_there
from fusion_keras.searching.crew import Crew, Place
from fusion_keras.searching.latency import Meter
from fusion_keras.searching.measuring import met
from fusion_keras.searching.space import Point, key_of, plan_at

PRECISIONS = ("fp32", "int8")
# Shares of a backbone's depth.
SHARES = (0.25, 0.5, 0.75, 1.0)
_log = logging.getLogger(__name__)


def names(modality: str) -> list[str]:
    """The architectures of a modality that have published weights, or had."""
    return [
        name
        for name, (cls, _) in ARCHITECTURES.items()
        if not name.startswith(("tiny_", "small_"))
        and (modality == "text") == issubclass(cls, TextEncoder)
        and cls not in AUDIO
    ]


def points(modality: str, name: str, config) -> list[tuple[int, Point]]:
    """(depth, a model of this backbone alone, cut there), with random weights.

    Raises:
        UsageError: there is no such architecture.
    """
    preset = f"random:{name}"
    settings = {"variant": modality, f"{modality}.preset": preset}
    whole = Point(name, settings).config(config)
    depths = FUSION.facts(whole)[modality].num_depths
    made = []
    for depth in dict.fromkeys(max(1, round(depths * share)) for share in SHARES):
        taps = f"{depth}+-" if modality == "text" else f"-+{depth}"
        at = Point(f"{name} at {depth}", {**settings, "fusion.junctions": f"{taps}:concat"})
        made.append((depth, at))
    return made


def prices(
    wanted: Sequence[tuple[str, str]],
    config,
    folder: Path,
    say: Callable[[str], None],
    device: Sequence[str] = (),
) -> list[dict]:
    """Measure each backbone at a quarter, half, three quarters and the whole of its depth.

    What is in `prices.json` already is not measured again.

    Args:
        wanted: (modality, architecture).
        config: with the length of sentences and the size of images.
        folder: where the table goes.
        say: told what is being done.
        device: flags of the bench that name another machine, which measures; see `measuring.met`.

    Returns:
        Of each: modality, name, depth, parameters, macs (of one example), latency (precision ->
        p50, p90, min in ms), or why it could not be measured, `error`.

    Raises:
        UsageError: the device cannot be reached, or the folder has prices of another machine.
    """
    check_there()
    folder.mkdir(parents=True, exist_ok=True)
    file, base = folder / "prices.json", copied(config)
    # Of the model that all are held against: no weights are read for a price list.
    base.text.preset = "random:minilm"
    found = json.loads(file.read_text()) if file.is_file() else {}
    if found and bool(device) != (folder / "device.json").is_file():
        raise UsageError(
            f"{file} has prices of another machine: give --workdir another folder, or the --device "
            "that it was made with."
        )
    lines = []
    with Crew() as crew:
        asked = [(m, name, *at) for m, name in wanted for at in points(m, name, base)]
        keys = [key_of(plan_at(point, base)) for *_, point in asked]
        there = met(device, folder, crew) if device else None
        meter = Meter(
            cache_dir(base.data.cache_dir), outputs_of(base), reference_key(base), crew, there
        )
        settings = trial.Settings(base, PRECISIONS, {}, meter, say)
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        began = time.monotonic()
        if missing:
            _log.info("%d of %d lines are missing ...", len(missing), len(asked))
        for (modality, name, depth, point), key in zip(asked, keys, strict=True):
            said = found.get(key) or _of(crew.whole, point, key, folder / "work" / key, settings)
            if key in missing:
                done, gone = missing.index(key) + 1, time.monotonic() - began
                _log.info(
                    "[%d/%d] %s: %s  (%s gone, about %s left)",
                    done,
                    len(missing),
                    point.name,
                    said.get("error") or f"fp32 and int8 {_times(said, ' and ')} ms",
                    terminal.clock(gone),
                    terminal.clock(gone / done * (len(missing) - done)),
                )
            # What failed is tried again.
            if key not in found and "error" not in said:
                found[key] = said
                write(file, (json.dumps(found, indent=1) + "\n").encode())
            lines.append({"modality": modality, "name": name, "depth": depth, **said})
    return lines


def _of(place: Place, point: Point, key: str, folder: Path, settings: trial.Settings) -> dict:
    try:
        outcome = trial.measured(place, point, key, folder, settings)
    except MachineError:
        raise  # the device is gone: no other backbone will do better
    except UsageError as error:
        return {"error": str(error)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {n: getattr(outcome, n) for n in ("parameters", "macs", "latency")}


def as_markdown(lines: Sequence[dict]) -> str:
    """A table of `prices`: medians, and minima beside them."""
    head = "| backbone | depth | parameters, M | multiply-adds, M | fp32, ms | int8, ms |"
    rows = [head, "|---|---|---|---|---|---|"]
    for line in lines:
        if "error" in line:
            rows.append(f"| {line['name']} | {line['depth']} | {line['error']} | | | |")
            continue
        rows.append(
            f"| {line['name']} | {line['depth']} | {line['parameters'] / 1e6:.1f} | "
            f"{line['macs'] / 1e6:.0f} | {_times(line, ' | ')} |"
        )
    return "\n".join(rows) + "\n"


def _times(line: dict, between: str) -> str:
    times = [line["latency"][precision] for precision in PRECISIONS]
    return between.join(f"{t['p50']:.2f} ({t['min']:.2f})" for t in times)
