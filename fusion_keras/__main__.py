"""The commands, a line each: `python -m fusion_keras`."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import fusion_keras
from fusion_keras import cli

# In the order in which one needs them.
COMMANDS = {
    "Train": ("train", "plan", "sweep", "search", "prices", "port", "pair"),
    "Ask what was trained": ("reliance", "robustness", "digits"),
    "Export": ("export", "export.doctor"),
    "Measure and answer": (
        "bench", "bench.report", "bench.study", "bench.paper", "bench.predict", "bench.serve",
    ),
    "On a device": ("bench.device", "bench.pack", "bench.engine", "bench.floor", "bench.estimate"),
}  # fmt: skip


def main() -> None:
    print(f"fusion_keras {fusion_keras.__version__}. Each command has --help.")
    for title, names in COMMANDS.items():
        lines = [line for line in map(_line, names) if line]
        if lines:
            print(f"\n{title}\n" + "\n".join(lines))


def _line(name: str) -> str:
    """The command and what its module says first; "" where it is not here."""
    package = name if name.partition(".")[0] in ("export", "bench") else f"fusion_keras.{name}"
    # Found as a file, for importing a command takes seconds.
    root, *rest = package.split(".")
    found = importlib.util.find_spec(root)
    if found is None or not found.submodule_search_locations:
        return ""
    path = Path(next(iter(found.submodule_search_locations))).joinpath(*rest)
    file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    first = ast.get_docstring(ast.parse(file.read_text("utf-8"))).splitlines()[0]
    said = first.split(": `")[0].split(". ")[0].rstrip(".:?")
    return f"  python -m {package:<25} {said[0].lower()}{said[1:]}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--version"]:
        print(f"fusion_keras {fusion_keras.__version__}")
    elif len(sys.argv) > 1 and sys.argv[1] not in ("-h", "--help"):
        told = f"got {sys.argv[1]!r}; commands are modules: python -m fusion_keras.train --help"
        print(f"error: {told}", file=sys.stderr)
        sys.exit(2)
    else:
        with cli.until_nobody_reads():
            main()
