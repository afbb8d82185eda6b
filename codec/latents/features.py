"""What a teacher hears in each recording of a corpus, frame by frame beside its latents, for training on both."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codec.data.base import CorpusError
from codec.data.units import Units
from codec.extract import Encoding
from codec.teachers.base import Teacher
from codec.teachers.rate import to_frame_rate
from codec.unit_file import ENDING, Layout, OpenUnits, UnitError, UnitFile

FEATURES = Layout("codec-features", 1, "features", "F16", "features", "teacher")
LARGEST = torch.finfo(torch.float16).max
PIECE = 30.0  # seconds that a teacher hears at a time, at most: its memory may grow with their square
LEAST = 0.1  # seconds that it hears at least, silence at the end; WavLM's first window is 25 ms


class ToFeatures(Encoding):
    """``features`` ``[C, F]`` float16, at the frame rate of a codec, of recordings at its sample rate."""

    layout = FEATURES

    def __init__(self, teacher: Teacher, sample_rate: int, hop_length: int):
        self.network = self.teacher = teacher
        self.facts = {"teacher": teacher.identity, "sample_rate": sample_rate, "hop_length": hop_length}
        self.empty = np.zeros((teacher.dim, 0), np.float16)
        self.size = f"{teacher.dim} features at {sample_rate / hop_length:g} Hz"

    def plan(self, units: Units) -> dict[str, Any]:
        return {"corpus": units.digest, "features": FEATURES.version, **self.facts}

    def make(self, wav: Tensor) -> np.ndarray:
        """Raises ValueError if they are not finite."""
        rate, hop = self.facts["sample_rate"], self.facts["hop_length"]
        frames = -(-wav.shape[-1] // hop)
        pieces = math.ceil(frames * hop / rate / PIECE)
        found = torch.cat([self._heard(piece) for piece in wav.split(math.ceil(frames / pieces) * hop, dim=-1)])
        if not found.isfinite().all():
            raise ValueError(f"the teacher {self.teacher.identity} gives features that are not finite")
        return found.clamp(-LARGEST, LARGEST).t().half().cpu().numpy()

    def _heard(self, wav: Tensor) -> Tensor:
        """``[1, 1, T] -> [F, C]``."""
        rate, hop = self.facts["sample_rate"], self.facts["hop_length"]
        frames = -(-wav.shape[-1] // hop)
        wav = F.pad(wav, (0, max(0, math.ceil(LEAST * rate) - wav.shape[-1])))
        return to_frame_rate(self.teacher(wav, rate), self.teacher.frame_rate, rate / hop, frames)[0]


class Features:
    """Those in a folder of :class:`ToFeatures`, by the names of the recordings.

    Raises:
        CorpusError: if a unit is damaged.
    """

    def __init__(self, folder: Path):
        self.paths = sorted(folder.glob(f"*{ENDING}"))
        self._units = OpenUnits(FEATURES)
        self._places: dict[str, tuple[int, int, int]] = {}
        for number in range(len(self.paths)):
            unit = self._unit(number)
            self._places |= {known["file"]: (number, *unit.place(i)) for i, known in enumerate(unit.recordings)}

    def frames(self, file: str) -> int:
        """Of a recording; 0 if there is no such one."""
        _, first, end = self._places.get(file, (0, 0, 0))
        return end - first

    def item(self, file: str, start_frame: int, frames: int) -> Tensor:
        """``[C, frames]`` float16 of a recording from a frame on.

        Raises:
            CorpusError: if its unit is damaged.
        """
        number, first, _ = self._places[file]
        try:
            return torch.from_numpy(self._unit(number).read(first + start_frame, first + start_frame + frames))
        except UnitError as error:
            raise CorpusError(f"{error}; remove it and begin again.") from None

    def _unit(self, number: int) -> UnitFile:
        try:
            return self._units(self.paths[number])
        except UnitError as error:
            raise CorpusError(f"{error}; remove it and begin again.") from None
