"""Phone supervision of latents by CTC, an auxiliary task in place of a teacher (PAST, arXiv 2505.14470)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codec.distillation.base import LatentLoss, PhoneBatch
from codec.layers.ctc import ctc_loss
from codec.layers.precision import fp32
from codec.utils.distributed import mean_over_ranks
from codec.utils.errors import InputError


class PhoneCTC(LatentLoss):
    """The CTC loss of each clip's phones in nats per phone, averaged over the clips with known phones.

    Clips with more phones than output labels have a loss of 0. Raises InputError if the vocabulary is empty.

    Args:
        vocabulary: symbols separated by spaces, without the blank.
        frame_rate: the codec's, in Hz.
        dim, target, weight: see :class:`LatentLoss`.
        per_second: minimum of output labels per second; each frame has a whole number, for fast speech at low rates.
    """

    def __init__(
        self,
        vocabulary: str | None,
        dim: int,
        frame_rate: float,
        target: str = "bottleneck",
        weight: float = 1.0,
        per_second: float = 50.0,
    ):
        symbols = (vocabulary or "").split()
        if not symbols:
            raise InputError(
                "distill=ctc learns from phones, and the corpus has none: take dataset=espeak, or a folder whose "
                "manifest has phones"
            )
        self.per_frame = max(1, math.ceil(per_second / frame_rate))
        super().__init__(dim, self.per_frame * (len(symbols) + 1), target, weight)
        self.labels = {symbol: label for label, symbol in enumerate(symbols, start=1)}

    @property
    def teacher(self) -> nn.Module:
        return self

    @fp32
    def forward(self, latents: Tensor, wav: Tensor, phones: PhoneBatch | None = None) -> Tensor:
        """latents ``[B, channels, F]`` -> scalar; 0, with a zero gradient, if no clip has phones.

        Raises InputError for a phone outside the vocabulary, and if ``phones`` is None.
        """
        if phones is None:
            raise InputError("distill=ctc learns from phones, and this batch was saved without them")
        logits = self.projection(latents.transpose(1, 2)).unflatten(-1, (self.per_frame, -1)).flatten(1, 2)
        targets = [torch.tensor(self._labels(clip), dtype=torch.int64) for clip in phones]
        known = torch.tensor([float(len(target) > 0) for target in targets], device=logits.device)
        lengths = torch.full((len(logits),), logits.shape[1], device=logits.device)
        (count,) = mean_over_ranks([known.sum()])
        return (known * ctc_loss(logits, lengths, targets)).sum() / count.clamp(min=1e-6)

    def _labels(self, clip: Sequence[tuple[str, float]]) -> list[int]:
        if unknown := [symbol for symbol, _ in clip if symbol not in self.labels]:
            raise InputError(f"the phone {unknown[0]!r} is not in distill.vocabulary: add it there")
        return [self.labels[symbol] for symbol, _ in clip]
