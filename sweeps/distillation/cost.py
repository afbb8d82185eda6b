"""What a training step of each arm's codec computes: ``python sweeps/distillation/cost.py small --out OUT``.

Writes OUT/cost.json, which tables.py reads: by arm, GFLOP for each second of audio, forward and backward, of codec,
discriminators and teacher. Counted are convolutions, matrix products and attention, a multiplication and an addition as
2; FFTs and LSTMs are not. A teacher that has to be trained first is (it is kept), which is not counted.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path

from hydra import compose, initialize
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from run import codec_words, study  # noqa: E402

from codec.training.run import build  # noqa: E402


class Untracked(contextlib.nullcontext):
    """Notes no module of an operation: the hooks that do break ``autograd.grad``, which the losses use."""

    parents = frozenset({"Global"})


def training_gflop(words: list[str]) -> float:
    """Of one batch of a training with these overrides, for each second of its audio, from the step on at which all
    parts learn."""
    with tempfile.TemporaryDirectory() as folder, initialize(version_base="1.3", config_path="../../conf"):
        task, data = build(compose("train", [*words, "adversarial_start=0", f"run_dir={folder}"]), None)
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Untracked()
    with counter, sdpa_kernel(SDPBackend.MATH):  # attention is then the two matrix products that it is
        task.one_pass(batch["wav"], batch["phones"])[0].backward()
    return counter.get_total_flops() / task.seconds(batch) / 1e9


def main() -> None:
    plan = study()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scale", choices=list(plan["scales"]))
    parser.add_argument("--out", type=Path, required=True, help="what run.py was given as --out")
    options = parser.parse_args()
    scale, found = plan["scales"][options.scale], {}
    for arm in plan["arms"]:
        if "codec_of" not in plan["arms"][arm]:
            found[arm] = training_gflop(codec_words(plan, scale, arm))
            print(f"{arm}: {found[arm]:.2f}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "cost.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
