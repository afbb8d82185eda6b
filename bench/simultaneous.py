"""Is the one-pass step, whose two sides learn at once, as good as the usual alternating one? Held-out quality, paired.

    python bench/simultaneous.py                                   # JSON; about ten minutes on two cores
    python bench/simultaneous.py --steps 2000 --seeds 5 model=soundstream_16k disc=msd+mfd

Both sides start from the same weights and see the same batches of generated speech with the same schedule; the scores
on held-out voices are compared seed by seed. Everything else on the command line goes to the configuration.
"""

import argparse
import copy
import json
import statistics
import sys
from functools import partial
from pathlib import Path

import torch
from hydra import compose, initialize
from hydra.utils import instantiate

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.train_step import OnePass, Usual
from codec.data.augment import AugmentedCrops
from codec.evaluation.baselines.codec import CodecSystem
from codec.evaluation.evaluate import evaluate
from codec.evaluation.metrics.table import METRICS
from codec.training.codec_task import CodecTask

SCORES = ("mel_distance", "stoi", "pesq_wb")
SMALL = ["encoder=seanet_small", "decoder=istft", "channels=8", "disc=msstft", "disc.members.msstft.width=8"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--clips", type=int, default=12)
    options, overrides = parser.parse_known_args()
    with initialize(version_base="1.3", config_path="../conf"):
        cfg = compose("train", overrides=overrides or SMALL)
    corpus = instantiate(cfg.dataset, _convert_="all")
    held_out = corpus.clips("test", 5.0)
    clips = [held_out[i] for i in range(min(options.clips, len(held_out)))]
    rows = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        parts = {"codec": cfg.codec, "discriminators": cfg.disc, "losses": cfg.loss, "optim": cfg.optim}
        task = CodecTask(**{name: instantiate(part, _convert_="all") for name, part in parts.items()})
        crops = AugmentedCrops(
            corpus.crops(int(cfg.segment * cfg.sample_rate), seed), instantiate(cfg.data.augment), seed
        )
        row = {"seed": seed}
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
    differences = {m: [r["one_pass"][m] - r["alternating"][m] for r in rows] for m in SCORES}
    summary = {
        m: {"mean": round(statistics.mean(d), 4), "sd": round(statistics.stdev(d), 4) if len(d) > 1 else None}
        for m, d in differences.items()
    }
    print(
        json.dumps(
            {**vars(options), "overrides": overrides or SMALL, "rows": rows, "one_pass_minus": summary}, indent=2
        )
    )


if __name__ == "__main__":
    main()
