"""What is in checkpoints, compared bit for bit."""

from pathlib import Path
from typing import Any

import torch


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
