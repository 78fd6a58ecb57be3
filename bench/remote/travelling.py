"""What of the bench travels to a device, here and nowhere else."""

from __future__ import annotations

from pathlib import Path

# A room, the entries that need nothing but it, and what an application imports.
ROOM = "edge"
ENTRIES = ("__main__", "device", "engine", "overhead", "predict", "repeatability")
LIBRARY = "predictor"

BENCH = Path(__file__).parents[1]


def travelling() -> list[Path]:
    """The files, relative to the folder of the bench."""
    entries = [Path(f"{name}.py") for name in (*ENTRIES, LIBRARY)]
    room = sorted(path.relative_to(BENCH) for path in (BENCH / ROOM).rglob("*.py"))
    return [*entries, *room]
