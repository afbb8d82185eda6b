"""A small ConvNeXt network on log-mel frames, for the teachers that need no download."""

import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from codec.layers.convnext import ConvNeXtBlock

VERSION = 1  # of its output, part of cache keys: increase it with every change here
SAMPLE_RATE, WINDOW, HOP, MELS = 16_000, 1024, 320, 80  # Hz, samples, samples, bands
FRAME_RATE = SAMPLE_RATE / HOP  # Hz
FLOOR = 1e-4  # of the mel energies of a waveform of unit power


class FrameNetwork(nn.Module):
    """wav ``[B, T]`` at 16 kHz -> features ``[B, ceil(T / 320), width]`` at 50 Hz, after a LayerNorm.

    Frame i is centred on samples 320 i ... 320 i + 319, with a context of 3 * ``blocks`` frames on either side. The
    output does not depend on the level of the waveform.
    """

    def __init__(self, width: int = 256, blocks: int = 6):
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(
            SAMPLE_RATE, n_fft=WINDOW, hop_length=HOP, n_mels=MELS, center=False
        )
        self.enter = nn.Conv1d(MELS, width, 1)
        self.blocks = nn.Sequential(*(ConvNeXtBlock(width, 2 * width, scale=1 / blocks) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)

    def forward(self, wav: Tensor) -> Tensor:
        return self.encode(self.log_mel(wav))

    def log_mel(self, wav: Tensor) -> Tensor:
        """``[B, T] -> [B, MELS, F']``, of mean 0 and variance 1 in each example."""
        wav = wav / wav.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-5)  # FLOOR is relative to the power
        edge = (WINDOW - HOP) // 2
        x = self.mel(F.pad(wav, (edge, edge + -wav.shape[-1] % HOP))).clamp(min=FLOOR).log()
        return F.layer_norm(x, x.shape[1:])

    def encode(self, mel: Tensor) -> Tensor:
        """``[B, MELS, F'] -> [B, F', width]``."""
        return self.norm(self.blocks(self.enter(mel)).transpose(1, 2))
