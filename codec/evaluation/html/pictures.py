"""Spectrograms of one clip by several systems, as small images that can be compared."""

import io
import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from PIL import Image

RANGE_DB = 80.0
COLOURS = (matplotlib.colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)  # [256, 3]


def spectrograms(waves: Sequence[tuple[np.ndarray, int]], height: int = 96) -> list[bytes]:
    """Waves (int16 ``[T]``, Hz) of about the same length -> a WebP image of each.

    Time runs evenly from the left edge to the right one, frequency on the mel scale from 0 to half of the highest rate;
    a wave of a lower rate is black above its own. One colour scale for all: 80 dB, down from the loudest point of any.
    """
    seconds = max(len(wav) / rate for wav, rate in waves)
    width = int(np.clip(round(60 * seconds), 160, 480))
    top = max(rate for _, rate in waves) / 2
    decibels = [_decibels(wav.astype(np.float64) / 32768, rate, width, height, top) for wav, rate in waves]
    loudest = max(picture.max() for picture in decibels)
    return [_webp((picture - loudest) / RANGE_DB + 1) for picture in decibels]


def _decibels(wav: np.ndarray, rate: int, width: int, height: int, top: float) -> np.ndarray:
    """wav ``[T]`` -> power in dB ``[height, width]``, the highest frequency first."""
    size = 2 ** round(math.log2(0.04 * rate))  # about 40 ms: harmonics are resolved, syllables too
    centres = ((np.arange(width) + 0.5) * len(wav) / width).astype(int)
    frames = np.pad(wav, size // 2)[centres[:, None] + np.arange(size)[None]] * np.hanning(size)  # [width, size]
    power = 10 * np.log10(np.abs(np.fft.rfft(frames)) ** 2 / size + 1e-12)  # [width, 1 + size / 2]
    mel = np.linspace(2595 * math.log10(1 + top / 700), 0, height)  # O'Shaughnessy 1987
    frequencies = 700 * (10 ** (mel / 2595) - 1)
    own = np.fft.rfftfreq(size, 1 / rate)
    return np.stack([np.interp(frequencies, own, column, right=-120.0) for column in power], axis=1)


def _webp(picture: np.ndarray) -> bytes:
    """picture ``[height, width]`` with 0 for black and 1 for the brightest -> a WebP file."""
    index = (np.clip(np.nan_to_num(picture), 0, 1) * 255).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(COLOURS[index]).save(file, "WEBP", quality=55, method=4)
    return file.getvalue()
