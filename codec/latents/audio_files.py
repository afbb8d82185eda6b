"""Encoding of audio files to token files and back, block by block: memory does not grow with the duration."""

import copy
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor

from codec.data import audio
from codec.data.audio import AudioError, blocks, opened
from codec.latents.token_file import TokenError, Tokens, checked_n_q, codebook_fingerprint, load_tokens, save_tokens
from codec.layers.streaming import in_blocks
from codec.model import Codec

BLOCK = 2.0  # seconds


@torch.inference_mode()
def encode_file(codec: Codec, source: str | Path, target: str | Path, n_q: int | None = None) -> Tokens:
    """Encode an audio file (any rate; channels are averaged) into a token file, in bounded memory if the encoder is
    causal or declares its context. Raises AudioError if the source is unreadable or empty, TokenError if the target
    cannot be written, ValueError if the codec has fewer than ``n_q`` codebooks, or none."""
    n_q = checked_n_q(codec.quantizer, n_q)
    Path(target).parent.mkdir(parents=True, exist_ok=True)  # fails before the work, not after it
    codec = _for_inference(codec)
    frames = bytearray()  # one growing buffer: a list of small tensors would fragment the memory
    wav = _Framed(read_blocks(source, codec.sample_rate), codec.hop_length, next(codec.buffers()).device)
    for latents in in_blocks(codec.encoder, wav, codec.hop_length):
        codes = codec.quantizer.encode(latents, n_q)[0]
        frames += codes.t().cpu().numpy().astype(np.int32).tobytes()
    if not wav.length:
        raise AudioError(str(source), "holds no sample")
    codes = torch.from_numpy(np.frombuffer(frames, np.int32).reshape(-1, n_q).T.astype(np.int64))
    tokens = Tokens(codes, wav.length, codec.sample_rate, codec.hop_length, codebook_fingerprint(codec.quantizer, n_q))
    save_tokens(target, tokens)
    return tokens


class _Framed:
    """Blocks of samples [T] as tensors ``[1, 1, n * hop]``, the last one padded with zeros, and their ``length``."""

    def __init__(self, blocks: Iterable[np.ndarray], hop: int, device: torch.device):
        self.blocks, self.hop, self.device, self.length = blocks, hop, device, 0

    def __iter__(self) -> Iterator[Tensor]:
        rest = np.zeros(0, np.float32)
        for block in self.blocks:
            self.length += len(block)
            rest = np.concatenate([rest, block])
            whole = len(rest) // self.hop * self.hop
            if whole:
                yield self._tensor(rest[:whole])
            rest = rest[whole:]
        if len(rest):
            yield self._tensor(np.pad(rest, (0, self.hop - len(rest))))

    def _tensor(self, wav: np.ndarray) -> Tensor:
        return torch.from_numpy(wav)[None, None].to(self.device)


def decode_file(codec: Codec, source: str | Path, target: str | Path, n_q: int | None = None) -> Tokens:
    """Decode a token file (its first ``n_q`` codebooks) into an audio file, in the format of the target's ending.
    Raises TokenError if the token file is invalid, of another model, or has fewer than ``n_q`` codebooks; AudioError if
    the target cannot be written."""
    tokens = load_tokens(source)
    has, quantizer = tokens.codes.shape[0], codec.quantizer
    own = codec.sample_rate, codec.hop_length, codebook_fingerprint(quantizer, has) if has <= quantizer.n_q else ""
    if own != (tokens.sample_rate, tokens.hop_length, tokens.model):
        raise TokenError(f"{source} was made by another model: decode it with the checkpoint that encoded it")
    if int(tokens.codes.max()) >= quantizer.codebook_size:
        raise TokenError(f"{source} has codes beyond the codebooks of this model: encode the recording again")
    if n_q is not None and not 1 <= n_q <= has:
        raise TokenError(f"{source} has {has} codebooks: choose n_q from 1 to {has}, not {n_q}")
    audio.write(target, _decoded(codec, tokens.codes[None, :n_q], tokens.length), tokens.sample_rate)
    return tokens


def _decoded(codec: Codec, codes: Tensor, left: int) -> Iterator[np.ndarray]:
    """Codes ``[1, k, F]`` -> ``left`` samples in [-1, 1], in blocks."""
    codec = _for_inference(codec)
    pieces = codes.to(next(codec.buffers()).device).split(max(1, round(BLOCK * codec.frame_rate)), dim=-1)
    with torch.inference_mode():
        for wav in in_blocks(codec.decoder, map(codec.quantizer.decode, pieces), 1):
            yield wav[0, 0, :left].clamp(-1, 1).float().cpu().numpy()
            left -= min(left, wav.shape[-1])


def read_blocks(path: str | Path, sample_rate: int) -> Iterator[np.ndarray]:
    """Mono float32 blocks of an audio file, resampled to ``sample_rate`` (Hz) as one stream. Raises AudioError if the
    file is missing, unreadable, shorter than its header says, or not finite."""
    with opened(path, str(path), math.inf) as file:
        resample = None
        if file.samplerate != sample_rate:
            resample = soxr.ResampleStream(file.samplerate, sample_rate, 1, dtype="float32")
        for block in blocks(file, 0, file.frames, str(path), max(1, round(BLOCK * file.samplerate))):
            yield block if resample is None else resample.resample_chunk(block)
        if resample is not None:
            yield resample.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


def _for_inference(codec: Codec) -> Codec:
    return codec if codec.inference else copy.deepcopy(codec).for_inference()
