"""Log-mel energies, the input of the judges."""

import numpy as np
import soxr
import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from codec.evaluation.metrics.base import MetricError

VERSION = 1  # raise it when the output changes: caches are keyed by it
SAMPLE_RATE, FFT, WINDOW, HOP, BANDS = 16_000, 512, 400, 160, 64  # Hz, samples, 25 ms, 10 ms, bands
MEL_RATE = SAMPLE_RATE / HOP  # frames per second
FLOOR = 1e-2  # of the mel energies of a waveform of unit power: 60 dB under the loudest ones


class LogMel(nn.Module):
    """Natural log of mel energies ``[B, 64, F]``, 100 frames per second, F even, of wav ``[B, T]`` at 16 kHz.

    Each waveform is scaled to a power of 1; frame i is centred on samples 160 i ... 160 i + 159.
    """

    def __init__(self):
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(SAMPLE_RATE, FFT, WINDOW, HOP, n_mels=BANDS, center=False)

    def forward(self, wav: Tensor) -> Tensor:
        wav = wav / wav.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-5)
        edge = (FFT - HOP) // 2
        return self.mel(F.pad(wav, (edge, edge + -wav.shape[-1] % (2 * HOP)))).clamp(min=FLOOR).log()


def frames_within(span: tuple[float, float], count: int, frame_rate: float) -> np.ndarray:
    """Frames ``[count]``, bool, at ``frame_rate`` Hz whose middle lies in ``span``, ``[start, end)`` in seconds."""
    middles = (np.arange(count) + 0.5) / frame_rate
    return (middles >= span[0]) & (middles < span[1])


def at_16k(wav, sample_rate: int) -> Tensor:
    """wav ``[T]`` at ``sample_rate`` Hz -> ``[1, T']`` float32 at 16 kHz; MetricError if it is empty or not finite."""
    wav = np.asarray(wav, dtype=np.float32)
    if not wav.size or not np.isfinite(wav).all():
        raise MetricError("The audio is empty, or has samples that are not finite.")
    if sample_rate != SAMPLE_RATE:
        wav = soxr.resample(wav, sample_rate, SAMPLE_RATE)
    return torch.from_numpy(np.ascontiguousarray(wav))[None]
