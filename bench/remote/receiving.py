"""Files that come from a device in pieces: each whole at its place here, or not at all."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from bench.edge.entry import Progress
from bench.edge.errors import BenchError


class Receiving:
    """Takes what `there.give` says.

    Attributes:
        arrived: the places of the files that are here.
    """

    def __init__(self, places: dict[str, Path], edit: Callable[[Path], None] | None = None):
        """
        Args:
            places: of what is asked for by its name there: a file, or a folder for its files.
            edit: changes a file that has come, before it takes its place.
        """
        self.arrived: list[Path] = []
        self._places, self._edit, self._progress = places, edit, Progress()

    def __call__(self, said: dict) -> None:
        """One answer of the device.

        Raises:
            BenchError: the place cannot be written, or the file has changed on the way.
        """
        try:
            if "file" in said:
                self._begin(said["file"], said["bytes"])
            elif "piece" in said:
                piece = base64.b64decode(said["piece"])
                self._sha.update(piece)
                self._open.write(piece)
                done = self._open.tell() / 1e6
                self._progress(
                    f"bringing {self._target.name}, {done:.0f} of {self._size:.0f} MB ..."
                )
            elif "whole" in said:
                self._end(said["whole"])
        except OSError as error:
            raise BenchError(
                f"{self._target} cannot be written: {error.strerror or error}. It is still on the "
                "device: make room, then type the same command."
            ) from None

    def _begin(self, name: str, size: int) -> None:
        self._target = self._place(name)
        self._size, self._sha = size / 1e6, hashlib.sha256()
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._partial = self._target.with_name(f"{self._target.name}.partial")
        self._open = self._partial.open("wb")

    def _place(self, name: str) -> Path:
        """Nothing but what was asked for is written, whatever a device says."""
        folder, _, last = name.rpartition("/")
        if name in self._places:
            return self._places[name]
        if folder in self._places and last not in ("", ".", ".."):
            return self._places[folder] / last
        raise BenchError(f"The device sends {name}, which nobody asked for.")

    def _end(self, sha256: str) -> None:
        self._open.close()
        self._progress("")
        if self._sha.hexdigest() != sha256:
            raise BenchError(
                f"{self._target} was changed on its way from the device: type the same command."
            )
        if self._edit:
            self._edit(self._partial)
        os.replace(self._partial, self._target)
        self.arrived.append(self._target)
