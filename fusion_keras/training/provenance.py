"""What trained a run: versions, machine, git state."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import fusion_keras

_PACKAGES = ("keras", "keras-hub", "jax", "jaxlib", "numpy", "grain", "tokenizers", "pillow")
# Besides, by what trained the run.
_PACKAGES_OF = {"keras": (), "pytorch": ("torch", "transformers"), "ported": ()}


def provenance(framework: str) -> dict:
    """Versions, machine and git state, kept beside the config of each run."""
    packages = _PACKAGES + _PACKAGES_OF[framework]
    return {
        "fusion_keras": fusion_keras.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in packages},
        "git": _git_state(),
    }


def _git_state() -> dict | None:
    """Commit and whether the tree was clean; None outside a repository."""
    package = Path(__file__).parent

    def git(*arguments):
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "clean": not git("status", "--porcelain")}
    except (OSError, subprocess.CalledProcessError):
        return None
