"""Checkpoints of small codecs, and comparison of checkpoints bit for bit."""

from pathlib import Path
from typing import Any

import torch

from codec.checkpoints.safe_instantiate import build
from codec.model import Codec
from tests.helpers.parts import small_codec

UNITS = {"_target_": "codec.layers.seanet.ResidualUnits", "dilations": [1, 3], "kernel": 3, "compress": 2}
SEANET = {"dim": 8, "channels": 4, "strides": [2, 4], "units": UNITS}
RVQ = {"_target_": "codec.quantizers.rvq.RVQ", "dim": 8, "frame_rate": 100, "n_q": 3, "codebook_size": 16}
CONFIG = {  # of tests.helpers.parts.small_codec
    "codec": {
        "_target_": "codec.model.Codec",
        "encoder": {"_target_": "codec.encoders.seanet.SEANetEncoder", **SEANET},
        "decoder": {"_target_": "codec.decoders.seanet.SEANetDecoder", **SEANET},
        "quantizer": RVQ,
        "sample_rate": 800,
        "frame_rate": 100,
    }
}


def saved(path: Path, **changes) -> Codec:
    """A checkpoint of a small codec, with other or more entries -> the codec in eval mode."""
    codec = small_codec(seed=3)
    state = {f"codec.{k}": v for k, v in codec.state_dict().items()}
    state["discriminators.x"] = torch.zeros(1)
    torch.save({"config": CONFIG, "state_dict": state, "global_step": 7} | changes, path)
    return codec.eval()


def mimi_config(n_q: int = 4, weight_norm: bool = True, sample_rate: int = 1600, **transformer) -> dict:
    """The configuration of a small Mimi with hop 16 and windows of 10 frames."""
    seanet = SEANET | {"units": UNITS | {"dilations": [1]}, "weight_norm": weight_norm}
    attention = {"_target_": "codec.layers.transformer.Transformer", "dim": 8, "layers": 2, "heads": 2, "hidden": 16}
    attention |= {"context": 10, "base": 10_000.0, **transformer}
    sides = {
        side: {
            "_target_": f"codec.{side}s.mimi.Mimi{side.title()}",
            "seanet": {"_target_": f"codec.{side}s.seanet.SEANet{side.title()}", **seanet},
            "transformer": attention,
        }
        for side in ("encoder", "decoder")
    }
    rate = sample_rate / 16
    quantizer = {"_target_": "codec.quantizers.split_rvq.SplitRVQ", "dim": 8, "frame_rate": rate, "n_q": n_q}
    quantizer |= {"codebook_size": 16, "codebook_dim": 4, "kmeans_iters": 5}
    return {
        "_target_": "codec.model.Codec",
        **sides,
        "quantizer": quantizer,
        "sample_rate": sample_rate,
        "frame_rate": rate,
    }


def mimi_of(seed: int = 0, **changes) -> Codec:
    """A Mimi of :func:`mimi_config` whose codebooks are initialised."""
    torch.manual_seed(seed)
    codec = build(mimi_config(**changes))
    codec.quantizer.train()(torch.randn(4, 8, 50))
    return codec


def same(a: Any, b: Any) -> bool:
    """Whether tensors and plain values in each other are equal, to the last bit."""
    if torch.is_tensor(a):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def state(run: Path, name: str = "last") -> dict:
    """Everything in a checkpoint of a run but the paths of its own folder and the configuration."""
    checkpoint = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    checkpoint["callbacks"] = {k: v for k, v in checkpoint["callbacks"].items() if "ModelCheckpoint" not in k}
    del checkpoint["config"]
    return checkpoint


def differences(a: Any, b: Any, name: str = "") -> list[str]:
    """Where two contents are not the same."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for key in a for d in differences(a[key], b[key], f"{name}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [d for n, pair in enumerate(zip(a, b, strict=True)) for d in differences(*pair, f"{name}/{n}")]
    return [] if same(a, b) else [name]
