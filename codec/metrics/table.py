"""The metrics by name."""

from codec.metrics.base import Metric
from codec.metrics.intelligibility import estoi, stoi
from codec.metrics.pesq import pesq_nb, pesq_wb
from codec.metrics.pitch import f0_error, voicing_error
from codec.metrics.spectral import mel_cepstral_distortion, mel_distance, stft_distance
from codec.metrics.waveform import loudness_difference, si_sdr

METRICS = {
    "pesq_wb": Metric("PESQ-WB", pesq_wb, "MOS-LQO", True),
    "pesq_nb": Metric("PESQ-NB", pesq_nb, "MOS-LQO", True),
    "stoi": Metric("STOI", stoi, "", True),
    "estoi": Metric("ESTOI", estoi, "", True),
    "si_sdr": Metric("SI-SDR", si_sdr, "dB", True),
    "mel_distance": Metric("Mel distance", mel_distance, "log10", False),
    "stft_distance": Metric("STFT distance", stft_distance, "", False),
    "mcd": Metric("MCD", mel_cepstral_distortion, "dB", False),
    "f0_error": Metric("F0 error", f0_error, "cents", False),
    "voicing_error": Metric("Voicing error", voicing_error, "", False),
    "loudness_difference": Metric("Loudness difference", loudness_difference, "LU", False),
}
