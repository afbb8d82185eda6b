"""Being told what is said: phones with their times, or text and phones without.

Several symbols fit in one frame (at 12.5 Hz there are more characters than frames), so that a frame has slots: as many
as it takes for ``per_second`` slots in a second.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codec.data.vocabulary import FILLER, Vocabulary, normalized_text
from codec.flow.conditioning import Batch, Condition, Given, Refined
from codec.flow.dit import sines
from codec.layers.convnext import ConvNeXtBlock
from codec.utils.errors import InputError


class Slots(nn.Module):
    """Numbers of symbols, some in each frame -> ``[B, F, W]``: embedded, refined where there are blocks, and projected.

    Args:
        symbols: how many there are.
        width: W of the network.
        hidden: channels of an embedding.
        slots: S of a frame.
        blocks: of ConvNeXt, over slots.
    """

    def __init__(self, symbols: int, width: int, hidden: int, slots: int, blocks: int = 0):
        super().__init__()
        self.slots = slots
        self.embedding = nn.Embedding(symbols, hidden)
        self.refined = Refined(*(ConvNeXtBlock(hidden, 2 * hidden, scale=1 / blocks) for _ in range(blocks)))
        self.leave = nn.Linear(slots * hidden, width)

    def forward(self, numbers: list[list[int]], inside: Tensor, places: bool) -> Tensor:
        """numbers: of the slots from the first; the filler follows. places: tell slots by number, too."""
        room = inside.repeat_interleave(self.slots, dim=1)
        return self._projected(self._refined(numbers, room, places), inside)

    def spread(self, numbers: list[list[int]], inside: Tensor) -> Tensor:
        """numbers: of symbols, one at least; refined one after another, then each put into as many slots."""
        counts = torch.tensor([len(own) for own in numbers], device=inside.device)[:, None]
        symbols = torch.arange(int(counts.max()), device=inside.device)
        x = self._refined(numbers, symbols < counts, places=True)
        slots = torch.arange(inside.shape[1] * self.slots, device=inside.device)
        which = slots * counts // (inside.sum(dim=1, keepdim=True) * self.slots)  # [B, F * S]
        which = which.minimum(counts - 1)  # what has ended says nothing
        return self._projected(x.gather(1, which[..., None].expand(-1, -1, x.shape[2])), inside)

    def _refined(self, numbers: list[list[int]], inside: Tensor, places: bool) -> Tensor:
        """-> ``[B, L, H]``, zeros outside of ``inside`` ``[B, L]``. After the numbers there are fillers."""
        ids = torch.full(inside.shape, FILLER)
        for row, own in zip(ids, numbers, strict=True):
            row[: len(own)] = torch.tensor(own, dtype=torch.int64)
        x = self.embedding(ids.to(inside.device))
        if places:
            x = x + sines(torch.arange(x.shape[1], device=x.device), x.shape[2])
        return self.refined(x.transpose(1, 2), inside).transpose(1, 2)

    def _projected(self, x: Tensor, inside: Tensor) -> Tensor:
        return self.leave(x.unflatten(1, (-1, self.slots)).flatten(2)) * inside[..., None]


class AlignedPhones(Condition):
    """The phone that sounds, at ``per_second`` moments or more of a second. ``phones`` is a list of (symbol, start in
    seconds) for each example.

    Args:
        vocabulary: the symbols, with spaces between them.
        frame_rate: of the latents, Hz.
        width, hidden: see :class:`Slots`.
    """

    part, timed = "phones", True

    def __init__(self, vocabulary: str, frame_rate: float, width: int, hidden: int = 64, per_second: float = 50.0):
        super().__init__()
        self.vocabulary, self.frame_rate = Vocabulary(vocabulary.split(), "phone"), frame_rate
        self.said = Slots(len(self.vocabulary), width, hidden, slots_of(per_second, frame_rate))

    def refusal(self, item: Batch, frames: int) -> str:
        if not item["phones"]:
            return "without phones"
        return "with unknown phones" if self.vocabulary.unknown(symbol for symbol, _ in item["phones"]) else ""

    def forward(self, batch: Batch, inside: Tensor) -> Given:
        numbers = [self._sounding(phones, inside.shape[1]) for phones in batch["phones"]]
        return Given(frames=self.said(numbers, inside, places=False))

    def check(self, batch: Batch, count: int) -> None:
        asked(batch, "phones", count)
        if any(start is None for phones in batch["phones"] for _, start in phones):
            raise InputError("this model was trained with aligned phones: say when each of them starts")

    def _sounding(self, phones: Sequence[tuple[str, float]], frames: int) -> list[int]:
        """The number in each slot, of the moment in its middle; the filler before the first phone."""
        starts = torch.tensor([start for _, start in phones], dtype=torch.float64)
        moments = (torch.arange(frames * self.said.slots, dtype=torch.float64) + 0.5) / self.said.slots
        which = torch.searchsorted(starts, moments / self.frame_rate, right=True)
        numbers = torch.tensor([FILLER, *self.vocabulary(symbol for symbol, _ in phones)])
        return numbers[which].tolist()


class Unaligned(Condition):
    """Symbols one after another from the first slot, then the filler, as in F5-TTS (arXiv 2410.06885, section 3.2): the
    network finds out by itself when each is said.

    Args:
        vocabulary: the symbols.
        frame_rate: of the latents, Hz.
        width, hidden, blocks: see :class:`Slots`.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        frame_rate: float,
        width: int,
        hidden: int = 128,
        blocks: int = 3,
        per_second: float = 50.0,
    ):
        super().__init__()
        self.vocabulary = vocabulary
        self.said = Slots(len(vocabulary), width, hidden, slots_of(per_second, frame_rate), blocks)

    def symbols(self, value: object) -> list[str]:
        raise NotImplementedError

    def refusal(self, item: Batch, frames: int) -> str:
        symbols = self.symbols(item[self.part])
        if not symbols:
            return f"without {self.part}"
        if self.vocabulary.unknown(symbols):
            return f"with unknown {self.vocabulary.kind}s"
        return "spoken too fast" if len(symbols) > frames * self.said.slots else ""

    def check(self, batch: Batch, count: int) -> None:
        asked(batch, self.part, count)

    def forward(self, batch: Batch, inside: Tensor) -> Given:
        return Given(frames=self.said(self.numbers(batch, inside), inside, places=True))

    def numbers(self, batch: Batch, inside: Tensor) -> list[list[int]]:
        """Of each example's symbols. Raises InputError if they are unknown, or too many for the slots."""
        numbers, room = [], inside.shape[1] * self.said.slots
        for value in batch[self.part]:
            symbols = self.symbols(value)
            if len(symbols) > room:
                raise InputError(
                    f"{len(symbols)} {self.vocabulary.kind}s are too many for the time there is, which has room for "
                    f"{room}: shorten the text, or lengthen the time"
                )
            numbers.append(self.vocabulary(symbols))
        return numbers


class Characters(Unaligned):
    """``text``, character by character, of a whole recording. ``vocabulary`` is a string of all that there are."""

    part, whole = "text", True

    def __init__(self, vocabulary: str, **options):
        super().__init__(Vocabulary(vocabulary, "character"), **options)

    def symbols(self, value: str) -> list[str]:
        return list(normalized_text(value))


class SpreadCharacters(Characters):
    """``text``, character by character, each over an equal share of a whole recording: "average upsampling" of ZipVoice
    (arXiv 2506.13053). The network has to find out only by how much each is said earlier or later."""

    def forward(self, batch: Batch, inside: Tensor) -> Given:
        return Given(frames=self.said.spread(self.numbers(batch, inside), inside))


class Phones(Unaligned):
    """``phones`` in their order, their times unheard: they serve only to cut a recording. ``vocabulary`` has spaces
    between the symbols."""

    part = "phones"

    def __init__(self, vocabulary: str, **options):
        super().__init__(Vocabulary(vocabulary.split(), "phone"), **options)

    def symbols(self, value: Sequence[tuple[str, float | None]]) -> list[str]:
        return [symbol for symbol, _ in value]


def slots_of(per_second: float, frame_rate: float) -> int:
    return max(1, math.ceil(per_second / frame_rate))


def asked(batch: Batch, part: str, count: int) -> None:
    """Raises InputError unless a batch says something under ``part`` for each of its ``count`` recordings."""
    values = batch.get(part)
    if not values or not all(normalized_text(value) if isinstance(value, str) else value for value in values):
        raise InputError(f"this model was trained to be told {part}, and the {part} given is empty: give some")
    if len(values) != count:
        raise InputError(f"{len(values)} {part} for {count} recordings: give one for each")
