"""Loading of flow models from untrusted checkpoints."""

from pathlib import Path
from typing import Any

from codec.checkpoints.load import load_part
from codec.checkpoints.safe_instantiate import FLOW
from codec.flow.model import FlowModel
from codec.latents.index import Statistics
from codec.utils.errors import InputError


def load_flow(path: str | Path, ema: bool = True) -> FlowModel:
    """Flow model of a checkpoint in eval mode; ``ema``: with averaged weights where there are any. Raises
    CheckpointError if there is no flow model, or weights and configuration do not fit (names the tensors)."""
    return load_with_config(path, ema)[0]


def load_with_config(path: str | Path, ema: bool = True) -> tuple[FlowModel, dict[str, Any]]:
    """Flow model as by :func:`load_flow`, and the checkpoint's configuration, which is not validated."""
    flow, config = load_part(path, "flow", FlowModel, FLOW, ema)
    return flow, {"codec_ckpt": config.get("codec")} | config  # `codec` in older checkpoints


def codec_ckpt_of(path: str | Path, config: dict[str, Any]) -> str:
    """Path of the codec that the flow model of ``path`` was trained on. Raises InputError if there is no file."""
    ckpt = config["codec_ckpt"]
    if not isinstance(ckpt, str) or not Path(ckpt).is_file():
        raise InputError(f"the codec of {path} is not where it was: give its checkpoint, --codec-ckpt PATH")
    return ckpt


def statistics_of(flow: FlowModel) -> Statistics:
    """Statistics of a flow model's latents, as :class:`codec.latents.latent_space.LatentSpace` needs them."""
    mean, std = (value.detach().cpu().clone() for value in (flow.mean, flow.std))
    return Statistics(flow.kind, flow.fingerprint, flow.sample_rate, flow.hop_length, mean, std)
