"""Published neural codecs (Mimi, EnCodec, DAC) loaded by transformers: safetensors only, no remote code."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.evaluation.baselines.base import System
from codec.evaluation.metrics.base import MissingError


class Pretrained(System):
    """A published codec with its first ``n_q`` codebooks (None: all). A clip is coded in one piece.

    ``facts``: weights (name on the Hub or of the folder), parameters, frame rate (Hz), n_q, nominal bitrate (kbit/s).
    EnCodec was trained for a few ``n_q`` only: 2, 4, 8, 16, 32 at 24 kHz. ``source`` is a name on the Hugging Face Hub,
    such as kyutai/mimi, or a folder with config.json and model.safetensors.
    """

    def __init__(self, source: str, n_q: int | None = None, device: str = "cpu"):
        self.source, self.device = str(source), device
        self.model, self.family = load(self.source, device)
        choices = self.family.choices(self.model)
        self.n_q = choices[-1] if n_q is None else n_q
        if self.n_q not in choices:
            raise ValueError(f"{source} takes n_q={', '.join(map(str, choices))}, not {n_q}.")
        self.sample_rate = int(self.model.config.sampling_rate)

    @torch.inference_mode()
    def reconstruct(self, wav: Tensor, sample_rate: int) -> Tensor:
        decoded = self.family.reconstruct(self.model, wav.float().to(self.device), self.n_q).cpu().view(1, 1, -1)
        return F.pad(decoded, (0, wav.shape[-1] - decoded.shape[-1]))  # a negative width cuts

    def facts(self) -> dict[str, Any]:
        frame_rate = self.family.frame_rate(self.model)
        return {
            "weights": Path(self.source).name if Path(self.source).is_dir() else self.source,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "frame_rate_hz": frame_rate,
            "n_q": self.n_q,
            "kbps": self.n_q * math.log2(self.model.config.codebook_size) * frame_rate / 1000,
        }


class Family(NamedTuple):
    """Calls that transformers' codecs of one architecture need."""

    class_name: str
    choices: Callable[[nn.Module], list[int]]  # the supported numbers of codebooks, ascending
    frame_rate: Callable[[nn.Module], float]  # Hz
    reconstruct: Callable[[nn.Module, Tensor, int], Tensor]  # wav [1, 1, T], n_q -> [..., about T]


def _mimi(model: nn.Module, wav: Tensor, n_q: int) -> Tensor:
    return model.decode(model.encode(wav, num_quantizers=n_q).audio_codes).audio_values


def _encodec(model: nn.Module, wav: Tensor, n_q: int) -> Tensor:
    encoded = model.encode(wav, bandwidth=_bandwidths(model)[n_q])
    return model.decode(encoded.audio_codes, encoded.audio_scales).audio_values


def _dac(model: nn.Module, wav: Tensor, n_q: int) -> Tensor:
    whole = F.pad(wav, (0, -wav.shape[-1] % model.config.hop_length))  # as its feature extractor does
    return model.decode(audio_codes=model.encode(whole, n_quantizers=n_q).audio_codes).audio_values


def _bandwidths(model: nn.Module) -> dict[int, float]:
    """EnCodec's number of codebooks -> bandwidth in kbit/s."""
    if model.config.audio_channels != 1 or model.config.chunk_length_s or model.config.normalize:
        raise ValueError("this EnCodec is stereo, or codes overlapping or scaled chunks: take facebook/encodec_24khz")
    return {model.quantizer.get_num_quantizers_for_bandwidth(b): b for b in model.config.target_bandwidths}


def _up_to(name: str) -> Callable[[nn.Module], list[int]]:
    """1 to the configured number of codebooks: they were trained with quantizer dropout."""
    return lambda model: list(range(1, getattr(model.config, name) + 1))


def _frames(model: nn.Module) -> float:
    return model.config.sampling_rate / model.config.hop_length  # config.frame_rate is rounded up


FAMILIES = {
    # Défossez et al. 2024, arXiv 2410.00037; its hop_length lacks the downsampling by two after the encoder
    "mimi": Family("MimiModel", _up_to("num_quantizers"), lambda model: float(model.config.frame_rate), _mimi),
    # Défossez et al., TMLR 2023, arXiv 2210.13438
    "encodec": Family("EncodecModel", lambda model: sorted(_bandwidths(model)), _frames, _encodec),
    # Kumar et al., NeurIPS 2023, arXiv 2306.06546
    "dac": Family("DacModel", _up_to("n_codebooks"), _frames, _dac),
}


@functools.lru_cache(maxsize=1)  # systems that differ in n_q share the model
def load(source: str, device: str) -> tuple[nn.Module, Family]:
    """The model in eval mode and fp32, and its family."""
    import transformers

    try:
        architecture = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False).model_type
        if architecture in FAMILIES:
            cls = getattr(transformers, FAMILIES[architecture].class_name)
            options = {"use_safetensors": True, "dtype": torch.float32, "output_loading_info": True}
            model, info = cls.from_pretrained(source, **options)
    except Exception as error:  # of the network, permissions, incomplete files
        first = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".")
        raise MissingError(
            f"the codec {source} cannot be loaded ({first}): its weights come from the Hugging Face Hub, once, or name "
            "a folder with config.json and model.safetensors"
        ) from error
    if architecture not in FAMILIES:
        raise ValueError(f"{source} is a {architecture} model, and the codecs known here are {', '.join(FAMILIES)}.")
    if info["missing_keys"]:  # transformers would initialise them at random
        raise ValueError(f"{source} is not complete: it has no {min(info['missing_keys'])}.")
    return model.to(device).eval(), FAMILIES[architecture]
