"""A codec of this package as a system, with its cost and statistics of its codes."""

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codec.checkpoints.convert.published import load_any
from codec.checkpoints.load import CheckpointError
from codec.evaluation.baselines.base import System
from codec.evaluation.metrics.base import MissingError
from codec.evaluation.profiling import algorithmic_delay, gflop_per_second
from codec.model import Codec
from codec.quantizers.base import codebook_statistics
from codec.utils.errors import first_line


class CodecSystem(System):
    """A codec of this package with its first ``n_q`` codebooks (None: all).

    ``facts``: parameters, frame rate (Hz), n_q, nominal bitrate (kbit/s), algorithmic delay (ms; None: the whole clip),
    GFLOP per second of audio and, over the codes of all clips, the entropy bitrate (kbit/s, of an ideal memoryless
    coder), their number, the usage that uniform codes would have in as many, and each codebook's usage and perplexity.
    """

    def __init__(self, codec: Codec, n_q: int | None = None, device: str | torch.device = "cpu"):
        self.n_q = codec.quantizer.check_n_q(n_q)
        self.codec, self.sample_rate, self.counts = codec.to(device).eval(), codec.sample_rate, None

    @cached_property
    def cost(self) -> dict[str, Any]:
        """Algorithmic delay (ms) and GFLOP per second of audio; None and the reason if they cannot be measured."""
        try:
            delay, gflop = algorithmic_delay(self.codec), gflop_per_second(self.codec, self.n_q or None)
        except Exception as error:  # a user's own part must not cost the scores
            unknown = dict.fromkeys(("latency_ms", "gflop_encode", "gflop_decode"))
            return unknown | {"cost": f"not known: {type(error).__name__}: {first_line(error)}"}
        latency = None if delay is None else 1000 * delay
        return {"latency_ms": latency, "gflop_encode": gflop["encode"], "gflop_decode": gflop["decode"]}

    @torch.inference_mode()
    def reconstruct(self, wav: Tensor, sample_rate: int) -> Tensor:
        device = next(self.codec.parameters()).device
        out = self.codec(wav.to(device), self.n_q or None)
        if out.quantized.codes is not None:
            codes = out.quantized.codes.transpose(0, 1).flatten(1).cpu()  # [K, B * F]
            counts = torch.stack([torch.bincount(c, minlength=self.codec.quantizer.codebook_size) for c in codes])
            self.counts = counts if self.counts is None else self.counts + counts
        return out.wav.float()

    def facts(self) -> dict[str, Any]:
        facts = {
            "parameters": sum(p.numel() for p in self.codec.parameters()),
            "frame_rate_hz": self.codec.frame_rate,
            "n_q": self.n_q,
            **({"beam": beam} if (beam := self.codec.quantizer.beam) > 1 else {}),
            "kbps": self.codec.bitrate(self.n_q or None),
            **self.cost,
        }
        if self.counts is not None:
            statistics = codebook_statistics(self.counts.float())
            facts["entropy_kbps"] = float(statistics["entropy"].sum()) * self.codec.frame_rate / 1000
            facts["code_frames"] = int(statistics["frames"][0])
            facts["codebook_usage_uniform"] = round(float(statistics["uniform_usage"][0]), 4)
            facts["codebook_usage"] = [round(float(v), 4) for v in statistics["usage"]]
            facts["codebook_perplexity"] = [round(float(v), 1) for v in statistics["perplexity"]]
        return facts


class PublishedSystem(CodecSystem):
    """A published codec that this package imports, with its first ``n_q`` codebooks (None: all).

    ``source`` is a checkpoint of ``python -m codec import``, or what that command takes; ``beam``: paths of the search
    for codes.
    """

    def __init__(self, source: str, n_q: int | None = None, device: str = "cpu", beam: int = 1):
        try:
            super().__init__(_published(str(source), beam), n_q, device)
        except CheckpointError as error:
            raise MissingError(f"{error}. python -m codec import makes the file") from None
        self.source = Path(source).name

    def facts(self) -> dict[str, Any]:
        return {"weights": self.source, **super().facts()}


@lru_cache(maxsize=1)  # systems that differ in n_q share the codec
def _published(source: str, beam: int) -> Codec:
    return load_any(source).search_with(beam)
