"""Interface of a discriminator, and a set of discriminators as one module.

A discriminator maps a waveform ``[B, 1, T]`` to feature maps: a list, over sub-discriminators, of lists. The last map
of each list is the logits, of any shape: losses take means only.
"""

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

Maps = list[list[Tensor]]


class DiscriminatorSet(nn.Module):
    """A set of discriminators, by name; an empty one is training without adversary.

    ``normalize``: remove the mean of every waveform and scale its peak to 0.8 (DAC, arXiv 2306.06546), so that logits
    do not depend on gain.
    """

    def __init__(self, members: dict[str, nn.Module], normalize: bool = False):
        super().__init__()
        self.members = nn.ModuleDict(members)
        self.normalize = normalize

    def forward(self, wav: Tensor) -> Maps:
        """wav ``[B, 1, T]`` -> the lists of all members, in the order of ``members``."""
        if self.normalize:
            wav = normalize_peak(wav)
        return [maps for member in self.members.values() for maps in member(wav)]


def normalize_peak(wav: Tensor, peak: float = 0.8) -> Tensor:
    """wav ``[B, 1, T]`` -> fp32 without DC, in [-peak, peak], per item; silence stays silence."""
    wav = wav.float()
    wav = wav - wav.mean(dim=-1, keepdim=True)
    return wav * (peak / (wav.abs().amax(dim=-1, keepdim=True) + 1e-9))


def feature_maps(x: Tensor, layers: Iterable[nn.Module], slope: float, last: nn.Module | None = None) -> list[Tensor]:
    """Outputs of ``layers``, each followed by LeakyReLU(slope), and of ``last``, without activation."""
    maps = []
    for layer in layers:
        # In place saves a copy of every map, and is safe: the backward pass of a convolution does not read its output.
        x = F.leaky_relu_(layer(x), slope)
        maps.append(x)
    return maps if last is None else [*maps, last(x)]
