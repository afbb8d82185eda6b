"""A placebo control for the phone teacher: its network with random weights.

What a codec gains from it is due to any smooth target; a trained teacher's knowledge is what it adds to that.
"""

from codec.distillation.teachers import network
from codec.distillation.teachers.base import Teacher
from codec.utils.fitting import seeded


class RandomTeacher(Teacher):
    """The network of the phone teacher with random weights."""

    def __init__(self, width: int = 256, blocks: int = 6, seed: int = 0):
        with seeded(seed):
            frames = network.FrameNetwork(width, blocks)
        identity = f"random-v{network.VERSION}-{width}x{blocks}-seed{seed}"
        super().__init__(frames, width, network.FRAME_RATE, identity)
