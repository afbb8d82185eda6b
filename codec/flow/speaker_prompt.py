"""Speaker conditioning on a prompt: latents of another part of the recording, which never overlaps the span.

Names of submodules are those of stored checkpoints.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.flow.conditioning import Batch, Condition, Embeddings, MaskedBlocks
from codec.layers.convnext import ConvNeXtBlock
from codec.utils.errors import InputError


class PromptEncoder(nn.Module):
    """Encoder of ``prompt`` ``[B, C, P]``, a projection and ConvNeXt blocks -> ``[B, P, H]`` and its mask ``[B, P]``
    bool, by ``prompt_lengths`` ``[B]`` (1 or more) of the batch, if any."""

    def __init__(self, channels: int, hidden: int, blocks: int):
        super().__init__()
        self.enter = nn.Conv1d(channels, hidden, 1)
        self.refined = MaskedBlocks(*(ConvNeXtBlock(hidden, 2 * hidden, scale=1 / blocks) for _ in range(blocks)))

    def forward(self, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
        prompt, lengths = batch["prompt"], batch.get("prompt_lengths")
        lengths = torch.full((len(prompt),), prompt.shape[-1]) if lengths is None else lengths
        mask = torch.arange(prompt.shape[-1], device=device) < lengths.to(device)[:, None]
        return self.refined(self.enter(prompt.to(device)), mask).transpose(1, 2), mask


class PromptCondition(Condition):
    """Base class of conditions on a speaker prompt."""

    needs_prompt = True

    def check(self, batch: Batch, count: int) -> None:
        prompt, lengths = batch.get("prompt"), batch.get("prompt_lengths")
        if prompt is None:
            raise InputError("this model is conditioned on a speaker prompt: give a recording of the voice")
        if len(prompt) != count or (lengths is not None and len(lengths) != count):
            raise InputError(f"{len(prompt)} prompts for {count} recordings: give one for each")
        if min([prompt.shape[-1]] if lengths is None else lengths.tolist()) < 1:
            raise InputError("the prompt is shorter than a latent frame: give some seconds of the voice")


class PromptVector(PromptCondition):
    """Speaker vector: mean over time of the prompt, encoded by ``blocks`` ConvNeXt blocks of ``hidden`` channels."""

    name = "prompt"

    def __init__(self, channels: int, width: int, hidden: int = 128, blocks: int = 3):
        super().__init__()
        self.heard = PromptEncoder(channels, hidden, blocks)
        self.leave = nn.Linear(hidden, width)

    def forward(self, batch: Batch, valid: Tensor) -> Embeddings:
        y, mask = self.heard(batch, valid.device)
        return Embeddings(vector=self.leave(y.sum(1) / mask.sum(1, keepdim=True)))


class PromptTokens(PromptCondition):
    """Speaker tokens: attention of ``tokens`` learned queries to the encoded prompt (NaturalSpeech 2, arXiv 2304.09116,
    section 3.3, with 32 of them)."""

    name = "prompt_attention"

    def __init__(self, channels: int, width: int, hidden: int = 128, blocks: int = 3, tokens: int = 16, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.heard = PromptEncoder(channels, hidden, blocks)
        self.queries = nn.Parameter(torch.randn(tokens, hidden))
        self.keys_values = nn.Linear(hidden, 2 * hidden)
        self.leave = nn.Linear(hidden, width)

    def forward(self, batch: Batch, valid: Tensor) -> Embeddings:
        y, mask = self.heard(batch, valid.device)
        keys, values = self.keys_values(y).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [B, H, P, c]
        queries = self.queries.to(keys.dtype).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        queries = queries.expand(len(y), -1, -1, -1)  # [B, H, tokens, c]
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask[:, None, None])
        return Embeddings(tokens=self.leave(attended.transpose(1, 2).flatten(2)))
