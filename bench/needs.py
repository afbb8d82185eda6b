"""Disk and memory that a recipe needs: the table of docs/operations.md, as JSON.

    python bench/needs.py
    python bench/needs.py --recipes mimi_transformer:msstft:balancer --seconds 2

`checkpoint_mb` is a checkpoint after the first step: weights, buffers, both Adam moments, the codec's average; a run
keeps three (last, previous, best) while it writes a fourth. `state_mb` is the memory between two steps: weights,
gradients, moments, average. `mb_per_second` is what the forward passes save for the backward pass, for each second of
audio in a batch, in fp32 (bf16 takes a little more than half of it).
"""

import sys
from pathlib import Path

import torch
from torch.autograd.graph import saved_tensors_hooks

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.common import parser, show
from bench.train_step import build
from codec.training.codec_task import CodecTask

RECIPES = ["soundstream_tiny:none:mel", "soundstream:msd+mfd:encodec", "encodec:msstft:balancer"]
RECIPES += ["mimi_transformer:none:mel", "mimi_transformer:msstft:balancer", "mimi_transformer:mpd+mrd:encodec"]
MB = 1e6


def size(tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def saved_for_backward(task: CodecTask, wav: torch.Tensor) -> int:
    """Bytes of one pass that the backward pass reads, each storage once, without weights."""
    own = {p.untyped_storage().data_ptr() for p in (*task.parameters(), *task.buffers())}
    saved: dict[int, torch.Tensor] = {}  # references, so that no address is used twice

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        task.one_pass(wav)
    return sum(tensor.untyped_storage().nbytes() for place, tensor in saved.items() if place not in own)


def needs(recipe: str, seconds: float) -> dict[str, float | str]:
    task = build(*recipe.split(":"))
    codec, both, buffers = size(task.codec.parameters()), size(task.parameters()), size(task.buffers())
    wav = 0.1 * torch.randn(1, 1, round(seconds * task.codec.sample_rate))
    task.one_pass(wav)  # initialises the codebooks by k-means
    return {
        "recipe": recipe,
        "codec_million": round(codec / 4e6, 1),
        "disc_million": round((both - codec) / 4e6, 1),
        "checkpoint_mb": round((3 * both + codec + buffers) / MB),
        "state_mb": round((4 * both + codec + buffers) / MB),
        "mb_per_second": round(saved_for_backward(task, wav) / MB / seconds),
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--recipes", nargs="+", default=RECIPES, metavar="MODEL:DISC:LOSS")
    arguments.add_argument("--seconds", type=float, default=1.0, help="of the clip (%(default)s)")
    options = arguments.parse_args()
    show([needs(recipe, options.seconds) for recipe in options.recipes])


if __name__ == "__main__":
    main()
