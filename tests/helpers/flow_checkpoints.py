"""A small codec and a small flow model on its latents, as checkpoints."""

from pathlib import Path

import torch

from codec.checkpoints.safe_instantiate import FLOW, build
from codec.flow.model import FlowModel
from codec.latents.latent_space import latent_fingerprint
from tests.helpers.codecs import saved as saved_codec
from tests.helpers.flow_parts import CONDITIONS, HOP, RATE, W

CHANNELS = 8  # of the codec's latents
OPTIONS = {
    "aligned_phones": {"vocabulary": "_ a b c", "frame_rate": RATE / HOP, "hidden": 8},
    "characters": {"vocabulary": "abc ", "frame_rate": RATE / HOP, "hidden": 8, "blocks": 1},
    "phones": {"vocabulary": "_ a b c", "frame_rate": RATE / HOP, "hidden": 8, "blocks": 1},
    "prompt": {"channels": CHANNELS, "hidden": 8, "blocks": 1},
}


def configuration(names: tuple[str, ...], mark: str, seconds: float) -> dict:
    members = {}
    for name in names:
        made = type(CONDITIONS[name]())
        members[name] = {"_target_": f"{made.__module__}.{made.__name__}", "width": W, **OPTIONS[name]}
    network = {"channels": CHANNELS, "width": W, "layers": 1, "heads": 2, "hidden": 16}
    return {
        "_target_": "codec.flow.model.FlowModel",
        "network": {"_target_": "codec.flow.dit.DiT", **network},
        "condition": {"_target_": "codec.flow.conditioning.Conditions", "members": members, "width": W},
        "objective": {"_target_": "codec.flow.objective.FlowMatching"},
        "sample_rate": RATE,
        "hop_length": HOP,
        "fingerprint": mark,
        "kind": "pre",
        "max_seconds": seconds,
    }


def saved_flow(folder: Path, *names: str, seconds: float = 4.0) -> tuple[Path, Path]:
    """(flow model with these conditions, its codec), which the first names as the one of its training."""
    folder.mkdir(parents=True, exist_ok=True)
    codec = saved_codec(folder / "codec.ckpt", "none")
    config = configuration(names, latent_fingerprint(codec, "pre"), seconds)
    torch.manual_seed(0)
    flow: FlowModel = build(config, FLOW)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.05 * torch.randn_like(p))
    state = {f"flow.{name}": value for name, value in flow.state_dict().items()}
    content = {"config": {"flow": config, "codec": str(folder / "codec.ckpt")}, "state_dict": state, "global_step": 7}
    torch.save(content, folder / "flow.ckpt")
    return folder / "flow.ckpt", folder / "codec.ckpt"
