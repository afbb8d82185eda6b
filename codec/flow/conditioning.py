"""Conditioning of a flow model on text and speaker: the interface of a condition, and the set of those of a model.

A condition turns what it needs of a batch (lists ``text``, ``phones``; ``prompt`` ``[B, C, P]``) into embeddings of one
or more kinds: a vector at every frame, one vector for all frames, and tokens that the frames attend to.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Batch = Mapping[str, Any]


class Embeddings(NamedTuple):
    """What a network of width W is conditioned on; None where a condition gives none."""

    frames: Tensor | None = None
    """``[B, F, W]``, added to every frame."""
    vector: Tensor | None = None
    """``[B, W]``, added to the embedding of t."""
    tokens: Tensor | None = None
    """``[B, P, W]``, attended to like frames."""
    token_mask: Tensor | None = None
    """``[B, P]`` bool, the tokens that can be attended to."""

    def where(self, conditional: Tensor) -> "Embeddings":
        """The same for examples where ``conditional`` ``[B]`` is true, and zeros and no tokens for the others."""
        share = conditional.to(self.vector.dtype)[:, None]
        token_mask = self.token_mask & conditional[:, None]
        return Embeddings(self.frames * share[..., None], self.vector * share, self.tokens, token_mask)


class Condition(nn.Module):
    """One input that the model is conditioned on.

    Attributes:
        name: of the module within the model; it is part of the names in checkpoints.
        transcript: ``text`` or ``phones``, the part of a batch that it reads, if any.
        needs_times: phones need their start times.
        needs_whole: recordings cannot be cut, as the part of the text in each piece is not known.
        needs_prompt: it reads ``prompt``, another part of the same recording.
    """

    name = ""
    transcript = ""
    needs_times = False
    needs_whole = False
    needs_prompt = False

    def refusal(self, item: Batch, frames: int) -> str:
        """Why a recording of so many frames cannot be used with this condition; "" if it can."""
        return ""

    def check(self, batch: Batch, count: int) -> None:
        """Raises InputError if a user's batch of ``count`` recordings lacks what the condition needs."""

    def forward(self, batch: Batch, valid: Tensor) -> Embeddings:
        """Embeddings of a batch whose frames are ``valid`` ``[B, F]``, the others padding.

        Raises:
            InputError: for a symbol that is not in the vocabulary, or too many.
        """
        raise NotImplementedError


class Conditions(nn.Module):
    """The conditions of a model. Their embeddings of one kind are added, tokens concatenated.

    Args:
        members: the conditions, such as that of ``text=`` and that of ``speaker=``; an empty mapping is none.
        width: W of the network.
    """

    def __init__(self, members: Mapping[str, Condition | Mapping], width: int):
        super().__init__()
        conditions = [member for member in members.values() if member]
        self.members, self.width = nn.ModuleDict({member.name: member for member in conditions}), width
        self.transcripts = {member.transcript for member in conditions} - {""}
        self.needs_times = any(member.needs_times for member in conditions)
        self.needs_whole = any(member.needs_whole for member in conditions)
        self.needs_prompt = any(member.needs_prompt for member in conditions)

    def refusal(self, item: Batch, frames: int) -> str:
        """The first reason of a condition not to use a recording; "" if there is none."""
        return next(filter(None, (member.refusal(item, frames) for member in self.members.values())), "")

    def check(self, batch: Batch, count: int) -> None:
        """See :meth:`Condition.check`."""
        for member in self.members.values():
            member.check(batch, count)

    def forward(self, batch: Batch, valid: Tensor) -> Embeddings:
        """The embeddings of all conditions, with zeros and no tokens where there are none."""
        frames = torch.zeros(*valid.shape, self.width, device=valid.device)
        vector, tokens = torch.zeros_like(frames[:, 0]), [torch.zeros_like(frames[:, :0])]
        for member in self.members.values():
            found = member(batch, valid)
            frames = frames if found.frames is None else frames + found.frames
            vector = vector if found.vector is None else vector + found.vector
            tokens += [] if found.tokens is None else [found.tokens]
        tokens = torch.cat(tokens, dim=1)
        token_mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=valid.device)
        return Embeddings(frames, vector, tokens, token_mask)


class MaskedBlocks(nn.Module):
    """Blocks in sequence, ``[B, C, L] -> [B, C, L]``, with zeros wherever ``mask`` ``[B, L]`` bool is false."""

    def __init__(self, *blocks: nn.Module):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x * mask[:, None]
        for block in self.blocks:
            x = block(x) * mask[:, None]
        return x
