"""Reproducible weights of small networks: a seeded context, and training for networks whose weights are cached."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


def fit(
    loss: Callable[[], Tensor],
    parameters: Iterable[nn.Parameter],
    steps: int,
    learning_rate: float,
    warmup: int,
    weight_decay: float,
    max_norm: float = math.inf,
) -> None:
    """Train for ``steps`` of AdamW on ``loss()``, the loss of a new random batch: linear warm-up over ``warmup`` steps,
    cosine decay to 0, gradients clipped to a total norm of ``max_norm``."""
    parameters = list(parameters)
    optimizer = torch.optim.AdamW(parameters, weight_decay=weight_decay)
    for step in range(steps):
        rate = learning_rate * min(1.0, (step + 1) / warmup) * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.param_groups[0]["lr"] = rate
        value = loss()
        optimizer.zero_grad()
        value.backward()
        if max_norm < math.inf:
            nn.utils.clip_grad_norm_(parameters, max_norm)
        optimizer.step()
        if (step + 1) % 100 == 0:
            log.info("step %d of %d: loss %.2f", step + 1, steps, value.item())


def shift_bands(mel: Tensor, most: int) -> Tensor:
    """Shift mel energies ``[B, bands, F]`` by up to ``most`` bands per example, to vary pitch and vocal tract."""
    batch, bands, _ = mel.shape
    by = torch.randint(-most, most + 1, (batch, 1, 1))
    return mel.gather(1, (torch.arange(bands)[None, :, None] + by).clamp(0, bands - 1).expand_as(mel))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A context with torch's CPU generator seeded, for equal weights on every machine; its state is then restored."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reset the generators of GPUs
        yield
