"""Loads a flow model from a checkpoint, which is not trusted."""

from pathlib import Path
from typing import Any

from codec.checkpoints.load import load_part
from codec.checkpoints.safe_instantiate import FLOW
from codec.flow.model import FlowModel
from codec.latents.index import Statistics
from codec.utils.errors import InputError


def load_flow(path: str | Path, ema: bool = True) -> FlowModel:
    """The flow model of a checkpoint in eval mode.

    Args:
        ema: take the averaged weights where the checkpoint has them.

    Raises:
        CheckpointError: if it is none, or weights and configuration do not fit; names the tensors.
    """
    return load_with_config(path, ema)[0]


def load_with_config(path: str | Path, ema: bool = True) -> tuple[FlowModel, dict[str, Any]]:
    """The same, and the checkpoint's configuration, which is not validated. Raises as :func:`load_flow` does."""
    flow, config = load_part(path, "flow", FlowModel, FLOW, ema)
    return flow, {"codec_ckpt": config.get("codec")} | config  # `codec` in checkpoints before this name


def codec_ckpt_of(path: str | Path, config: dict[str, Any]) -> str:
    """The checkpoint of the codec that the flow model of ``path`` was trained on. Raises InputError if it has moved."""
    ckpt = config["codec_ckpt"]
    if not isinstance(ckpt, str) or not Path(ckpt).is_file():
        raise InputError(f"the codec of {path} is not where it was: give its checkpoint, --codec-ckpt PATH")
    return ckpt


def statistics_of(flow: FlowModel) -> Statistics:
    """Of the latents of its training, as :class:`codec.latents.latent_space.LatentSpace` needs them."""
    mean, std = (value.detach().cpu().clone() for value in (flow.mean, flow.std))
    return Statistics(flow.kind, flow.fingerprint, flow.sample_rate, flow.hop_length, mean, std)
