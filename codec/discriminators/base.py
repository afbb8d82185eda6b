"""The contract of a discriminator, and the set of them that a training step sees as one.

Contract: an `nn.Module` that maps a waveform `[B, 1, T]` to a list over sub-discriminators of lists of
feature maps. The last map of each list is the logits; their shape is free, the losses only take means.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Maps = list[list[Tensor]]


class DiscriminatorSet(nn.Module):
    """Several discriminators behind one call; `members={}` is the set for training without an adversary.

    With `normalize` every waveform is first freed of its mean and scaled to a peak of 0.8, as DAC (arXiv
    2306.06546) does for its whole set: the members then judge the sound and not the gain.
    """

    def __init__(self, members: dict[str, nn.Module], normalize: bool = False):
        super().__init__()
        self.members = nn.ModuleDict(members)
        self.normalize = normalize

    def forward(self, wav: Tensor) -> Maps:
        """wav `[B, 1, T]` -> the members' lists, one after the other in the order of `members`."""
        if self.normalize:
            wav = normalize_peak(wav)
        return [maps for member in self.members.values() for maps in member(wav)]


def normalize_peak(wav: Tensor, peak: float = 0.8) -> Tensor:
    """wav `[B, 1, T]` -> the same without DC, in [-peak, peak], per item. Silence stays silence."""
    wav = wav.float()
    wav = wav - wav.mean(dim=-1, keepdim=True)
    return wav * (peak / (wav.abs().amax(dim=-1, keepdim=True) + 1e-9))


def activations(x: Tensor, layers: Iterable[nn.Module], slope: float) -> list[Tensor]:
    """Run `layers`, each followed by LeakyReLU(slope), and keep what each of them gives."""
    maps = []
    for layer in layers:
        # In place is safe and saves a copy of every map: a convolution's backward never reads its output.
        x = F.leaky_relu_(layer(x), slope)
        maps.append(x)
    return maps


def without_autocast(x: Tensor) -> torch.autocast:
    """A context in which spectra of `x` stay fp32: CUDA has no bf16 FFT, and bf16 magnitudes have 8 bits."""
    return torch.autocast(x.device.type, enabled=False)
