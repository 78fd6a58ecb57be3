"""One contract for every engine: a context manager that answers a dict of arrays with another.

An engine is imported by the runner that needs it, when it is made, and by nothing else.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

from bench.edge.artifact import ArtifactError


class Runner:
    """What all have in common; ready for `infer` once it is made.

    Attributes:
        providers: what the engine really uses.
        device_ms: the last call's time by the GPU's own events, None where there are none.
        build_seconds: that the loaded engine once took to build; None if loading builds it.
        tolerance: how far its outputs may be from the golden ones, `relative` and `cosine`, where
            its arithmetic is another one than its graph's; None for the export's bar.
    """

    providers: tuple[str, ...] | list[str] = ()
    device_ms: float | None = None
    build_seconds: float | None = None
    tolerance: dict[str, float] | None = None

    def __init__(
        self,
        folder: Path,
        meta: dict,
        precision: str,
        *,
        threads: int = 0,
        allow_fallback: bool = False,
        run: Path | None = None,
    ):
        """Load.

        Args:
            folder: the artifact.
            meta: what `bench.edge.artifact.read` says of it.
            precision: one of its models.
            threads: of the CPU; 0 leaves the engine its default.
            allow_fallback: let nodes run elsewhere than on the provider that was asked for.
            run: the run that was exported; for runners that do not read the artifact's graph.

        Raises:
            ArtifactError: the engine is not installed, finds no GPU, or refuses.
        """
        self.folder, self.meta, self.precision = Path(folder), meta, precision
        self.threads, self.allow_fallback, self.run = threads, allow_fallback, run
        self._load()

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs float32 name -> [B, ...] of an artifact's inputs: token_ids int32 [B, T], image
        uint8 [B, S, S, 3], audio float32 [B, F, bands], ...

        Raises:
            ArtifactError: an input is missing, the graph has other shapes, or the engine fails.
        """
        self._check(inputs)
        try:
            return self._infer(inputs)
        except ArtifactError:
            raise
        except Exception as error:  # engines raise whatever they like
            raise ArtifactError(f"{type(self).__name__} failed: {brief(error)}") from error

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Give back what the engine holds."""

    def _check(self, inputs) -> None:
        """That the graph takes these shapes: an open axis is None in the artifact."""
        batch, length = self.meta["shapes"]["batch"], self.meta["shapes"]["length"]
        for name in self.meta["inputs"]:
            if name not in inputs:
                raise ArtifactError(f"The input {name} is missing; got {', '.join(inputs)}.")
            shape = inputs[name].shape
            if (batch and shape[0] != batch) or (
                name == "token_ids" and length and shape[1] != length
            ):
                raise ArtifactError(
                    f"{name} has shape {list(shape)}, but {self.folder} was exported for "
                    f"{self.meta['shapes']}: give it that, or export with another --batch, with "
                    "--buckets or --dynamic."
                )

    def _file(self) -> Path:
        model = self.meta["models"].get(self.precision)
        if model is None:
            raise ArtifactError(
                f"{self.folder} has no {self.precision} model, only "
                f"{', '.join(self.meta['models'])}: export it with "
                f"--precisions={self.precision}."
            )
        return self.folder / model["file"]


def only_fp32(runner: Runner) -> None:
    """Raises ArtifactError: another precision is asked of it."""
    if runner.precision != "fp32":
        raise ArtifactError(
            f"{type(runner).__name__} runs fp32 only, not {runner.precision}: lower precisions "
            "are in the ONNX files."
        )


def library(name: str, remedy: str):
    """An engine's package.

    Args:
        name: of the package.
        remedy: how to install it.

    Raises:
        ArtifactError: it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise ArtifactError(f"{name} is not installed here ({error}): {remedy}.") from None


def brief(error: Exception) -> str:
    """What an error says, as one line of up to 400 characters."""
    return " ".join(str(error).split())[:400] or type(error).__name__
