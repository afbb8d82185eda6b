"""Around a run: how it ends on bad input, its precision, and what it leaves behind besides weights."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from torch import nn

from codec.checkpoint import CheckpointError
from codec.data.base import CorpusError


@contextmanager
def one_sentence() -> Iterator[None]:
    """End the program with one sentence where the input is at fault; other errors keep their trace."""
    try:
        yield
    except InstantiationException as error:  # Hydra's wrapping of a part that refused its arguments
        if not isinstance(error.__cause__, CorpusError | ValueError):
            raise
        sys.exit(f"error: {error.__cause__}")
    except (CorpusError, CheckpointError) as error:
        sys.exit(f"error: {error}")


def precision(choice: str) -> str:
    """Lightning's precision for ``auto``: bf16-mixed where a GPU computes in it, fp32 otherwise."""
    if choice != "auto":
        return choice
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def git_commit() -> str:
    """The commit of the working tree, with ``+changes`` where it differs, or ``unknown`` outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+changes" if changes.strip() else "")


def parts(task: nn.Module) -> dict[str, dict[str, Any]]:
    """Class and trainable parameters of each part that was really built, discriminators one by one."""
    modules = {name: getattr(task.codec, name) for name in ("encoder", "quantizer", "decoder")}
    modules |= {f"discriminator {name}": module for name, module in task.discriminators.members.items()}
    return {
        name: {
            "class": f"{type(module).__module__}.{type(module).__name__}",
            "parameters": sum(p.numel() for p in module.parameters() if p.requires_grad),
        }
        for name, module in modules.items()
    }


def record(folder: str | Path, config: dict[str, Any], task: nn.Module) -> dict[str, dict[str, Any]]:
    """Write ``config.yaml`` (resolved) and ``parts.json`` (with the git commit) into the run folder -> the parts."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    built = parts(task)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    (folder / "parts.json").write_text(json.dumps({"git_commit": git_commit(), "parts": built}, indent=2) + "\n")
    return built
