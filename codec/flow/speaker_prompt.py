"""Being told who speaks: a prompt, which is some of the latents of another moment of the recording.

It never overlaps the span that is to be filled in (codec/flow/datamodule.py).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.flow.conditioning import Batch, Condition, Given, Refined
from codec.layers.convnext import ConvNeXtBlock
from codec.utils.errors import InputError


class Heard(nn.Module):
    """``prompt`` ``[B, C, P]`` and, where they differ, ``prompt_lengths`` ``[B]`` (1 or more) of a batch ->
    ``[B, P, H]`` and, as ``[B, P]`` bool, what of it there is."""

    def __init__(self, channels: int, hidden: int, blocks: int):
        super().__init__()
        self.enter = nn.Conv1d(channels, hidden, 1)
        self.refined = Refined(*(ConvNeXtBlock(hidden, 2 * hidden, scale=1 / blocks) for _ in range(blocks)))

    def forward(self, batch: Batch, inside: Tensor) -> tuple[Tensor, Tensor]:
        prompt, lengths = batch["prompt"], batch.get("prompt_lengths")
        lengths = torch.full((len(prompt),), prompt.shape[-1]) if lengths is None else lengths
        there = torch.arange(prompt.shape[-1], device=inside.device) < lengths.to(inside.device)[:, None]
        return self.refined(self.enter(prompt.to(inside.device)), there).transpose(1, 2), there


class Prompted(Condition):
    """A condition that hears a prompt."""

    prompted = True

    def check(self, batch: Batch, count: int) -> None:
        prompt, lengths = batch.get("prompt"), batch.get("prompt_lengths")
        if prompt is None:
            raise InputError("this model was trained with prompts: give a recording of the voice")
        if len(prompt) != count or (lengths is not None and len(lengths) != count):
            raise InputError(f"{len(prompt)} prompts for {count} recordings: give one for each")
        if min([prompt.shape[-1]] if lengths is None else lengths.tolist()) < 1:
            raise InputError("the prompt is shorter than a latent frame: give some seconds of the voice")


class PromptVector(Prompted):
    """One vector for the whole prompt.

    Args:
        channels: C of the latents.
        width: W of the network.
        hidden: channels within.
        blocks: of ConvNeXt.
    """

    def __init__(self, channels: int, width: int, hidden: int = 128, blocks: int = 3):
        super().__init__()
        self.heard = Heard(channels, hidden, blocks)
        self.leave = nn.Linear(hidden, width)

    def forward(self, batch: Batch, inside: Tensor) -> Given:
        y, there = self.heard(batch, inside)
        mean = y.sum(1) / there.sum(1, keepdim=True)
        return Given(vector=self.leave(mean))


class PromptTokens(Prompted):
    """As many tokens for any prompt, each what one learned query finds in it (NaturalSpeech 2, arXiv 2304.09116,
    section 3.3: 32 of them).

    Args:
        channels, width, hidden, blocks: as of :class:`PromptVector`.
        tokens: how many.
        heads: of the attention of queries to the prompt.
    """

    def __init__(self, channels: int, width: int, hidden: int = 128, blocks: int = 3, tokens: int = 16, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.heard = Heard(channels, hidden, blocks)
        self.queries = nn.Parameter(torch.randn(tokens, hidden))
        self.keys_values = nn.Linear(hidden, 2 * hidden)
        self.leave = nn.Linear(hidden, width)

    def forward(self, batch: Batch, inside: Tensor) -> Given:
        y, there = self.heard(batch, inside)
        keys, values = self.keys_values(y).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [B, H, P, c]
        queries = self.queries.to(keys.dtype).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        queries = queries.expand(len(y), -1, -1, -1)  # [B, H, tokens, c]
        found = F.scaled_dot_product_attention(queries, keys, values, attn_mask=there[:, None, None])
        return Given(tokens=self.leave(found.transpose(1, 2).flatten(2)))
