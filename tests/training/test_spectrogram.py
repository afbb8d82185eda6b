"""The picture that a logger gets."""

import math
import threading

import numpy as np
import pytest
import torch

from codec.training.callbacks.spectrogram import spectrogram_figure
from tests.helpers.speech import RATE, clip


def test_figure_has_both_spectrograms_on_one_scale():
    wav = clip(0)["wav"]
    figure = spectrogram_figure(wav, wav / 10, RATE)
    images = [axis.images[0] for axis in figure.axes[:2]]
    assert images[0].get_clim() == images[1].get_clim()
    loud, quiet = (np.asarray(image.get_array()) for image in images)
    assert (loud - quiet)[loud > loud.max() - 60] == pytest.approx(20, abs=0.1)  # dB
    assert images[0].get_extent()[1] == pytest.approx(1, abs=0.05)  # seconds
    figure.canvas.draw()


def test_figure_is_safe_in_a_thread_and_for_a_blank_estimate():
    done = []

    def draw():
        figure = spectrogram_figure(torch.zeros(100), torch.full((100,), math.nan), RATE)
        figure.canvas.draw()
        done.append(True)

    thread = threading.Thread(target=draw)
    thread.start()
    thread.join()
    assert done
