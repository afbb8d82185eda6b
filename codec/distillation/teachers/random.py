"""The placebo of the phone teacher: its network with untrained weights.

What a codec gains with it is due to any smooth target; another teacher's knowledge is only what it adds to that.
"""

from codec.distillation.teachers import network
from codec.distillation.teachers.base import Teacher, seeded


class RandomTeacher(Teacher):
    """A :class:`~codec.distillation.teachers.network.FrameNetwork` with the untrained weights of ``seed``."""

    def __init__(self, width: int = 256, blocks: int = 6, seed: int = 0):
        with seeded(seed):
            frames = network.FrameNetwork(width, blocks)
        identity = f"random-v{network.VERSION}-{width}x{blocks}-seed{seed}"
        super().__init__(frames, width, network.FRAME_RATE, identity)
