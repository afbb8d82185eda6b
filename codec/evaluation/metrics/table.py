"""Table of metrics: `METRICS`, the default, need requirements.txt only; `OPTIONAL` ones have to be named."""

from collections.abc import Iterable

from codec.evaluation.metrics import neural
from codec.evaluation.metrics.base import Metric, MissingError
from codec.evaluation.metrics.intelligibility import estoi, stoi
from codec.evaluation.metrics.pesq import pesq_nb, pesq_wb
from codec.evaluation.metrics.pitch import f0_rmse, gross_pitch_error, voicing_error
from codec.evaluation.metrics.spectral import mel_cepstral_distortion, mel_distance, stft_distance
from codec.evaluation.metrics.waveform import loudness_difference, si_sdr

METRICS = {
    "pesq_wb": Metric("PESQ-WB", pesq_wb, "MOS-LQO", True),
    "pesq_nb": Metric("PESQ-NB", pesq_nb, "MOS-LQO", True),
    "stoi": Metric("STOI", stoi, "", True),
    "estoi": Metric("ESTOI", estoi, "", True),
    "si_sdr": Metric("SI-SDR", si_sdr, "dB", True),
    "mel_distance": Metric("Mel distance", mel_distance, "log10", False),
    "stft_distance": Metric("STFT distance", stft_distance, "", False),
    "mcd": Metric("MCD", mel_cepstral_distortion, "dB", False),
    "f0_rmse": Metric("F0 error", f0_rmse, "cents", False),
    "gross_pitch_error": Metric("Gross pitch error", gross_pitch_error, "", False),
    "voicing_error": Metric("Voicing error", voicing_error, "", False),
    "loudness_difference": Metric("Loudness difference", loudness_difference, "LU", False),
}
OPTIONAL = {
    "visqol": Metric("ViSQOL", neural.visqol, "MOS-LQO", True, neural.check_visqol),
    "dnsmos": Metric("DNSMOS", neural.dnsmos, "MOS", True, neural.check_dnsmos),
    "wer": Metric("Word error rate", neural.word_error_rate, "", False, neural.check_recogniser),
    "speaker_similarity": Metric("Speaker similarity", neural.speaker_similarity, "", True, neural.check_speaker),
}
# Scores of inpainted spans; their functions need judges (codec/flow/evaluation/panel.py).
SPANS = {
    "span_per": Metric("Phone error rate", None, "", False),
    "span_speaker": Metric("Speaker similarity", None, "", True),
    "span_mcd": Metric("MCD", None, "dB", False),
    "span_f0_rmse": Metric("F0 error", None, "cents", False),
    "span_gross_pitch_error": Metric("Gross pitch error", None, "", False),
    "span_voicing_error": Metric("Voicing error", None, "", False),
}
# Of older reports only: RMSE with gross errors, over the clips whose estimate has voiced frames.
FORMER = {name: Metric("F0 error with gross errors", None, "cents", False) for name in ("f0_error", "span_f0_error")}
ALL_METRICS = METRICS | OPTIONAL | SPANS | FORMER  # every column of scores that a report may have


def choose(names: Iterable[str] | str | None = None) -> dict[str, Metric]:
    """Metrics by name, in order; None: all of `METRICS`. Raises MissingError if one is unknown or cannot run here."""
    if names is None:
        return dict(METRICS)
    known = METRICS | OPTIONAL
    chosen = {}
    for name in [names] if isinstance(names, str) else names:
        if name == "f0_error":
            raise MissingError("f0_error is now two metrics: name f0_rmse and gross_pitch_error")
        if name not in known:
            raise MissingError(f"there is no metric {name}; there are {', '.join(METRICS)}, and {', '.join(OPTIONAL)}")
        metric = chosen[name] = known[name]
        if metric.check is not None:
            metric.check()
    return chosen
