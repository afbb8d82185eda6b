"""Audio files to token files and back, in bounded memory: a stream of blocks, however long the recording."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from codec.model import Codec
from codec.stream import Stream
from codec.tokens import TokenError, Tokens, fingerprint, load_tokens, save_tokens

BLOCK = 2.0  # seconds of audio at a time


class FileError(ValueError):
    """An audio file cannot be read or written; the message says why."""


def encode_file(codec: Codec, source: str | Path, target: str | Path, n_q: int | None = None) -> Tokens:
    """Encode any file that soundfile reads (any rate; channels are averaged) -> its tokens, written to ``target``, too.

    A codec that looks ahead cannot stream and sees the whole recording at once.

    Raises:
        FileError: if the source cannot be read or is empty.
        ValueError: if the codec has fewer than ``n_q`` codebooks.
    """
    device = next(codec.buffers()).device
    codec.quantizer.check_n_q(n_q)
    pieces, length = [], 0
    stream = _stream(codec, n_q)
    for block in read_blocks(source, codec.sample_rate):
        wav = torch.from_numpy(block)[None, None].to(device)
        length += wav.shape[-1]
        pieces.append(stream.encode(wav).cpu() if stream else wav)
    if not length:
        raise FileError(f"{source} holds no sample")
    if stream:
        pieces.append(stream.finish().cpu())
        codes = torch.cat(pieces, dim=-1)
    else:
        with torch.inference_mode():
            codes = codec.encode(torch.cat(pieces, dim=-1), n_q).cpu()
    tokens = Tokens(codes[0], length, codec.sample_rate, codec.hop_length, fingerprint(codec.quantizer))
    save_tokens(target, tokens)
    return tokens


def decode_file(codec: Codec, source: str | Path, target: str | Path, n_q: int | None = None) -> Tokens:
    """Decode a token file (its first ``n_q`` codebooks) into an audio file; its format is that of the name's ending.

    Raises:
        TokenError: if the token file is damaged, foreign, or of another model, or has fewer than ``n_q`` codebooks.
        FileError: if the target cannot be written.
    """
    device = next(codec.buffers()).device
    tokens = load_tokens(source, fingerprint(codec.quantizer))
    has = tokens.codes.shape[0]
    if n_q is not None and not 1 <= n_q <= has:
        raise TokenError(f"{source} has {has} codebooks: choose n_q from 1 to {has}, not {n_q}")
    codes = tokens.codes[None, :n_q].to(device)
    stream = _stream(codec, None)
    frames = max(1, round(BLOCK * codec.frame_rate))
    try:
        with soundfile.SoundFile(target, "w", tokens.sample_rate, 1) as file:
            left = tokens.length
            for block in codes.split(frames if stream else codes.shape[-1], dim=-1):
                with torch.inference_mode():
                    wav = stream.decode(block) if stream else codec.decode(block)
                file.write(wav[0, 0, :left].clamp(-1, 1).float().cpu().numpy())
                left -= min(left, wav.shape[-1])
    except (soundfile.SoundFileError, ValueError, TypeError, OSError) as error:
        raise FileError(f"{target} cannot be written: {error}") from error
    return tokens


def read_blocks(path: str | Path, sample_rate: int) -> Iterator[np.ndarray]:
    """Mono float32 blocks of an audio file at ``sample_rate`` (Hz); resampled as a stream, without seams.

    Raises:
        FileError: if it is missing or soundfile cannot read it.
    """
    if not Path(path).is_file():
        raise FileError(f"there is no audio file at {path}")
    try:
        with soundfile.SoundFile(path) as file:
            resample = None
            if file.samplerate != sample_rate:
                resample = soxr.ResampleStream(file.samplerate, sample_rate, 1, dtype="float32")
            for block in file.blocks(max(1, round(BLOCK * file.samplerate)), dtype="float32", always_2d=True):
                mono = block.mean(axis=1)
                yield mono if resample is None else resample.resample_chunk(mono)
            if resample is not None:
                yield resample.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
    except soundfile.SoundFileError as error:
        raise FileError(f"{path} cannot be read as audio: {error}") from error


def _stream(codec: Codec, n_q: int | None) -> Stream | None:
    causal = hasattr(codec.encoder, "step") and hasattr(codec.decoder, "step")
    return codec.streaming(n_q) if causal else None
