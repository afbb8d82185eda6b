"""Metrics for the tests of the processes, which import them by name: a file that costs next to nothing."""

import os
import signal
import time

import numpy as np


def kill_on_loud(reference, estimate, sample_rate):
    """Dies the way that PESQ does, on marked clips only."""
    if np.abs(reference).max() > 0.9:
        os.kill(os.getpid(), signal.SIGSEGV)
    return 1.0


def kill_first_time(reference, estimate, sample_rate):
    """Dies once: the marker is a folder whose path the environment carries to the process."""
    marker = os.environ["TEST_METRICS_MARKER"]
    if not os.path.exists(marker):
        os.mkdir(marker)
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0


def late_if_first(reference, estimate, sample_rate):
    if reference[0] == 0:
        time.sleep(0.3)
    return float(reference[0])


def threads(reference, estimate, sample_rate):
    return float(os.environ["OMP_NUM_THREADS"])
