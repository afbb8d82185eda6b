"""The latent space of a codec for generative models: waveforms to normalised latents and back.

space = LatentSpace.load("last.ckpt", "LATENTS")  # a folder of python -m codec extract --kind latents
wav = space.decode(model(space.encode(wav)), length=wav.shape[-1])
"""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from codec.checkpoints.load import load_codec
from codec.latents.index import Statistics, load_index
from codec.latents.token_file import weights_fingerprint
from codec.model import Codec
from codec.utils.errors import InputError


class LatentSpace:
    """A codec's continuous latents, each channel normalised to mean 0 and standard deviation 1.

    Raises InputError if the statistics are of another codec's latents, ValueError if the codec is in its form for
    inference already; ``codec.for_inference()`` may be called afterwards.

    Attributes:
        codec: in eval mode.
        kind, fingerprint: "pre" or "post" quantization; see :func:`latent_fingerprint`.
        frame_rate, sample_rate: in Hz; dim: channels C.
        mean, std: ``[C]`` float32, on the device of the codec.
    """

    def __init__(self, codec: Codec, statistics: Statistics):
        own = latent_fingerprint(codec.eval(), statistics.kind)
        rates = codec.sample_rate, codec.hop_length
        if (own, *rates) != (statistics.fingerprint, statistics.sample_rate, statistics.hop_length):
            raise InputError(
                f"these statistics are of another codec's latents ({statistics.fingerprint[:8]}, kind "
                f"{statistics.kind}, not {own[:8]}): extract latents with this checkpoint, or give theirs"
            )
        if len(statistics.mean) != codec.quantizer.latent_dim:
            raise InputError(
                f"these statistics are of {len(statistics.mean)} channels, and the codec has latents of "
                f"{codec.quantizer.latent_dim}: extract them again"
            )
        self.codec, self.statistics = codec, statistics
        self.kind, self.fingerprint, self.dim = statistics.kind, statistics.fingerprint, len(statistics.mean)
        self.frame_rate, self.sample_rate = codec.frame_rate, codec.sample_rate
        self.to(next(codec.parameters()).device)

    @classmethod
    def load(
        cls,
        ckpt: str | Path,
        statistics: str | Path | Statistics,
        kind: str | None = None,
        device: str | torch.device = "cpu",
        ema: bool = True,
    ) -> "LatentSpace":
        """The latent space of a codec's checkpoint. Raises InputError if it does not fit the statistics.

        Args:
            statistics: or a folder that ``python -m codec extract --kind latents`` wrote.
            kind: "pre" or "post", an error if the statistics are of the other; None: theirs.
            ema: use the averaged weights, if the checkpoint has them; False for latents extracted with ``--raw``.
        """
        codec, _ = load_codec(ckpt, ema)
        if not isinstance(statistics, Statistics):
            statistics = load_index(statistics).statistics
        if kind not in (None, statistics.kind):
            raise InputError(f"these statistics are of latents of kind {statistics.kind}, not {kind}")
        return cls(codec.to(device), statistics)

    def to(self, device: str | torch.device) -> "LatentSpace":
        """Move the codec and the statistics."""
        self.codec.to(device)
        self.mean, self.std = self.statistics.mean.to(device), self.statistics.std.to(device)
        return self

    @torch.no_grad()
    def encode(self, wav: Tensor) -> Tensor:
        """wav ``[B, 1, T]`` in [-1, 1] at ``sample_rate`` -> normalised latents ``[B, C, F]``, F = ceil(T / hop)."""
        return self.normalise(self.codec.quantizer.to_latents(self.codec.latents(wav), self.kind))

    @torch.no_grad()
    def decode(self, x: Tensor, length: int | None = None) -> Tensor:
        """Normalised latents ``[B, C, F]`` -> wav ``[B, 1, F * hop]``, cut to ``length`` samples if given. Raises
        ValueError for another C."""
        z = self.codec.quantizer.from_latents(self.denormalise(x), self.kind)
        return self.codec.decode_latents(z)[..., :length]

    def normalise(self, x: Tensor) -> Tensor:
        """Latents of the codec ``[..., C, F]`` -> normalised latents. Raises ValueError for another C."""
        return (self._checked(x) - self.mean[:, None]) / self.std[:, None]

    def denormalise(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`normalise`."""
        return self._checked(x) * self.std[:, None] + self.mean[:, None]

    def _checked(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[-2] != self.dim:
            raise ValueError(f"latents of this space are [B, {self.dim}, F], got {list(x.shape)}")
        return x


def latent_fingerprint(codec: Codec, kind: str) -> str:
    """Hexadecimal digest of all weights that determine the latents of this kind: the encoder, the projections of the
    quantizer, and for "post" the codebooks; not the decoder. Raises ValueError if the codec has no latents of this
    kind, or is in its form for inference."""
    if codec.inference:
        raise ValueError("a codec in its form for inference has no fingerprint: make its LatentSpace before")
    quantizer = codec.quantizer
    quantizer.check_kind(kind)
    codes = kind == "post" or not quantizer.n_q  # without codebooks, buffers may matter as well
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{kind} {codec.sample_rate} {codec.hop_length} {weights_fingerprint(codec.encoder)}".encode())
    for value in (*quantizer.parameters(), *(quantizer.codebook_state(quantizer.n_q) if codes else ())):
        digest.update(str(tuple(value.shape)).encode())
        digest.update(value.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()
