"""Mel spectrograms as small images with a common scale, for pages and loggers."""

import functools
import io
import math
from collections.abc import Sequence

import numpy as np

RANGE_DB = 80.0


def spectrograms(waves: Sequence[tuple[np.ndarray, int]], height: int = 96) -> list[np.ndarray]:
    """Waves (float ``[T]`` in [-1, 1], Hz) -> a mel spectrogram each, RGB image ``[height, width, 3]`` uint8.

    The waves have about the same length. All images span 0 Hz to half of the highest rate (a wave of a lower rate is
    black above its own half) and share one colour scale, 80 dB down from the loudest point of any.
    """
    seconds = max(len(wav) / rate for wav, rate in waves)
    width = int(np.clip(round(60 * seconds), 160, 480))
    top = max(rate for _, rate in waves) / 2
    decibels = [_decibels(np.asarray(wav, np.float64), rate, width, height, top) for wav, rate in waves]
    loudest = max(np.nan_to_num(image, nan=-np.inf).max() for image in decibels)
    shares = [np.nan_to_num((image - loudest) / RANGE_DB + 1) for image in decibels]
    return [_colours()[(np.clip(share, 0, 1) * 255).round().astype(np.uint8)] for share in shares]


def webp(image: np.ndarray) -> bytes:
    """An RGB image as a WebP file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", quality=55, method=4)
    return file.getvalue()


@functools.cache
def _colours() -> np.ndarray:
    import matplotlib

    return (matplotlib.colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def _decibels(wav: np.ndarray, rate: int, width: int, height: int, top: float) -> np.ndarray:
    """wav ``[T]`` -> power in dB ``[height, width]``, the highest frequency first."""
    size = 2 ** round(math.log2(0.04 * rate))  # about 40 ms: resolves harmonics and syllables
    centres = ((np.arange(width) + 0.5) * len(wav) / width).astype(int)
    frames = np.pad(wav, size // 2)[centres[:, None] + np.arange(size)[None]] * np.hanning(size)  # [width, size]
    power = 10 * np.log10(np.abs(np.fft.rfft(frames)) ** 2 / size + 1e-12)  # [width, 1 + size / 2]
    mel = np.linspace(2595 * math.log10(1 + top / 700), 0, height)  # O'Shaughnessy 1987
    frequencies = 700 * (10 ** (mel / 2595) - 1)
    own = np.fft.rfftfreq(size, 1 / rate)
    return np.stack([np.interp(frequencies, own, column, right=-120.0) for column in power], axis=1)


def comparison(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> np.ndarray:
    """Two waves (``[T]``) -> one RGB image, the reference above the estimate, a white line between them."""
    images = spectrograms([(reference, sample_rate), (estimate, sample_rate)], height=160)
    return np.concatenate([images[0], np.full_like(images[0][:2], 255), images[1]])
