"""The placebo that knows what a teacher knows, but not when.

Its targets are those of another teacher, each frame of them, in an order that has nothing to do with the sound: what a
codec gains from it, it gains from targets of this kind and from what a whole clip has in common (who speaks, in which
language), not from what is said at each moment.
"""

import hashlib
import math

import torch
from torch import Tensor

from codec.distillation.teachers.base import Teacher
from codec.distillation.teachers.rate import to_frame_rate


class ShuffledTeacher(Teacher):
    """``teacher``, with the frames of each clip in another order, which follows from ``seed`` and the clip's samples.

    They change places at the rate at which they are taught: means over frames in disorder would be near the mean of the
    whole clip, and an easier target than the teacher's own. The order is another for each clip, since a codec could
    learn one that is always the same.

    Args:
        teacher: whose features these are.
        frame_rate: the codec's, in Hz.
    """

    def __init__(self, teacher: Teacher, frame_rate: float, seed: int = 0):
        identity = f"shuffled-seed{seed}-{frame_rate:g}-{teacher.identity}"
        super().__init__(teacher, teacher.dim, frame_rate, identity, teacher.sample_rate)
        self.seed = seed

    def features(self, wav: Tensor) -> Tensor:
        frames = math.ceil(wav.shape[-1] / self.sample_rate * self.frame_rate - 1e-6)
        features = to_frame_rate(self.network.features(wav), self.network.frame_rate, self.frame_rate, frames)
        orders = torch.stack([self._order(one.numpy().tobytes(), frames) for one in wav.cpu()])
        return features.gather(1, orders.to(wav.device)[..., None].expand_as(features))

    def _order(self, clip: bytes, frames: int) -> Tensor:
        """Its frames ``[frames]`` int64, each once."""
        digest = hashlib.blake2b(clip, digest_size=8, key=str(self.seed).encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest) >> 1)
        return torch.randperm(frames, generator=generator)
