"""Text conditioning of flow models: phones aligned by their start times, or phones and characters without times.

Several symbols fit in one frame (at 12.5 Hz there are more characters than frames): a frame has as many slots as yield
``per_second`` slots per second. Names of submodules are those of stored checkpoints.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codec.data.vocabulary import FILLER, Vocabulary, normalized_text
from codec.flow.conditioning import Batch, Condition, Embeddings, MaskedBlocks
from codec.flow.dit import sines
from codec.layers.convnext import ConvNeXtBlock
from codec.utils.errors import InputError


class SlotEmbedding(nn.Module):
    """Embedding of symbol ids, ``slots`` (S) per frame, each of ``hidden`` channels -> ``[B, F, W]``, through ConvNeXt
    blocks and a projection of each frame's slots. ``symbols`` is the size of the vocabulary."""

    def __init__(self, symbols: int, width: int, hidden: int, slots: int, blocks: int = 0):
        super().__init__()
        self.slots = slots
        self.embedding = nn.Embedding(symbols, hidden)
        self.refined = MaskedBlocks(*(ConvNeXtBlock(hidden, 2 * hidden, scale=1 / blocks) for _ in range(blocks)))
        self.leave = nn.Linear(slots * hidden, width)

    def forward(self, ids: list[list[int]], valid: Tensor, positions: bool) -> Tensor:
        """Embeds ids, one per slot from the first, then fillers; ``positions``: add sinusoidal positions of slots."""
        x = self._embed(ids, valid.repeat_interleave(self.slots, dim=1), positions)
        return self._project(x, valid)

    def spread(self, ids: list[list[int]], valid: Tensor) -> Tensor:
        """Embeds ids, one or more per example: after the blocks in sequence, each fills an equal share of the slots."""
        counts = torch.tensor([len(own) for own in ids], device=valid.device)[:, None]
        symbols = torch.arange(int(counts.max()), device=valid.device)
        x = self._embed(ids, symbols < counts, positions=True)
        slots = torch.arange(valid.shape[1] * self.slots, device=valid.device)
        which = slots * counts // (valid.sum(dim=1, keepdim=True) * self.slots)  # [B, F * S]
        which = which.minimum(counts - 1)  # in the padding
        return self._project(x.gather(1, which[..., None].expand(-1, -1, x.shape[2])), valid)

    def _embed(self, ids: list[list[int]], mask: Tensor, positions: bool) -> Tensor:
        """Embedded symbols ``[B, L, H]``, zeros outside of ``mask`` ``[B, L]``."""
        padded = torch.full(mask.shape, FILLER)
        for row, own in zip(padded, ids, strict=True):
            row[: len(own)] = torch.tensor(own, dtype=torch.int64)
        x = self.embedding(padded.to(mask.device))
        if positions:
            x = x + sines(torch.arange(x.shape[1], device=x.device), x.shape[2])
        return self.refined(x.transpose(1, 2), mask).transpose(1, 2)

    def _project(self, x: Tensor, valid: Tensor) -> Tensor:
        return self.leave(x.unflatten(1, (-1, self.slots)).flatten(2)) * valid[..., None]


class TextCondition(Condition):
    """Base class of text conditions: a vocabulary (phones separated by spaces) and a :class:`SlotEmbedding` with at
    least ``per_second`` slots per second, for latents of ``frame_rate`` Hz."""

    def __init__(
        self,
        vocabulary: str,
        frame_rate: float,
        width: int,
        hidden: int = 128,
        blocks: int = 3,
        per_second: float = 50.0,
    ):
        super().__init__()
        phones = self.transcript == "phones"
        self.vocabulary = Vocabulary(vocabulary.split() if phones else vocabulary, "phone" if phones else "character")
        self.frame_rate = frame_rate
        slots = max(1, math.ceil(per_second / frame_rate))
        self.said = SlotEmbedding(len(self.vocabulary), width, hidden, slots, blocks)

    def symbols(self, transcript: str | Sequence[tuple[str, float | None]]) -> list[str]:
        """Symbols of a text, or of phones ``(symbol, start in seconds)``."""
        return (
            list(normalized_text(transcript)) if isinstance(transcript, str) else [symbol for symbol, _ in transcript]
        )

    def refusal(self, item: Batch, frames: int) -> str:
        symbols = self.symbols(item[self.transcript])
        if not symbols:
            return f"without {self.transcript}"
        if self.vocabulary.unknown(symbols):
            return f"with unknown {self.vocabulary.kind}s"
        return "spoken too fast" if len(symbols) > self.most(frames) else ""

    def check(self, batch: Batch, count: int) -> None:
        name = self.transcript
        if not (values := batch.get(name)) or not all(self.symbols(value) for value in values):
            raise InputError(f"this model is conditioned on {name}, and the {name} given is empty: give some")
        if len(values) != count:
            raise InputError(f"{len(values)} {name} for {count} recordings: give one for each")

    def most(self, frames: int) -> float:
        """Largest number of symbols that fit in ``frames`` frames; inf for aligned phones."""
        return frames * self.said.slots

    def ids(self, batch: Batch, valid: Tensor) -> list[list[int]]:
        """Symbol ids of each example. Raises InputError for unknown symbols, or too many."""
        ids, most = [], self.most(valid.shape[1])
        for transcript in batch[self.transcript]:
            symbols = self.symbols(transcript)
            if len(symbols) > most:
                raise InputError(
                    f"{len(symbols)} {self.vocabulary.kind}s are too many for this duration, in which {most} fit: "
                    "shorten the text, or lengthen the duration"
                )
            ids.append(self.vocabulary(symbols))
        return ids

    def forward(self, batch: Batch, valid: Tensor) -> Embeddings:
        return Embeddings(frames=self.said(self.ids(batch, valid), valid, positions=True))


class Characters(TextCondition):
    """Characters of ``text``, one per slot from the first, then fillers; the network learns the alignment, as in F5-TTS
    (arXiv 2410.06885, section 3.2)."""

    name, transcript, needs_whole = "characters", "text", True


class SpreadCharacters(Characters):
    """Characters of ``text``, each over an equal share of the recording: ZipVoice's average upsampling (arXiv
    2506.13053)."""

    name = "spread_characters"

    def forward(self, batch: Batch, valid: Tensor) -> Embeddings:
        return Embeddings(frames=self.said.spread(self.ids(batch, valid), valid))


class Phones(TextCondition):
    """``phones`` in order, one per slot from the first; their times serve only to cut recordings."""

    name, transcript = "phones", "phones"


class AlignedPhones(TextCondition):
    """Phone at the middle of each slot, by the start times of ``phones``; fillers before the first."""

    name, transcript, needs_times = "aligned_phones", "phones", True

    def __init__(self, vocabulary: str, frame_rate: float, width: int, hidden: int = 64, per_second: float = 50.0):
        super().__init__(vocabulary, frame_rate, width, hidden, 0, per_second)

    def most(self, frames: int) -> float:
        return math.inf  # of phones that start in one slot, one is taken

    def check(self, batch: Batch, count: int) -> None:
        super().check(batch, count)
        if any(start is None for phones in batch["phones"] for _, start in phones):
            raise InputError("this model is conditioned on aligned phones: give the start time of each phone")

    def forward(self, batch: Batch, valid: Tensor) -> Embeddings:
        moments = (torch.arange(valid.shape[1] * self.said.slots, dtype=torch.float64) + 0.5) / self.said.slots
        ids = []
        for phones, own in zip(batch["phones"], self.ids(batch, valid), strict=True):
            starts = torch.tensor([start for _, start in phones], dtype=torch.float64)
            which = torch.searchsorted(starts, moments / self.frame_rate, right=True)
            ids.append(torch.tensor([FILLER, *own])[which].tolist())
        return Embeddings(frames=self.said(ids, valid, positions=False))
