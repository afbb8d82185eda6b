"""Multi-scale discriminator of MelGAN (arXiv 1910.06711, sec. 2.2) and SoundStream (arXiv 2107.03312, sec. III.D).

Unlike MelGAN, the first convolution pads with zeros, not by reflection.
"""

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.discriminators.base import Maps, feature_maps


class MultiScale(nn.Module):
    """Multi-scale discriminator: wav ``[B, 1, T]`` -> 7 maps per scale i (T / 2^i samples, 1/256 as many logits).

    ``width`` is that of the first layer (16 in the papers), a multiple of 4; the last has 64 times as many channels.
    """

    def __init__(self, scales: int = 3, width: int = 16):
        super().__init__()
        if width % 4:
            raise ValueError(f"width must be a multiple of 4 for the grouped convolutions, got {width}")
        self.scales = nn.ModuleList(ScaleDiscriminator(width) for _ in range(scales))
        self.halve = nn.AvgPool1d(4, stride=2, padding=1, count_include_pad=False)  # T -> T // 2

    def forward(self, wav: Tensor) -> Maps:
        maps = []
        for i, scale in enumerate(self.scales):
            wav = self.halve(wav) if i else wav
            maps.append(scale(wav))
        return maps


class ScaleDiscriminator(nn.Module):
    """One scale: four grouped convolutions with stride 4, one logit per 256 samples."""

    def __init__(self, width: int):
        super().__init__()
        top = 64 * width
        widths = [width, 4 * width, 16 * width, top, top]
        layers = [weight_norm(nn.Conv1d(1, width, 15, padding=7))]
        for i in range(4):
            conv = nn.Conv1d(widths[i], widths[i + 1], 41, stride=4, padding=20, groups=4 ** (i + 1))
            layers.append(weight_norm(conv))
        layers.append(weight_norm(nn.Conv1d(top, top, 5, padding=2)))
        self.layers = nn.ModuleList(layers)
        self.last = weight_norm(nn.Conv1d(top, 1, 3, padding=1))

    def forward(self, wav: Tensor) -> list[Tensor]:
        return feature_maps(wav, self.layers, 0.2, self.last)
