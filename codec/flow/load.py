"""From a checkpoint file back to a flow model, without trusting the file."""

from pathlib import Path
from typing import Any

from codec.checkpoints.load import load_part
from codec.checkpoints.safe_instantiate import FLOW, CheckpointError
from codec.flow.model import FlowModel
from codec.latents.index import Statistics


def load_flow(path: str | Path, ema: bool = True) -> FlowModel:
    """The flow model of a checkpoint in eval mode.

    Args:
        ema: take the averaged weights where the checkpoint has them.

    Raises:
        CheckpointError: if it is none, or weights and configuration do not fit; names the tensors.
    """
    return load_with_config(path, ema)[0]


def load_with_config(path: str | Path, ema: bool = True) -> tuple[FlowModel, dict[str, Any]]:
    """The same, and the checkpoint's configuration, which nobody has checked. Raises as :func:`load_flow` does."""
    flow, config = load_part(path, "flow", FLOW, ema)
    if not isinstance(flow, FlowModel):
        raise CheckpointError(
            f"{path} is no checkpoint of a flow model: its configuration builds a {type(flow).__name__}"
        )
    return flow, config


def statistics_of(flow: FlowModel) -> Statistics:
    """Of the latents that it was trained on: what :class:`codec.latents.latent_space.LatentSpace` asks for beside a
    codec."""
    facts = flow.kind, flow.fingerprint, flow.sample_rate, flow.hop_length
    return Statistics(*facts, flow.mean.detach().cpu().clone(), flow.std.detach().cpu().clone())
