"""Spectrograms to look at, for a logger."""

import math

import numpy as np
import scipy.signal
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def spectrogram_figure(reference, estimate, sample_rate: int) -> Figure:
    """Reference above estimate ([T] or [1, T] in [-1, 1], on the CPU) as spectrograms in dB, for a logger.

    One colour scale for both, 80 dB down from the reference's loudest bin, so that lost level is seen too.
    Built without pyplot, whose global state leaks a figure per call and is not safe in a logger's thread.
    """
    size = 2 ** round(math.log2(0.04 * sample_rate))  # about 40 ms: harmonics are resolved, syllables too
    spectra = []
    for wav in (reference, estimate):
        wav = np.asarray(wav, dtype=np.float32).reshape(-1)
        wav = np.pad(wav, (0, max(0, size - len(wav))))  # a clip may be shorter than one window
        frequencies, times, power = scipy.signal.spectrogram(wav, sample_rate, "hann", size, size * 3 // 4)
        spectra.append(10 * np.log10(power + 1e-14))  # [1 + size / 2, F]
    extent = (0, times[-1] + times[0], 0, frequencies[-1] / 1000)  # s and kHz; times are the frames' centres
    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1, sharex=True, sharey=True)
    top = spectra[0].max()
    for axis, title, decibels in zip(axes, ("reference", "estimate"), spectra, strict=True):
        image = axis.imshow(
            decibels,
            origin="lower",
            aspect="auto",
            extent=extent,
            vmin=top - 80,
            vmax=top,
            cmap="magma",
        )
        axis.set(title=title, ylabel="kHz")
    axes[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=axes, label="dB")
    return figure
