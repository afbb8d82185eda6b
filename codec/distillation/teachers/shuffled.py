"""A placebo control without timing: another teacher's features in shuffled order.

What a codec gains from it is due to the features' distribution and to what a whole clip has in common (speaker,
language), not to the content of each frame.
"""

import hashlib
import math

import torch
from torch import Tensor

from codec.distillation.teachers.base import Teacher
from codec.distillation.teachers.rate import to_frame_rate


class ShuffledTeacher(Teacher):
    """Another teacher with each clip's frames permuted, as ``seed`` and the clip's samples determine.

    Frames are permuted at ``frame_rate``, the codec's in Hz: means over permuted frames would be near the clip's mean,
    an easier target. Each clip has its own permutation, since a codec could learn a constant one.
    """

    def __init__(self, teacher: Teacher, frame_rate: float, seed: int = 0):
        identity = f"shuffled-seed{seed}-{frame_rate:g}-{teacher.identity}"
        super().__init__(teacher, teacher.dim, frame_rate, identity, teacher.sample_rate)
        self.seed = seed

    def features(self, wav: Tensor) -> Tensor:
        frames = math.ceil(wav.shape[-1] / self.sample_rate * self.frame_rate - 1e-6)
        features = to_frame_rate(self.network.features(wav), self.network.frame_rate, self.frame_rate, frames)
        orders = torch.stack([self._order(clip.numpy().tobytes(), frames) for clip in wav.cpu()]).to(wav.device)
        return features.gather(1, orders[..., None].expand_as(features))

    def _order(self, clip: bytes, frames: int) -> Tensor:
        digest = hashlib.blake2b(clip, digest_size=8, key=str(self.seed).encode()).digest()
        return torch.randperm(frames, generator=torch.Generator().manual_seed(int.from_bytes(digest) >> 1))
