"""Random access to training crops: the recording of a draw number, and the position in it."""

import numpy as np
from torch.utils.data import Dataset


class CropIndex(Dataset):
    """Positions of training crops for every draw n >= 0, functions of (seed, n) alone: exact resuming and sharding.

    A recording has K = ceil(length / size) slots, so that it is drawn in proportion to its length. An epoch is a
    permutation of all slots; slot k starts at a random point in the k-th of K equal parts of the possible starts.
    `numbers` [N] are those of the recordings, `lengths` [N] theirs, in the unit of `size`, the crop's length.
    """

    def __init__(self, numbers: np.ndarray, lengths: np.ndarray, size: int, seed: int):
        self.numbers, self.lengths, self.size, self.seed = numbers, lengths, size, seed
        self.ends = np.cumsum(-(-lengths // size))
        self.slots = int(self.ends[-1]) if len(self.ends) else 0
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def slot(self, n: int) -> int:
        """The slot of draw n."""
        epoch, position = divmod(n, self.slots)
        if epoch != self._epoch:
            dtype = np.int32 if self.slots < 2**31 else np.int64  # every worker has a permutation in memory
            self._order = np.random.default_rng((self.seed, 0, epoch)).permutation(self.slots).astype(dtype)
            self._epoch = epoch
        return int(self._order[position])

    def locate(self, slot: int, jitter: float) -> tuple[int, int]:
        """(recording, start of the crop) of a slot; `jitter` in [0, 1) is the position within the slot."""
        at = int(np.searchsorted(self.ends, slot, side="right"))
        before = int(self.ends[at - 1]) if at else 0
        count, last = int(self.ends[at]) - before, max(0, int(self.lengths[at]) - self.size)
        return int(self.numbers[at]), int((slot - before + jitter) / count * (last + 1))
