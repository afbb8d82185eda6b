"""Import of Lyra V2, SoundStream as Google released it (github.com/google/lyra, Apache-2.0; 1.3 M parameters).

Its inner layers have int8 weights and were trained for int8 activations. Here weights are dequantized and activations
are floating-point: codes of equal latents are equal, and latents and sound agree to about 20 dB with equal scores
(docs/results/soundstream.md).
"""

import hashlib
import logging
from pathlib import Path
from typing import Any

import fsspec
import torch
from torch import Tensor, nn

from codec.checkpoints.convert.tflite import CONV, DEPTHWISE_CONV, GATHER, TRANSPOSE_CONV, Operator, read_tflite
from codec.checkpoints.load import CheckpointError, load_weights
from codec.checkpoints.safe_instantiate import build
from codec.model import Codec
from codec.utils.errors import first_line

log = logging.getLogger(__name__)
RELEASE = "https://raw.githubusercontent.com/google/lyra/v1.3.2/lyra/model_coeffs"
FILES = {  # of the release, with their SHA-256
    "soundstream_encoder.tflite": "237da0b16226fb0a68d49551c81bebf614e42142af72764448359f68581e88f1",
    "quantizer.tflite": "841ee05989687d32d1f616a8ad1419fc7eda37599d3c05c7cf5a0d60ccf8ac5c",
    "lyragan.tflite": "50e7839cda4f30599a3a34cfaddcd9c98449b049eee884e1a74295780448ad06",
}
MAX_BYTES = 2**22  # of a file; the largest has 1.8 MB
N_Q, CODES, DIM = 46, 16, 64
PRIOR = 100.0  # uses of each code that the moving averages begin with: about those of 100 steps of training


def import_lyra(source: str | Path = RELEASE, n_q: int | None = None) -> tuple[Codec, dict[str, Any]]:
    """Lyra V2 as a codec in eval mode (16 kHz, 50 Hz), and the configuration that rebuilds it.

    Args:
        source: a folder or a URL with the three files of :data:`FILES`.
        n_q: number of codebooks to keep, from the first; None for all 46. 16, 30 and 46 are Lyra's 3.2, 6 and 9.2
            kbit/s.

    Raises CheckpointError if a file is missing, damaged, or has other weights than Lyra V2's.
    """
    n_q = N_Q if n_q is None else n_q
    if not 1 <= n_q <= N_Q:
        raise CheckpointError(f"n_q={n_q}, but Lyra has {N_Q} codebooks: choose 1 to {N_Q}")
    tree = _config(n_q)
    codec = build(tree)
    encoder, quantizer, decoder = (_read(str(source), name) for name in FILES)
    try:
        _copy(codec.encoder, _layers(encoder.get("main", [])), f"{source}/soundstream_encoder.tflite")
        _copy(codec.decoder, _layers(decoder.get("main", [])), f"{source}/lyragan.tflite")
        codebooks = _codebooks(quantizer.get("decode", []), f"{source}/quantizer.tflite")[:n_q]
    except (LookupError, RuntimeError, TypeError) as error:  # weights of other dimensions
        raise CheckpointError(f"{source} has no weights of Lyra V2 ({first_line(error)}): {_known()}") from None
    usage = torch.full((n_q, CODES), PRIOR)
    state = {"codebooks": codebooks, "usage": usage, "sums": codebooks * PRIOR, "_extra_state": {"steps": 1}}
    load_weights(codec.quantizer, state, f"{source}/quantizer.tflite")
    return codec.eval(), {"name": "lyra", "sample_rate": 16000, "frame_rate": 50, "codec": tree}


def _config(n_q: int) -> dict[str, Any]:
    quantizer = dict(_target_="codec.quantizers.rvq.RVQ", dim=DIM, frame_rate=50.0, n_q=n_q, codebook_size=CODES)
    return {
        "_target_": "codec.model.Codec",
        "encoder": {"_target_": "codec.encoders.lyra.LyraEncoder"},
        "quantizer": quantizer,
        "decoder": {"_target_": "codec.decoders.lyra.LyraDecoder"},
        "sample_rate": 16000,
        "frame_rate": 50.0,
    }


def _known() -> str:
    return f"the files that are known are those of {RELEASE}"


def _read(source: str, name: str) -> dict[str, list[Operator]]:
    """The operators in a file of the release."""
    address = f"{source.rstrip('/')}/{name}"
    try:
        with fsspec.open(address, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except Exception as error:  # of dozens of kinds, from a missing file to the network
        raise CheckpointError(
            f"{address} cannot be read ({first_line(error)}): {_known()}; three files are needed"
        ) from None
    if len(data) > MAX_BYTES:
        raise CheckpointError(f"{address} is too large to be Lyra's: {_known()}")
    digest = hashlib.sha256(data).hexdigest()
    log.info("%s  SHA-256 %s, %s", name, digest, "as released" if digest == FILES[name] else "not a known release")
    return read_tflite(data, address)


def _layers(operators: list[Operator]) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each convolution in torch's layout; a transposed one has an operator for each group."""
    layers, groups = [], []
    for kind, _, _, constants in operators:
        if kind not in (CONV, DEPTHWISE_CONV, TRANSPOSE_CONV) or not {1, 2 + (kind == TRANSPOSE_CONV)} <= {*constants}:
            continue
        weight = torch.tensor(constants[1]).float()[:, :, 0]  # [C', kernel, C], depthwise [1, kernel, C]
        bias = torch.tensor(constants[2 + (kind == TRANSPOSE_CONV)]).float()
        if kind != TRANSPOSE_CONV:
            weight = weight.permute(2, 0, 1) if kind == DEPTHWISE_CONV else weight.transpose(1, 2)
            layers.append((weight, bias))
            groups = []
            continue
        groups.append((weight.permute(2, 0, 1), bias))
        if len(groups) > 1 and groups[-2][0].shape == groups[-1][0].shape:
            layers.pop()
        else:
            groups = groups[-1:]
        layers.append(tuple(torch.cat(parts) for parts in zip(*groups, strict=True)))
    return layers


def _codebooks(operators: list[Operator], source: str) -> Tensor:
    """The codebooks ``[N_Q, CODES, DIM]``; a slice of the codes, whose start is the level, leads to each."""
    producers = {output: one for one in operators for output in one.outputs}
    books = {}
    for one in operators:
        if one.kind == GATHER and 0 in one.constants and (level := producers.get(one.inputs[1])):
            books[int(level.constants[1][0])] = torch.tensor(one.constants[0])
    if [tuple(books[level].shape) for level in sorted(books)] != [(CODES, DIM)] * N_Q:
        raise CheckpointError(
            f"{source} is another than Lyra V2's, which has {N_Q} codebooks of {CODES} codes: {_known()}"
        )
    return torch.stack([books[level] for level in sorted(books)])


def _copy(part: nn.Module, layers: list[tuple[Tensor, Tensor]], source: str) -> None:
    """Copy weights and biases into the convolutions of ``part``, in order."""
    convolutions = [name for name, one in part.named_modules() if isinstance(one, nn.Conv1d | nn.ConvTranspose1d)]
    if len(layers) != len(convolutions):
        raise CheckpointError(
            f"{source} is another than Lyra V2's: it has {len(layers)} convolutions instead of {len(convolutions)}; "
            + _known()
        )
    state = {}
    for name, (weight, bias) in zip(convolutions, layers, strict=True):
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    load_weights(part, state, source)
