"""What a flow model is told beside the latents: the contract of a condition, and sums of them.

A condition reads what it needs of a batch (lists ``text``, ``phones``; ``prompt`` ``[B, C, P]``) and says it in one or
more of three ways: a vector at every frame, one vector for all of time, and tokens that are attended to.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Batch = Mapping[str, Any]


class Given(NamedTuple):
    """What conditions say; None where one says nothing."""

    frames: Tensor | None = None
    """``[B, F, W]``, added to every frame."""
    vector: Tensor | None = None
    """``[B, W]``, added to what tells the time."""
    tokens: Tensor | None = None
    """``[B, P, W]``, attended to beside the frames."""
    attended: Tensor | None = None
    """``[B, P]`` bool, which tokens can be attended to."""

    def kept(self, keep: Tensor) -> "Given":
        """The same for examples where ``keep`` ``[B]`` is true, and nothing for the others."""
        share = keep.to(self.vector.dtype)[:, None]
        attended = self.attended & keep[:, None]
        return Given(self.frames * share[..., None], self.vector * share, self.tokens, attended)


class Condition(nn.Module):
    """One thing that the model is told.

    Attributes:
        part: ``text`` or ``phones``, if it is told one of them.
        timed: of phones it wants to know when each of them starts.
        whole: it wants whole recordings: of a piece it would not know what is in it.
        prompted: it wants ``prompt``, a piece of the same recording.
    """

    part = ""
    timed = False
    whole = False
    prompted = False

    def refusal(self, item: Batch, frames: int) -> str:
        """Why a recording of so many frames cannot be used with this condition; "" if it can."""
        return ""

    def check(self, batch: Batch, count: int) -> None:
        """Raises InputError if a user's batch of ``count`` recordings, not yet cut to pieces, lacks what it needs."""

    def forward(self, batch: Batch, inside: Tensor) -> Given:
        """What it says of a batch whose examples are where ``inside`` ``[B, F]`` is true.

        Raises:
            InputError: for a symbol that it does not know, or too many.
        """
        raise NotImplementedError


class Conditions(nn.Module):
    """A set of conditions, by name; what they say is added up. None at all is a set, too.

    Args:
        members: the conditions.
        width: W of the network.
    """

    def __init__(self, members: Mapping[str, Condition], width: int):
        super().__init__()
        self.members, self.width = nn.ModuleDict(dict(members)), width

    @property
    def parts(self) -> set[str]:
        """Which of ``text`` and ``phones`` the members are told."""
        return {member.part for member in self.members.values()} - {""}

    @property
    def timed(self) -> bool:
        return any(member.timed for member in self.members.values())

    @property
    def whole(self) -> bool:
        return any(member.whole for member in self.members.values())

    @property
    def prompted(self) -> bool:
        return any(member.prompted for member in self.members.values())

    def refusal(self, item: Batch, frames: int) -> str:
        """The first member's reason not to use a recording; "" if there is none."""
        return next(filter(None, (member.refusal(item, frames) for member in self.members.values())), "")

    def check(self, batch: Batch, count: int) -> None:
        """See :meth:`Condition.check`."""
        for member in self.members.values():
            member.check(batch, count)

    def forward(self, batch: Batch, inside: Tensor) -> Given:
        """-> what all say together, with zeros and no tokens where nobody says anything."""
        sizes = *inside.shape, self.width
        said = [member(batch, inside) for member in self.members.values()]
        tokens = [one.tokens for one in said if one.tokens is not None]
        tokens = torch.cat([torch.zeros(sizes[0], 0, self.width, device=inside.device), *tokens], dim=1)
        frames = sum((one.frames for one in said if one.frames is not None), torch.zeros(sizes, device=inside.device))
        vector = sum((one.vector for one in said if one.vector is not None), torch.zeros_like(frames[:, 0]))
        return Given(frames, vector, tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=inside.device))


class Refined(nn.Module):
    """Blocks one after another, ``[B, C, L] -> [B, C, L]``, with zeros wherever an example has ended."""

    def __init__(self, *blocks: nn.Module):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """inside ``[B, L]`` bool."""
        x = x * inside[:, None]
        for block in self.blocks:
            x = block(x) * inside[:, None]
        return x
