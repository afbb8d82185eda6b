"""Conditioning of a flow model on text and speaker: the interface of a condition, and a model's set of conditions."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Batch = Mapping[str, Any]


class Embeddings(NamedTuple):
    """Embeddings of a model's conditions, for a network of width W; None where a condition yields none."""

    frames: Tensor | None = None  # [B, F, W], added to every frame
    vector: Tensor | None = None  # [B, W], added to the embedding of t
    tokens: Tensor | None = None  # [B, P, W], attended to like frames
    token_mask: Tensor | None = None  # [B, P] bool, the tokens that can be attended to

    def where(self, conditional: Tensor) -> "Embeddings":
        """Embeddings of the examples where ``conditional`` ``[B]`` bool is true; zeros and no tokens for the others."""
        share = conditional.to(self.vector.dtype)[:, None]
        token_mask = self.token_mask & conditional[:, None]
        return Embeddings(self.frames * share[..., None], self.vector * share, self.tokens, token_mask)


class Condition(nn.Module):
    """Conditioning input: maps ``text``, ``phones`` (lists) or ``prompt`` ``[B, C, P]`` of a batch to embeddings."""

    name = ""  # of the module within the model, part of the names in checkpoints
    transcript = ""  # the part of a batch that it reads, if any: text or phones
    needs_times = False  # phones need start times
    needs_whole = False  # recordings cannot be cropped, as the text of each piece is not known
    needs_prompt = False  # reads `prompt`, latents of another part of the same recording

    def refusal(self, item: Batch, frames: int) -> str:
        """Reason why a recording of ``frames`` frames cannot be used with this condition; "" if it can."""
        return ""

    def check(self, batch: Batch, count: int) -> None:
        """Raises InputError if a batch of ``count`` recordings lacks what the condition needs."""

    def forward(self, batch: Batch, valid: Tensor) -> Embeddings:
        """Embeddings; ``valid`` ``[B, F]`` bool is false in padding. Raises InputError for unknown or excess
        symbols."""
        raise NotImplementedError


class Conditions(nn.Module):
    """Conditions of a flow model of width W, by role: their embeddings are added, tokens concatenated; {} is none."""

    def __init__(self, members: Mapping[str, Condition | Mapping], width: int):
        super().__init__()
        conditions = [member for member in members.values() if member]
        self.members, self.width = nn.ModuleDict({member.name: member for member in conditions}), width
        self.transcripts = {member.transcript for member in conditions} - {""}
        self.needs_times = any(member.needs_times for member in conditions)
        self.needs_whole = any(member.needs_whole for member in conditions)
        self.needs_prompt = any(member.needs_prompt for member in conditions)

    def refusal(self, item: Batch, frames: int) -> str:
        """First reason of a condition not to use a recording; "" if there is none."""
        return next(filter(None, (member.refusal(item, frames) for member in self.members.values())), "")

    def check(self, batch: Batch, count: int) -> None:
        for member in self.members.values():
            member.check(batch, count)

    def forward(self, batch: Batch, valid: Tensor) -> Embeddings:
        """Combined embeddings; zeros and no tokens where there are none."""
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
