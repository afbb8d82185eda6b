"""Cost of a training step of each arm's codec: ``python sweeps/distillation/cost.py small --out OUT``.

Writes OUT/cost.json for tables.py: GFLOP per second of audio, forward and backward, of codec, discriminators and
teacher, by arm. A multiplication and an addition are 2 FLOP; FFTs, LSTMs and the training of a teacher are not counted.
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
    """Module tracker without modules: hooks for tracking break ``autograd.grad``, which the losses use."""

    parents = frozenset({"Global"})


def training_gflop(words: list[str]) -> float:
    """GFLOP per second of audio of a training step of all parts, with these overrides of train.py."""
    with tempfile.TemporaryDirectory() as folder, initialize(version_base="1.3", config_path="../../conf"):
        task, data = build(compose("train", [*words, "adversarial_start=0", f"run_dir={folder}"]), None)
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Untracked()
    with counter, sdpa_kernel(SDPBackend.MATH):  # attention as two matrix products
        task.one_pass(batch["wav"], batch["phones"])[0].backward()
    return counter.get_total_flops() / task.seconds(batch) / 1e9


def main() -> None:
    plan = study()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scale", choices=list(plan["scales"]))
    parser.add_argument("--out", type=Path, required=True, help="the --out of run.py")
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
