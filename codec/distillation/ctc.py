"""Phones instead of a teacher: latents from which a linear layer can spell what is said (PAST, arXiv 2505.14470, has
phones as an auxiliary task in place of self-supervised features).

Connectionist temporal classification (Graves et al., 2006) asks for the phones in their order and not for their times,
which is right where a frame lasts as long as a phone: it need not hold one phone each.
"""

import math

import torch
from torch import Tensor, nn

from codec.distillation.base import LatentLoss, Phones
from codec.layers.ctc import ctc_loss
from codec.layers.precision import fp32
from codec.utils.distributed import mean_over_ranks
from codec.utils.errors import InputError


class PhoneCTC(LatentLoss):
    """The CTC loss of the phones of each clip, in nats per phone; the mean over the clips whose phones are known.

    The others are left out of the loss. So is a clip with more phones than places for them.

    Args:
        vocabulary: the symbols, with spaces between them; blank is added.
        frame_rate: the codec's, in Hz.
        dim, target, weight: see :class:`~codec.distillation.base.LatentLoss`.
        per_second: places for phones in a second, at least; a frame has a whole number of them, so that slow frames
            can spell fast speech.

    Raises:
        InputError: if there are no symbols.
        ValueError: if there is no such target.
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
        self.places = max(1, math.ceil(per_second / frame_rate))
        super().__init__(dim, self.places * (len(symbols) + 1), target, weight)
        self.numbers = {symbol: number for number, symbol in enumerate(symbols, start=1)}

    @property
    def teacher(self) -> nn.Module:
        return self

    @fp32
    def forward(self, student: Tensor, wav: Tensor, phones: Phones | None = None) -> Tensor:
        """student ``[B, channels, F]`` -> scalar; 0, with a gradient of zeros, where no clip has phones.

        Raises:
            InputError: for a phone that is not in the vocabulary, and where phones were not even looked for.
        """
        if phones is None:
            raise InputError("distill=ctc learns from phones, and this batch was kept without them")
        logits = self.projection(student.transpose(1, 2)).unflatten(-1, (self.places, -1)).flatten(1, 2)  # [B, F P, S]
        targets = [torch.tensor(self._labels(clip), dtype=torch.int64) for clip in phones]
        known = torch.tensor([float(len(target) > 0) for target in targets], device=logits.device)
        lengths = torch.full((len(logits),), logits.shape[1], device=logits.device)
        (count,) = mean_over_ranks([known.sum()])
        return (known * ctc_loss(logits, lengths, targets)).sum() / count.clamp(min=1e-6)

    def _labels(self, clip: list[tuple[str, float]]) -> list[int]:
        if unknown := [symbol for symbol, _ in clip if symbol not in self.numbers]:
            raise InputError(f"the phone {unknown[0]!r} is not in distill.vocabulary: add it there")
        return [self.numbers[symbol] for symbol, _ in clip]
