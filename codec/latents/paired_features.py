"""Teacher features or codes of recordings, at the frame rate of the latents of the same recordings."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from codec.data.base import CorpusError
from codec.latents.shard_file import ENDING, Layout, OpenShards, ShardFile, corpus_errors

ADVICE = "remove it and begin again"


class PairedFeatures:
    """The matrices in a folder of shard files of one ``layout`` (features or tokens), by the names of the recordings.
    Raises CorpusError if a file is damaged."""

    def __init__(self, folder: Path, layout: Layout):
        self.paths = sorted(folder.glob(f"*{ENDING}"))
        self._shards = OpenShards(layout, ADVICE)
        self._spans: dict[str, tuple[Path, int, int]] = {}
        for path in self.paths:
            shard = self._shards(path)
            self._spans |= {known["file"]: (path, *shard.span(i)) for i, known in enumerate(shard.recordings)}

    def check(self) -> None:
        """Read all files. Raises CorpusError if a checksum differs."""
        for path in self.paths:
            shard: ShardFile = self._shards(path)
            with corpus_errors(ADVICE):
                shard.check()

    def frames(self, file: str) -> int:
        """Number of frames of a recording; 0 if it is not in the folder."""
        _, first, end = self._spans.get(file, (None, 0, 0))
        return end - first

    def item(self, file: str, start_frame: int, frames: int) -> Tensor:
        """``[C, frames]`` of a recording from ``start_frame`` on: features float16, codes int64. Raises CorpusError if
        the file is damaged, or features are not finite."""
        path, first, _ = self._spans[file]
        shard = self._shards(path)
        with corpus_errors(ADVICE):
            matrix = shard.read(first + start_frame, first + start_frame + frames)
        if matrix.dtype.kind == "u":
            return torch.from_numpy(matrix.astype(np.int64))
        if not np.isfinite(matrix).all():
            raise CorpusError(f"{path} is damaged: features of {file} are not finite; {ADVICE}.")
        return torch.from_numpy(matrix)
