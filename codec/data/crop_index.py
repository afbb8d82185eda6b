"""Random access to the training crops of a corpus: which recording, and where in it, a draw number stands for."""

import numpy as np
from torch.utils.data import Dataset


class CropIndex(Dataset):
    """Crops for every draw n >= 0, a function of (seed, n) alone, so that resuming and sharding are arithmetic on n.

    Each recording has ceil(length / size) slots, so long ones are drawn in proportion to their length. An epoch is a
    permutation of all slots; slot k of K starts in the k-th K-th of the possible starts, at a random point.

    Args:
        numbers: of the recordings, [N].
        lengths: of each, [N], in the unit of `size`, the crop's length.
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
        """(recording, start of the crop) of a slot, `jitter` in [0, 1)."""
        at = int(np.searchsorted(self.ends, slot, side="right"))
        before = int(self.ends[at - 1]) if at else 0
        count, last = int(self.ends[at]) - before, max(0, int(self.lengths[at]) - self.size)
        return int(self.numbers[at]), int((slot - before + jitter) / count * (last + 1))
