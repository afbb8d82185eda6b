"""Two ranks and the cost of checkpoints, measured. JSON.

    python bench/faults.py ddp                          # two gloo ranks against one process, in turns
    python bench/faults.py checkpoint                   # the default run, and full-size Mimi

Everything is generated, in a temporary folder (--scratch). Results: docs/results/faults.md.
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

from bench.common import machine, parser, show, write_speech
from bench.ddp import WAYS, ddp
from bench.saving import saving

TRAINED = {  # models for `ddp`, with batches that compute for a while
    "soundstream_tiny": ["model=soundstream_tiny"],
    "soundstream": ["model=soundstream", "batch_size=4"],
}
MIMI = ["model=mimi_transformer", "disc=msstft", "loss=balancer", "batch_size=1"]


def cases(options: argparse.Namespace, scratch: Path) -> Iterator[dict[str, Any]]:
    speech = scratch / "speech"
    speech.mkdir()
    write_speech(speech, 24, 3.0, 24_000)
    if options.case == "ddp":
        for model in options.models:
            overrides = [*TRAINED[model], *options.more]
            yield ddp(speech, scratch / model, overrides, options.ways, options.rounds, options.seconds)
    else:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        for name, more, steps in (("default", [], 20), ("mimi", MIMI, 4)):
            yield saving(speech, scratch / name, more, steps, options.rounds)
            shutil.rmtree(scratch / name)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("case", choices=["ddp", "checkpoint"])
    arguments.add_argument("--scratch", help="folder for what is generated; default: a temporary one")
    arguments.add_argument("--models", nargs="*", choices=list(TRAINED), default=list(TRAINED), help="of ddp")
    arguments.add_argument("--more", nargs="*", default=[], help="overrides of ddp's runs")
    arguments.add_argument("--ways", nargs="*", choices=list(WAYS), default=["together"], help="of gradient exchange")
    arguments.add_argument("--rounds", type=int, default=9, help="of ddp; saved checkpoints")
    arguments.add_argument("--seconds", type=float, default=8.0, help="of each side in a round of ddp")
    options = arguments.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        os.environ["CODEC_CACHE"] = f"{scratch}/cache"
        about, results = machine(), []
        for result in cases(options, Path(scratch)):
            results.append(result)
            print(json.dumps(result), file=sys.stderr, flush=True)
    show(about | {"case": options.case, "load_after": os.getloadavg()[0], "results": results})


if __name__ == "__main__":
    main()
