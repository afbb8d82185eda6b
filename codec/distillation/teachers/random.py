"""The placebo: a teacher that knows nothing.

What a codec gains from it, it gains from having any smooth target at all; only what another teacher adds to that is due
to the other teacher's knowledge.
"""

from torch import Tensor

from codec.distillation.teachers import network
from codec.distillation.teachers.base import Teacher, seeded


class RandomTeacher(Teacher):
    """A :class:`~codec.distillation.teachers.network.FrameNetwork` with the untrained weights of ``seed``."""

    def __init__(self, width: int = 256, blocks: int = 6, seed: int = 0):
        with seeded(seed):
            frames = network.FrameNetwork(width, blocks)
        identity = f"random-v{network.VERSION}-{width}x{blocks}-seed{seed}"
        super().__init__(frames, width, network.FRAME_RATE, identity)

    def features(self, wav: Tensor) -> Tensor:
        return self.network(wav)
