"""What belongs to the frames of a recording beside its latents, for training on both: a teacher's features, codes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from codec.data.base import CorpusError
from codec.latents.shard_file import ENDING, Layout, OpenUnits, UnitError, UnitFile

AGAIN = "remove it and begin again"


class PairedFeatures:
    """The matrices in a folder of units (codec/latents/extract.py), by the names of the recordings.

    Args:
        layout: of the units: features, or tokens.

    Raises:
        CorpusError: if a unit is damaged.
    """

    def __init__(self, folder: Path, layout: Layout):
        self.paths = sorted(folder.glob(f"*{ENDING}"))
        self._units = OpenUnits(layout)
        self._places: dict[str, tuple[int, int, int]] = {}
        for number in range(len(self.paths)):
            unit = self._unit(number)
            self._places |= {known["file"]: (number, *unit.place(i)) for i, known in enumerate(unit.recordings)}

    def check(self) -> None:
        """Read all of it. Raises CorpusError if a byte is not as it was written."""
        for number in range(len(self.paths)):
            unit = self._unit(number)
            with _told():
                unit.check()

    def frames(self, file: str) -> int:
        """Of a recording; 0 if there is no such one."""
        _, first, end = self._places.get(file, (0, 0, 0))
        return end - first

    def item(self, file: str, start_frame: int, frames: int) -> Tensor:
        """``[C, frames]`` of a recording from a frame on, float16, codes int64.

        Raises:
            CorpusError: if its unit is damaged, or holds features that are not finite.
        """
        number, first, _ = self._places[file]
        unit = self._unit(number)
        with _told():
            matrix = unit.read(first + start_frame, first + start_frame + frames)
        if matrix.dtype.kind == "u":
            return torch.from_numpy(matrix.astype(np.int64))
        if not np.isfinite(matrix).all():
            raise CorpusError(f"{self.paths[number]} is damaged: what it has for {file} is not finite; {AGAIN}.")
        return torch.from_numpy(matrix)

    def _unit(self, number: int) -> UnitFile:
        with _told():
            return self._units(self.paths[number])


@contextmanager
def _told() -> Iterator[None]:
    """An error of a unit says what to do."""
    try:
        yield
    except UnitError as error:
        raise CorpusError(f"{error}; {AGAIN}.") from None
