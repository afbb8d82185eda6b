"""Hidden states that point where a teacher's features point: REPA (arXiv 2410.06940), in training only.

The latents stay as they are; what a teacher knows goes into the model that generates them. We differ in that features
are of whole recordings, cut where the latents are.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn

from codec.flow.dit import DiT
from codec.layers.precision import fp32
from codec.utils.distributed import mean_over_ranks
from codec.utils.errors import InputError


class Alignment(nn.Module):
    """1 - mean over frames of the cosine between projected hidden states and a teacher's features.

    Args:
        channels: of the features.
        width, layers: of the network.
        layer: the block after which hidden states are heard, from 1; None: after two sevenths of them, as REPA's 8 of
            28.
        hidden: width of the projection, three layers on the side of the network.
        weight: of the loss, for the training step; REPA's is 0.5.

    Raises:
        InputError: if the network has no such block.
    """

    def __init__(
        self, channels: int, width: int, layers: int, layer: int | None = None, hidden: int = 512, weight: float = 0.5
    ):
        super().__init__()
        self.layer, self.weight = max(1, round(layers * 2 / 7)) if layer is None else layer, weight
        if not 1 <= self.layer <= layers:
            raise InputError(f"alignment.layer={layer}, and the network has blocks 1 to {layers}: choose one of these")
        enter, middle, leave = nn.Linear(width, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, channels)
        self.projection = nn.Sequential(enter, nn.SiLU(), middle, nn.SiLU(), leave)

    @contextmanager
    def listening(self, network: DiT) -> Iterator[list[Tensor]]:
        """Inside, every pass of the network adds its hidden states ``[B, P + F, W]`` to the list."""
        heard: list[Tensor] = []
        hook = network.blocks[self.layer - 1].register_forward_hook(lambda block, given, out: heard.append(out))
        try:
            yield heard
        finally:
            hook.remove()

    @fp32
    def forward(self, hidden: Tensor, features: Tensor, inside: Tensor) -> Tensor:
        """-> scalar in [0, 2].

        Args:
            hidden: ``[B, P + F, W]``, the frames after the tokens.
            features: ``[B, channels, F]``.
            inside: ``[B, F]`` bool, false where an example has ended.
        """
        frames = self.projection(hidden[:, -inside.shape[1] :])
        apart = 1 - F.cosine_similarity(frames, features.transpose(1, 2), dim=-1)
        (count,) = mean_over_ranks([inside.sum().float()])
        return (apart * inside).sum() / count
