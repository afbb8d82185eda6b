"""Extraction of the features of a teacher network, resampled to the frame rate of a codec."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codec.data.work_units import WorkUnits
from codec.distillation.teachers.base import Teacher
from codec.distillation.teachers.rate import to_frame_rate
from codec.latents.extract import Extractor
from codec.latents.shard_file import Layout

FEATURES = Layout("codec-features", 1, "features", "F16", "features", "teacher")
LARGEST = torch.finfo(torch.float16).max
PIECE = 30.0  # seconds at a time, at most: the memory of a teacher may grow with their square
LEAST = 0.1  # seconds; shorter pieces are padded with silence (the first window of WavLM is 25 ms)


class FeatureExtractor(Extractor):
    """Extraction of ``features`` ``[C, F]`` float16, F = ceil(T / hop_length), of T samples at ``sample_rate`` Hz."""

    layout = FEATURES

    def __init__(self, teacher: Teacher, sample_rate: int, hop_length: int):
        self.network = self.teacher = teacher
        self.facts = {"teacher": teacher.identity, "sample_rate": sample_rate, "hop_length": hop_length}
        self.empty = np.zeros((teacher.dim, 0), np.float16)
        self.size = f"{teacher.dim} features at {sample_rate / hop_length:g} Hz"

    def plan(self, units: WorkUnits) -> dict[str, Any]:
        return {"corpus": units.digest, "features": FEATURES.version, **self.facts}

    def matrix(self, wav: Tensor) -> np.ndarray:
        """Raises ValueError if features are not finite."""
        rate, hop = self.facts["sample_rate"], self.facts["hop_length"]
        frames = -(-wav.shape[-1] // hop)
        pieces = math.ceil(frames * hop / rate / PIECE)
        found = torch.cat([self._features(piece) for piece in wav.split(math.ceil(frames / pieces) * hop, dim=-1)])
        if not found.isfinite().all():
            raise ValueError(f"the teacher {self.teacher.identity} gives features that are not finite")
        return found.clamp(-LARGEST, LARGEST).t().half().cpu().numpy()

    def _features(self, wav: Tensor) -> Tensor:
        """``[1, 1, T] -> [F, C]``."""
        rate, hop = self.facts["sample_rate"], self.facts["hop_length"]
        frames = -(-wav.shape[-1] // hop)
        wav = F.pad(wav, (0, max(0, math.ceil(LEAST * rate) - wav.shape[-1])))
        return to_frame_rate(self.teacher(wav, rate), self.teacher.frame_rate, rate / hop, frames)[0]
