"""A flow model's training step, and sampling ten seconds of latents: sizes, frame rates and numbers of steps.

    python bench/flow.py sample                                    # all of them; some minutes a round on two cores
    python bench/flow.py sample --rates 12.5 --sizes base --rounds 5
    python bench/flow.py train --batch 4

Weights are random, which does not change the time. The model is conditioned on aligned phones and a prompt, with
guidance, so that each step is a pass over two examples; all latents are masked. Decoding with model=mimi_continuous
(12.5 Hz) is timed in every round as well. Prints JSON: wall seconds (best and median of the rounds), CPU seconds
(median), and the real-time factors of sampling and of sampling with decoding.
"""

import argparse
import functools
import random
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.common import built, composed, interleaved, machine, median_wall, parser, ratio, show
from codec.flow.task import FlowTask

CODEC_RATE = 12.5  # frames per second of mimi_continuous
PHONES = "a b c d e f g h"


def configuration(size: str, frame_rate: float, seconds: float) -> Any:
    options = ["task=flow", "codec_ckpt=none", f"flow_size={size}", "text=aligned_phones", "speaker=prompt"]
    cfg = composed(*options, f"max_seconds={seconds}")
    rates = {"sample_rate": 24_000, "hop_length": round(24_000 / frame_rate), "frame_rate": frame_rate}
    cfg.space = {"channels": 32, "fingerprint": "", "kind": "pre", "characters": "a", "phones": PHONES, **rates}
    return cfg


def phones(seconds: float) -> list[tuple[str, float]]:
    """Twelve per second."""
    return [(PHONES.split()[n % 8], n / 12) for n in range(int(12 * seconds))]


@functools.cache
def sampling(size: str, frame_rate: float, seconds: float) -> Callable[..., Any]:
    torch.manual_seed(0)
    flow = built(configuration(size, frame_rate, seconds).flow).eval()
    frames = round(seconds * frame_rate)
    known, span = torch.zeros(1, 32, frames), torch.ones(1, frames, dtype=torch.bool)
    conditioning = {"phones": [phones(seconds)], "prompt": torch.randn(1, 32, round(3 * frame_rate))}
    return functools.partial(flow.inpaint, known, span, conditioning)


def decoding(seconds: float) -> Callable[[], Any]:
    codec = built(composed("model=mimi_continuous").codec).for_inference()
    latents = torch.randn(1, codec.quantizer.latent_dim, round(seconds * CODEC_RATE))

    @torch.inference_mode()
    def run() -> Any:
        return codec.decode_latents(codec.quantizer.from_latents(latents))

    return run


def training(size: str, batch: int, seconds: float) -> Callable[[], Any]:
    torch.manual_seed(0)
    cfg = configuration(size, CODEC_RATE, seconds)
    task = FlowTask(built(cfg.flow), built(cfg.optim))
    optimizer, schedule = task.optim.build(task.learners(), 1000)
    frames = round(seconds * CODEC_RATE)
    latents, everything = torch.randn(batch, 32, frames), torch.ones(batch, dtype=torch.bool)
    span = torch.zeros(batch, frames, dtype=torch.bool)
    span[:, frames // 4 : frames // 2] = True
    conditioning = {"phones": [phones(seconds)] * batch, "prompt": torch.randn(batch, 32, round(2 * CODEC_RATE))}
    data = {"latents": latents, "span": span, "lengths": torch.full((batch,), frames), **conditioning}

    def step() -> None:
        total, _ = task.one_pass(data, torch.randn_like(latents), torch.rand(batch), everything, everything)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()

    return step


def numbers(times: list[tuple[float, float]]) -> dict[str, float]:
    wall, cpu = zip(*times, strict=True)
    found = {"best_s": min(wall), "median_s": statistics.median(wall), "cpu_s": statistics.median(cpu)}
    return {name: round(value, 3) for name, value in found.items()}


def sample(options: argparse.Namespace) -> dict[str, Any]:
    sides: dict[Any, Callable[[], Any]] = {"decoding": decoding(options.seconds)}
    for size in options.sizes:
        for rate in options.rates:
            run = sampling(size, rate, options.seconds)
            run(steps=1)
            sides |= {(size, rate, steps): functools.partial(run, steps=steps) for steps in options.steps}
    sides["decoding"]()
    times = interleaved(sides, options.rounds)
    decoded = times.pop("decoding")
    factor = lambda rows: round(median_wall(rows) / options.seconds, 4)  # noqa: E731
    table = {"decoding": numbers(decoded)}
    for (size, rate, steps), rows in times.items():
        row = table[f"{size} {rate:g} Hz {steps} steps"] = numbers(rows) | {"real_time_factor": factor(rows)}
        if rate == CODEC_RATE:
            both = [(a[0] + b[0], 0.0) for a, b in zip(rows, decoded, strict=True)]
            row |= {"with_decoding": factor(both), "decoding_share": ratio(decoded, both)}
    return table


def train(options: argparse.Namespace) -> dict[str, Any]:
    sides = {size: training(size, options.batch, options.seconds) for size in options.sizes}
    for step in sides.values():
        step()
    times, first = interleaved(sides, options.rounds), options.sizes[0]
    return {
        size: numbers(rows)
        | {f"times_as_long_as_{first}": ratio(rows, times[first])}
        | {"audio_s_per_s": round(options.batch * options.seconds / median_wall(rows), 1)}
        for size, rows in times.items()
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("case", choices=["sample", "train"])
    arguments.add_argument("--sizes", nargs="+", default=["tiny", "small", "base"])
    arguments.add_argument("--rates", type=float, nargs="+", default=[12.5, 25.0, 50.0], help="frames per second")
    arguments.add_argument("--steps", type=int, nargs="+", default=[16, 32], help="of Euler's method")
    arguments.add_argument("--seconds", type=float, default=10.0, help="of audio, of an example")
    arguments.add_argument("--batch", type=int, default=4, help="examples of a training step")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    random.seed(0)
    about = machine() | {"case": options.case, "threads": options.threads, "n": options.rounds}
    show(about | {"results": {"sample": sample, "train": train}[options.case](options)})


if __name__ == "__main__":
    main()
