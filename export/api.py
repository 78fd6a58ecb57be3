"""The Python of export: for notebooks and other programs.

    from export.api import Artifact, export

    artifact = export("runs/early", "artifacts/early")
    artifact.models["int8"].accuracy

Nothing is printed: what goes on is logged to the logger "export", which
`fusion_keras.api.show_progress()` shows. A user error is a `UsageError`.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.edge import artifact
from fusion_keras import cli
from fusion_keras.errors import UsageError

__all__ = ["Artifact", "Exported", "UsageError", "export"]


@dataclasses.dataclass(frozen=True)
class Exported:
    """A graph of an artifact.

    Attributes:
        file: its ONNX file.
        accuracy: on the test split, a share in [0, 1].
        change: of the accuracy, against what it was made of, in points; None where not compared.
        nodes: of the graph.
    """

    file: Path
    accuracy: float
    change: float | None
    nodes: int


@dataclasses.dataclass(frozen=True)
class Artifact:
    """An exported run; a path, wherever one is wanted.

    Attributes:
        folder: what goes to the device.
    """

    folder: Path

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Artifact:
        """Open what `export`, or `python -m export`, has written.

        Raises:
            UsageError: there is none, or a file of it is missing or was changed.
        """
        found = cls(Path(folder))
        _ = found.description
        return found

    def __fspath__(self) -> str:
        return os.fspath(self.folder)

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """All of `meta.json`: inputs, classes, ladder, metrics, versions."""
        try:
            return artifact.read(self.folder)
        except artifact.ArtifactError as error:
            raise UsageError(str(error)) from None

    @property
    def variant(self) -> str:
        """Which fusion."""
        return str(self.description["variant"])

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return tuple(self.description["classes"])

    @property
    def models(self) -> dict[str, Exported]:
        """Precision -> its graph."""
        return {
            precision: Exported(
                self.folder / of["file"],
                of["metrics"]["accuracy"],
                _points(of.get("accuracy_change")),
                of["nodes"],
            )
            for precision, of in self.description["models"].items()
        }


def _points(share: float | None) -> float | None:
    return None if share is None else 100 * share


def export(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precisions: Sequence[str] = ("fp16", "int8"),
    batch: int = 1,
    dynamic: bool = False,
    buckets: Sequence[int] = (),
    samples: int = 64,
    without: str = "",
    allow_loss: float | None = None,
) -> Artifact:
    """Turn a finished run into an artifact, each step held against the one before it.

    Args:
        run: its directory, or a `fusion_keras.api.Run`.
        out: the artifact's folder; an older one there is replaced in one step.
        precisions: beside "fp32": "fp16", "int8", "int8_static".
        batch: examples at a time. dynamic: leave batch and length open.
        buckets: lengths in tokens that sentences are padded to, shorter than the run's own.
        samples: validation rows of the parity ladder and of the calibration.
        without: a modality that will be missing.
        allow_loss: points of test accuracy that a graph may lose; None for one point.

    Raises:
        UsageError: see the module, or a failed parity check; what was exported before is as it
            was.
    """
    with cli.quiet_native_logs():
        from export import pipeline, request

    asked = request.Request(
        run=Path(run),
        out=Path(out),
        precisions=tuple(dict.fromkeys(p for p in precisions if p != "fp32")),
        batch=batch,
        dynamic=dynamic,
        buckets=tuple(str(length) for length in buckets),
        samples=samples,
        without=without,
        allow_loss=allow_loss,
    )
    pipeline.export(asked)
    return Artifact(Path(out))
