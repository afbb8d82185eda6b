"""A small codec and a small flow model on its latents, as checkpoints."""

from pathlib import Path

import torch

from codec.checkpoints.safe_instantiate import FLOW, build
from codec.flow.model import FlowModel
from codec.latents.latent_space import latent_fingerprint
from tests.helpers.codecs import saved as saved_codec
from tests.helpers.flow_parts import CONDITIONS, HOP, RATE, TEXT, W

VOCABULARIES = {"aligned_phones": "_ a b c", "characters": "abc ", "phones": "_ a b c"}


def configuration(names: tuple[str, ...], mark: str, seconds: float, channels: int = 8) -> dict:
    """Of a model with these conditions, in the form of checkpoints."""
    members = {}
    for name in names:
        made = type(CONDITIONS[name]())
        options = (
            {"vocabulary": VOCABULARIES[name], "frame_rate": RATE / HOP} if name in TEXT else {"channels": channels}
        )
        options |= {"blocks": 1} if name != "aligned_phones" else {}
        members[name] = {"_target_": f"{made.__module__}.{made.__name__}", "width": W, "hidden": 8, **options}
    network = {"channels": channels, "width": W, "layers": 1, "heads": 2, "hidden": 16}
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
    """Checkpoints of a flow model with these conditions and of its codec, whose path the first has."""
    folder.mkdir(parents=True, exist_ok=True)
    codec = saved_codec(folder / "codec.ckpt", "none")
    config = configuration(names, latent_fingerprint(codec, "pre"), seconds)
    torch.manual_seed(0)
    flow: FlowModel = build(config, FLOW)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.05 * torch.randn_like(p))
    state = {f"flow.{name}": value for name, value in flow.state_dict().items()}
    config = {"flow": config, "codec_ckpt": str(folder / "codec.ckpt")}
    torch.save({"config": config, "state_dict": state, "global_step": 7}, folder / "flow.ckpt")
    return folder / "flow.ckpt", folder / "codec.ckpt"
