"""What a recipe needs of disk and memory: the table of docs/operations.md, as JSON.

    python bench/needs.py
    python bench/needs.py --recipes mimi_transformer:msstft:balancer --seconds 2

`checkpoint_mb` is a checkpoint after the first step: weights, buffers, both Adam moments, the codec's average. A run
keeps three (last, previous, best) and writes a fourth beside them. `state_mb` is what lies in memory between two steps:
weights, gradients, moments, average. `mb_per_second` is what the forward passes keep for the backward pass, for each
second of audio in a batch, in fp32 (bf16 takes a little more than half of it): it grows with batch size and segment.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from torch.autograd.graph import saved_tensors_hooks

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.train_step import build
from codec.training.codec_task import CodecTask

RECIPES = ["soundstream_tiny:none:mel", "soundstream:msd+mfd:encodec", "encodec:msstft:balancer"]
RECIPES += ["mimi_transformer:none:mel", "mimi_transformer:msstft:balancer", "mimi_transformer:mpd+mrd:encodec"]
MB = 1e6


def size(tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def kept_for_backward(task: CodecTask, wav: torch.Tensor) -> int:
    """Bytes of one pass that the backward pass reads, each storage once, weights left out."""
    own = {p.untyped_storage().data_ptr() for p in (*task.parameters(), *task.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no other storage gets its address
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        task.one_pass(wav)
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)


def needs(recipe: str, seconds: float) -> dict[str, float | str]:
    task = build(*recipe.split(":"))
    codec, both = size(task.codec.parameters()), size(task.parameters())
    samples = round(seconds * task.codec.sample_rate)
    task.one_pass(0.1 * torch.randn(1, 1, samples))  # k-means begins the codebooks
    kept = kept_for_backward(task, 0.1 * torch.randn(1, 1, samples))
    return {
        "recipe": recipe,
        "codec_million": round(codec / 4e6, 1),
        "disc_million": round((both - codec) / 4e6, 1),
        "checkpoint_mb": round((3 * both + codec + size(task.buffers())) / MB),
        "state_mb": round((4 * both + codec + size(task.buffers())) / MB),
        "mb_per_second": round(kept / MB / seconds),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--recipes", nargs="+", default=RECIPES, metavar="MODEL:DISC:LOSS")
    options.add_argument("--seconds", type=float, default=1.0, help="of the clip that is measured (%(default)s)")
    given = options.parse_args()
    print(json.dumps([needs(recipe, given.seconds) for recipe in given.recipes], indent=1))


if __name__ == "__main__":
    main()
