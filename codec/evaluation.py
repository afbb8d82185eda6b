"""A codec on held-out clips: its scores, and what its codes really cost."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from codec.model import Codec
from codec.quantizers.base import codebook_statistics
from codec.report import Report, evaluate


def evaluate_codec(
    codec: Codec,
    clips: Iterable[Mapping[str, Any]],
    n_q: int | None = None,
    facts: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    **options: Any,
) -> Report:
    """Encode and decode every clip with ``n_q`` codebooks and report on it.

    Besides ``facts`` the report states frame rate (Hz), n_q, nominal bitrate, and, over the codes of these very clips,
    entropy bitrate (kbit/s, an ideal coder without context), usage and perplexity of each codebook.

    Args:
        options: for :func:`codec.report.evaluate` (workers, audio_folder, audio_count, metrics).

    Raises:
        ValueError: if the codec has fewer than ``n_q`` codebooks, or there is no clip.
    """
    n_q = codec.quantizer.check_n_q(n_q)
    was_training = codec.training
    codec = codec.to(device).eval()
    counter = CodeCounter(codec, n_q)
    known = {
        **(facts or {}),
        "parameters": sum(p.numel() for p in codec.parameters()),
        "frame_rate_hz": codec.frame_rate,
        "n_q": n_q,
        "kbps": codec.bitrate(n_q or None),
    }
    try:
        report = evaluate(counter, clips, codec.sample_rate, known, **options)
    finally:
        codec.train(was_training)
    report.facts.update(counter.facts())
    return report


class CodeCounter:
    """wav ``[1, 1, T]`` -> decoded wav, counting the codes that went by."""

    def __init__(self, codec: Codec, n_q: int):
        self.codec, self.n_q, self.counts = codec, n_q, None

    @torch.inference_mode()
    def __call__(self, wav: Tensor) -> Tensor:
        device = next(self.codec.parameters()).device
        out = self.codec(wav.to(device), self.n_q or None)
        if out.quantized.codes is not None:
            size = self.codec.quantizer.size
            codes = out.quantized.codes.transpose(0, 1).flatten(1).cpu()  # [K, B * F]
            counts = torch.stack([torch.bincount(c, minlength=size) for c in codes])
            self.counts = counts if self.counts is None else self.counts + counts
        return out.wav.float()

    def facts(self) -> dict[str, Any]:
        """Entropy bitrate (kbit/s), per codebook the share of codes seen and the perplexity; empty without codes."""
        if self.counts is None:
            return {}
        statistics = codebook_statistics(self.counts.float())
        return {
            "entropy_kbps": float(statistics["entropy"].sum()) * self.codec.frame_rate / 1000,
            "codebook_usage": [round(float(v), 4) for v in statistics["usage"]],
            "codebook_perplexity": [round(float(v), 1) for v in statistics["perplexity"]],
        }
