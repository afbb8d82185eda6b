"""A flow model of a few thousand parameters, and batches for it, at 100 frames per second."""

import torch

from codec.flow.conditioning import Conditions
from codec.flow.dit import DiT
from codec.flow.model import FlowModel
from codec.flow.objective import FlowMatching, Objective
from codec.flow.speaker_prompt import PromptTokens, PromptVector
from codec.flow.text_conditioning import AlignedPhones, Characters, Phones, SpreadCharacters

C, W, RATE, HOP = 3, 16, 800, 8
SIZES = dict(frame_rate=RATE / HOP, width=W, hidden=8)
TEXT = {
    "aligned_phones": lambda: AlignedPhones("a b c", **SIZES, per_second=200.0),
    "characters": lambda: Characters("abc ", **SIZES, blocks=2, per_second=200.0),
    "spread_characters": lambda: SpreadCharacters("abc ", **SIZES, blocks=2, per_second=200.0),
    "phones": lambda: Phones("a b c", **SIZES, blocks=2),
}
SPEAKER = {
    "prompt": lambda: PromptVector(C, W, hidden=8, blocks=2),
    "prompt_attention": lambda: PromptTokens(C, W, hidden=8, blocks=1, tokens=3, heads=2),
}
CONDITIONS = TEXT | SPEAKER


def conditions(*names: str) -> Conditions:
    return Conditions({name: CONDITIONS[name]() for name in names}, W)


def small_flow(*names: str, objective: Objective | None = None, seed: int = 0, seconds: float = 0.4) -> FlowModel:
    """With these conditions, in eval mode; weights that are initialised with zeros are random."""
    torch.manual_seed(seed)
    network = DiT(C, W, layers=2, heads=2, hidden=32)
    flow = FlowModel(network, conditions(*names), objective or FlowMatching(), RATE, HOP, "f" * 32, "pre", seconds)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return flow.eval()


def conditioning(batch: int = 2, seed: int = 0) -> dict:
    """What any condition needs."""
    generator = torch.Generator().manual_seed(seed)
    found = {"text": ["abc cab", "b a"][:batch], "phones": [[("a", 0.0), ("b", 0.05)], [("c", 0.02)]][:batch]}
    return found | {"prompt": torch.randn(2, C, 7, generator=generator)[:batch]}


def example(batch: int = 2, frames: int = 20, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents ``[B, C, F]`` and spans of about a third."""
    generator = torch.Generator().manual_seed(seed)
    span = torch.zeros(batch, frames, dtype=torch.bool)
    for n in range(batch):
        span[n, 4 + n : 4 + n + frames // 3] = True
    return torch.randn(batch, C, frames, generator=generator), span
