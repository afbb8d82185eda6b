"""REPA (arXiv 2410.06940): alignment of a flow model's hidden states with a teacher's features, in training only.

Unlike the paper, features are of whole recordings, cut where the latents are.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn

from codec.flow.dit import DiT
from codec.layers.precision import fp32
from codec.utils.distributed import mean_over_ranks
from codec.utils.errors import InputError


class RepaLoss(nn.Module):
    """REPA loss: 1 - cosine similarity of projected hidden states and teacher features, mean over frames.

    Args:
        channels: of the features.
        width, layers: of the network.
        layer: the block whose output is aligned, from 1; None: after two sevenths of them, as REPA's 8 of 28.
        hidden: width of the projection, an MLP of three layers.
        weight: of the loss; REPA's is 0.5.
    """

    def __init__(
        self, channels: int, width: int, layers: int, layer: int | None = None, hidden: int = 512, weight: float = 0.5
    ):
        super().__init__()
        self.layer, self.weight = max(1, round(layers * 2 / 7)) if layer is None else layer, weight
        if not 1 <= self.layer <= layers:
            raise InputError(f"repa.layer={layer}, and the network has blocks 1 to {layers}: choose one of these")
        first, middle, last = nn.Linear(width, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, channels)
        self.projection = nn.Sequential(first, nn.SiLU(), middle, nn.SiLU(), last)

    @contextmanager
    def capture(self, network: DiT) -> Iterator[list[Tensor]]:
        """Context in which every pass of the network appends its hidden states ``[B, P + F, W]`` to the list."""
        hidden: list[Tensor] = []
        hook = network.blocks[self.layer - 1].register_forward_hook(lambda block, args, output: hidden.append(output))
        try:
            yield hidden
        finally:
            hook.remove()

    @fp32
    def forward(self, hidden: Tensor, features: Tensor, valid: Tensor) -> Tensor:
        """Loss in [0, 2] of hidden ``[B, P + F, W]`` (P tokens), features ``[B, channels, F]``, valid ``[B, F]``
        bool."""
        frames = self.projection(hidden[:, -valid.shape[1] :])
        distance = 1 - F.cosine_similarity(frames, features.transpose(1, 2), dim=-1)
        (count,) = mean_over_ranks([valid.sum().float()])
        return (distance * valid).sum() / count
