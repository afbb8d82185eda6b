"""What the project promises about faults, measured: kills, damaged files, two processes, what checkpoints cost. JSON.

    python bench/faults.py kills                        # 20 random and 10 chosen ones, with 0 and 2 loader processes
    python bench/faults.py damage --count 1000          # so many damaged files of every kind; --kinds for some of them
    python bench/faults.py ddp                          # two gloo processes against one, in turns
    python bench/faults.py checkpoint                   # the default run, and full-size Mimi

Everything is generated and lies in a temporary folder (--scratch). docs/results/faults.md has what came out.
"""

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch; `checkpoint` takes as many as train.py would

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.damage import damage
from bench.data import speechlike
from bench.ddp import WAYS, ddp
from bench.kills import kills
from bench.saving import saving
from tests.helpers.kinds import KINDS

TRAINED = {  # models for `ddp`, with batches that compute for a while
    "soundstream_tiny": ["model=soundstream_tiny"],
    "soundstream": ["model=soundstream", "batch_size=4"],
}
MIMI = ["model=mimi_transformer", "disc=msstft", "loss=balancer", "batch_size=1"]


def cases(options: argparse.Namespace, scratch: Path) -> Iterator[dict[str, Any]]:
    """What each run of a case has found."""
    speech = scratch / "speech"
    if options.case == "damage":
        for kind in options.kinds or KINDS:
            yield damage(kind, options.count)
        return
    speech.mkdir()
    speechlike(speech, 24, 3.0, 24_000)
    if options.case == "kills":
        import train  # noqa: F401  once, not in every life

        for workers in (0, 2):
            yield kills(speech, scratch, workers, options.count, options.steps, options.steps // 20)
    elif options.case == "ddp":
        for model in options.models:
            sides = scratch / model, [*TRAINED[model], *options.more], options.ways
            yield ddp(speech, *sides, options.rounds, options.seconds)
    else:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        for name, more, steps in (("default", [], 20), ("mimi", MIMI, 4)):
            yield saving(speech, scratch / name, more, steps, options.rounds)
            shutil.rmtree(scratch / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=["kills", "damage", "ddp", "checkpoint"])
    parser.add_argument("--scratch", help="folder for what is generated; default: a temporary one")
    parser.add_argument("--count", type=int, help="random kills (20), or damaged files of each kind (1000)")
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), help="of damaged files; default: all")
    parser.add_argument("--steps", type=int, default=400, help="of a run that is killed")
    parser.add_argument("--models", nargs="*", choices=list(TRAINED), default=list(TRAINED), help="of ddp")
    parser.add_argument("--more", nargs="*", default=[], help="overrides of ddp's runs")
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=["together"], help="of exchanging gradients")
    parser.add_argument("--rounds", type=int, default=9, help="of ddp; checkpoints that are saved")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each side in a round of ddp")
    options = parser.parse_args()
    options.count = options.count or {"kills": 20, "damage": 1000}.get(options.case)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        os.environ["CODEC_CACHE"] = f"{scratch}/cache"
        about = {"case": options.case, "cores": len(os.sched_getaffinity(0)), "load_before": os.getloadavg()}
        results = []
        for result in cases(options, Path(scratch)):
            results.append(result)
            print(json.dumps(result), file=sys.stderr, flush=True)
    print(json.dumps({**about, "load_after": os.getloadavg(), "results": results}, indent=2))


if __name__ == "__main__":
    main()
