"""Quality of the one-pass step, whose two sides learn at once, against the usual alternating one: paired, held out.

    python bench/simultaneous.py                                   # JSON; about ten minutes on two cores
    python bench/simultaneous.py --steps 2000 --seeds 5 model=soundstream_16k disc=msd+mfd

Both sides start from the same weights and get the same batches of generated speech with the same schedule; scores on
held-out voices are compared seed by seed. Further arguments are overrides of the configuration.
"""

import copy
import statistics
import sys
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.common import built, codec_task, composed, parser, show
from bench.train_step import OnePass, Usual
from codec.data.augment import AugmentedCrops
from codec.evaluation.baselines.codec import CodecSystem
from codec.evaluation.evaluate import evaluate
from codec.evaluation.metrics.table import METRICS

SCORES = ("mel_distance", "stoi", "pesq_wb")
SMALL = ["encoder=seanet_small", "decoder=istft", "channels=8", "disc=msstft", "disc.members.msstft.width=8"]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--steps", type=int, default=300)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--batch", type=int, default=4)
    arguments.add_argument("--clips", type=int, default=12)
    options, overrides = arguments.parse_known_args()
    cfg = composed(*(overrides or SMALL))
    corpus, augment = built(cfg.dataset), built(cfg.data.augment)
    held_out = corpus.clips("test", 5.0)
    clips = [held_out[i] for i in range(min(options.clips, len(held_out)))]
    rows = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        task, row = codec_task(cfg), {"seed": seed}
        crops = AugmentedCrops(corpus.crops(int(cfg.segment * cfg.sample_rate), seed), augment, seed)
        for name, make in {"one_pass": OnePass, "alternating": partial(Usual, frozen=True)}.items():
            mine = copy.deepcopy(task).train()
            step = make(mine, steps=options.steps)
            torch.manual_seed(seed)
            for n in range(options.steps):
                step(torch.stack([crops[n * options.batch + b]["wav"] for b in range(options.batch)]))
            metrics = {m: METRICS[m] for m in SCORES}
            report = evaluate(CodecSystem(mine.codec), clips, mine.codec.sample_rate, workers=0, metrics=metrics)
            row[name] = {m: round(entry["mean"], 4) for m, entry in report.summary().items()}
            print(seed, name, row[name], file=sys.stderr, flush=True)
        rows.append(row)
    summary = {}
    for metric in SCORES:
        difference = [row["one_pass"][metric] - row["alternating"][metric] for row in rows]
        sd = round(statistics.stdev(difference), 4) if len(rows) > 1 else None
        summary[metric] = {"mean": round(statistics.mean(difference), 4), "sd": sd}
    show(vars(options) | {"overrides": overrides or SMALL, "rows": rows, "one_pass_minus": summary})


if __name__ == "__main__":
    main()
