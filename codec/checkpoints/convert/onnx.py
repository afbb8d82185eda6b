"""Export of a causal codec as two ONNX graphs, one streaming step each, and ``codec.json`` with rates and sizes.

``encoder_step.onnx``: wav ``[1, 1, hop_length]`` float32 and state -> codes ``[1, n_q, 1]`` int64 and next state.
``decoder_step.onnx``: codes ``[1, n_q, 1]`` and state -> wav ``[1, 1, hop_length]`` and next state.
Outputs ``next_state_0, ...`` are the next step's inputs ``state_0, ...``; zeros start a stream. Weights are fp32.
"""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from codec.checkpoints.load import CheckpointError
from codec.layers.conv import fold_weight_norm
from codec.layers.streaming import State
from codec.model import Codec

FILES = ("encoder_step.onnx", "decoder_step.onnx", "codec.json")


class Step(nn.Module):
    """One streaming step of a codec's encoder or decoder, with its state as a flat list of tensors."""

    def __init__(self, codec: Codec, n_q: int | None, encoder: bool):
        super().__init__()
        self.codec, self.n_q, self.encoder = codec, n_q, encoder
        self.eval()

    @torch.no_grad()
    def start(self, x: Tensor) -> list[Tensor]:
        """The zero state that starts a stream; also records the structure of states."""
        leaves, self.structure = pytree.tree_flatten(self.step(x, None)[1])
        self.stateful = [isinstance(leaf, Tensor) for leaf in leaves]  # others are None: stateless layers
        return [torch.zeros_like(leaf) for leaf in leaves if isinstance(leaf, Tensor)]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return self.codec.encode_step(x, state, self.n_q) if self.encoder else self.codec.decode_step(x, state)

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        given = iter(state)
        leaves = [next(given) if there else None for there in self.stateful]
        y, after = self.step(x, pytree.tree_unflatten(leaves, self.structure))
        return y, *(leaf for leaf in pytree.tree_leaves(after) if isinstance(leaf, Tensor))


def export_onnx(codec: Codec, folder: str | Path, n_q: int | None = None) -> list[Path]:
    """Export a codec's streaming steps for ``n_q`` codebooks (None: all) to ONNX; returns the files written.

    Raises CheckpointError if the codec has look-ahead or fewer codebooks, or if onnxscript is not installed.
    """
    try:
        import onnxscript  # noqa: F401  # an optional dependency of torch.onnx.export
    except ImportError as error:
        raise CheckpointError("exporting to ONNX needs its tools: pip install onnx onnxscript onnxruntime") from error
    if codec.inference or not codec.quantizer.n_q:
        what = "is in its form for inference" if codec.inference else "has no codebooks"
        raise CheckpointError(f"this codec {what} and cannot be exported")
    try:
        codec.check_causal()
        n_q = codec.quantizer.check_n_q(n_q)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    codec = fold_weight_norm(copy.deepcopy(codec)).eval().requires_grad_(False)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    wav, codes = torch.zeros(1, 1, codec.hop_length), torch.zeros(1, n_q, 1, dtype=torch.int64)
    for file, x, encoder in ((FILES[0], wav, True), (FILES[1], codes, False)):
        step = Step(codec, n_q, encoder)
        state = step.start(x)
        names = ["wav", "codes"] if encoder else ["codes", "wav"]
        numbers = range(len(state))
        program = torch.onnx.export(
            step,
            (x, *state),
            input_names=[names[0], *(f"state_{i}" for i in numbers)],
            output_names=[names[1], *(f"next_state_{i}" for i in numbers)],
            dynamo=True,
            verbose=False,
        )
        program.save(folder / file, external_data=False)
    facts: dict[str, Any] = {"sample_rate": codec.sample_rate, "frame_rate": codec.frame_rate}
    facts |= {"hop_length": codec.hop_length, "n_q": n_q, "codebook_size": codec.quantizer.codebook_size}
    (folder / FILES[2]).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return [folder / name for name in FILES]
