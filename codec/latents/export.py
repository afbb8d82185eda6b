"""Extraction of the continuous latents of a codec, with mean and standard deviation over the training part.

Each shard file has ``moments`` ``[2, C]`` float64 of its frames: mean, and sum of squared deviations. The last process
merges those of the training files.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from codec.data.base import CorpusError
from codec.data.work_units import WorkUnits
from codec.latents.extract import Extractor
from codec.latents.index import LATENTS, LEAST
from codec.latents.latent_space import latent_fingerprint
from codec.latents.shard_file import ShardFile, ShardFileError
from codec.model import Codec

Moments = tuple[int, np.ndarray, np.ndarray]
"""(count, mean ``[C]``, sum of squared deviations from it ``[C]``) of frames, in float64."""


class LatentExtractor(Extractor):
    """Extraction of ``latents`` ``[C, F]`` float32, not normalised, before ("pre") or after ("post") quantization.
    Raises ValueError if the codec has none of this kind."""

    layout = LATENTS

    def __init__(self, codec: Codec, kind: str = "pre"):
        self.network = self.codec = codec
        self.kind, self.dim = kind, codec.quantizer.latent_dim
        self.facts = {"fingerprint": latent_fingerprint(codec, kind), "kind": kind, "sample_rate": codec.sample_rate}
        self.facts |= {"hop_length": codec.hop_length, "dim": self.dim}
        self.empty = np.zeros((self.dim, 0), np.float32)
        self.size = f"{self.dim} channels at {codec.frame_rate:g} Hz ({kind})"

    def plan(self, units: WorkUnits) -> dict[str, Any]:
        """Raises CorpusError if all recordings are held out."""
        if not units.splits["train"]:
            raise CorpusError("every recording is held out and none is left for the statistics: hold out fewer.")
        return {"corpus": units.digest, "latents": LATENTS.version, **self.facts}

    def matrix(self, wav: Tensor) -> np.ndarray:
        """Raises ValueError if the latents are not finite."""
        found = self.codec.quantizer.to_latents(self.codec.latents(wav), self.kind)[0].float().cpu().numpy()
        if not np.isfinite(found).all():
            raise ValueError("the codec gives latents that are not finite: has its training diverged?")
        return found

    def extra(self, matrix: np.ndarray) -> dict[str, np.ndarray]:
        return {"moments": np.stack(moments(matrix)[1:])}

    def gather(self, shard: ShardFile) -> Moments:
        found = shard.tensor("moments")
        if found.shape != (2, self.dim) or found.dtype != np.float64 or shard.channels != self.dim:
            raise ShardFileError(f"{shard.path} is damaged: it has no moments of {self.dim} channels")
        return shard.frames, *found

    def summary(self, train: list[Any]) -> dict[str, Any]:
        """Raises CorpusError if no training recording could be read."""
        count, mean, deviations = merged(train)
        if not count:
            raise CorpusError("no training recording can be read: there is nothing to take statistics from.")
        std = np.sqrt(deviations / count).astype(np.float32)
        std[std < LEAST] = 1.0  # a constant channel is 0 after normalisation
        return {"mean": mean.astype(np.float32).tolist(), "std": std.tolist()}


def moments(matrix: np.ndarray) -> Moments:
    """Moments over the frames of ``[C, F]``; one channel at a time, so that memory does not double."""
    if not matrix.shape[1]:
        return 0, np.zeros(len(matrix)), np.zeros(len(matrix))
    mean = np.array([row.mean(dtype=np.float64) for row in matrix])
    deviations = np.array([np.square(row - at).sum() for row, at in zip(matrix, mean, strict=True)])
    return matrix.shape[1], mean, deviations


def merged(parts: Sequence[Moments]) -> Moments:
    """Moments of all frames together, by pairwise updates (Chan, Golub and LeVeque, 1979), in the given order."""
    count, mean, deviations = parts[0]
    for n, other_mean, other_deviations in parts[1:]:
        if n:
            total, apart = count + n, other_mean - mean
            deviations = deviations + other_deviations + np.square(apart) * (count * n / total)
            count, mean = total, mean + apart * (n / total)
    return count, mean, deviations
