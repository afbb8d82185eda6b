"""A flow model's training step, and sampling ten seconds of latents: sizes, frame rates and numbers of steps.

    python bench/flow.py sample                                    # all of them; some minutes a round on two cores
    python bench/flow.py sample --rates 12.5 --sizes base --rounds 5
    python bench/flow.py train --batch 4

Weights are random, on which time does not depend. The model has aligned phones and a prompt, with guidance, so that
each step is a pass over two examples; nothing is known of the latents. At 12.5 Hz their decoding with
model=mimi_continuous is timed in every round, too. The sides run interleaved in one process, in an order drawn for each
round. Prints JSON:
seconds (best and median of the rounds), processor seconds (which others on the machine disturb less), and the
real-time factor, seconds of computing for each second of audio, of sampling and of sampling with decoding. Ratios are
medians of each round's.
"""

import argparse
import functools
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize
from hydra.utils import instantiate

sys.path.insert(0, str(Path(__file__).parents[1]))

from codec.flow.model import FlowModel
from codec.flow.task import FlowTask
from codec.model import Codec

CODEC_RATE = 12.5  # frames per second of mimi_continuous
PHONES = "a b c d e f g h"


def configuration(size: str, frame_rate: float, seconds: float) -> Any:
    with initialize(version_base="1.3", config_path="../conf"):
        options = ["task=flow", "codec_ckpt=none", f"flow_size={size}"]
        options += ["text=aligned_phones", "speaker=prompt"]
        cfg = compose("train", [*options, f"max_seconds={seconds}"])
    rates = {"sample_rate": 24_000, "hop_length": round(24_000 / frame_rate), "frame_rate": frame_rate}
    cfg.space = {"channels": 32, "fingerprint": "", "kind": "pre", "characters": "a", "phones": PHONES, **rates}
    return cfg


def phones(seconds: float) -> list[tuple[str, float]]:
    """Twelve in a second."""
    return [(PHONES.split()[n % 8], n / 12) for n in range(int(12 * seconds))]


@functools.cache
def sampling(size: str, frame_rate: float, seconds: float) -> Callable[..., Any]:
    torch.manual_seed(0)
    flow: FlowModel = instantiate(configuration(size, frame_rate, seconds).flow, _convert_="all").eval()
    frames = round(seconds * frame_rate)
    known, span = torch.zeros(1, 32, frames), torch.ones(1, frames, dtype=torch.bool)
    given = {"phones": [phones(seconds)], "prompt": torch.randn(1, 32, round(3 * frame_rate))}
    return functools.partial(flow.inpaint, known, span, given)


def decoding(seconds: float) -> Callable[[], Any]:
    with initialize(version_base="1.3", config_path="../conf"):
        codec: Codec = instantiate(compose("train", ["model=mimi_continuous"]).codec, _convert_="all")
    codec.for_inference()
    latents = torch.randn(1, codec.quantizer.latent_dim, round(seconds * CODEC_RATE))

    @torch.inference_mode()
    def run() -> Any:
        return codec.decode_latents(codec.quantizer.from_latents(latents))

    return run


def training(size: str, batch: int, seconds: float) -> Callable[[], Any]:
    torch.manual_seed(0)
    cfg = configuration(size, CODEC_RATE, seconds)
    task = FlowTask(instantiate(cfg.flow, _convert_="all"), instantiate(cfg.optim, _convert_="all"))
    optimizer, schedule = task.optim.build({"flow": task.flow}, 1000)
    frames = round(seconds * CODEC_RATE)
    latents, everything = torch.randn(batch, 32, frames), torch.ones(batch, dtype=torch.bool)
    span = torch.zeros(batch, frames, dtype=torch.bool)
    span[:, frames // 4 : frames // 2] = True
    told = {"phones": [phones(seconds)] * batch, "prompt": torch.randn(batch, 32, round(2 * CODEC_RATE))}
    data = {"latents": latents, "span": span, "lengths": torch.full((batch,), frames), **told}

    def step() -> None:
        total, _ = task.one_pass(data, torch.randn_like(latents), torch.rand(batch), everything, everything)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()

    return step


def measure(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """(seconds, processor seconds) of each round."""
    spent = {name: [] for name in sides}
    for n in range(rounds):
        for name in random.sample(list(sides), len(sides)):
            start = time.perf_counter(), time.process_time()
            sides[name]()
            spent[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
            print(f"round {n} {name}", file=sys.stderr, flush=True)
    return spent


def numbers(spent: list[tuple[float, float]]) -> dict[str, float]:
    wall, cpu = zip(*spent, strict=True)
    found = {"best_s": min(wall), "median_s": statistics.median(wall), "cpu_s": statistics.median(cpu)}
    return {name: round(value, 3) for name, value in found.items()}


def sample(options: argparse.Namespace) -> dict[str, Any]:
    grid = [(size, rate, steps) for size in options.sizes for rate in options.rates for steps in options.steps]
    sides = {}
    for size, rate, steps in grid:
        run = sampling(size, rate, options.seconds)
        run(steps=1)
        sides[f"{size} {rate:g} Hz {steps} steps"] = functools.partial(run, steps=steps)
    sides["decoding"] = decoding(options.seconds)
    sides["decoding"]()
    spent, table = measure(sides, options.rounds), {}
    decoded = spent.pop("decoding")
    for (_, rate, _), (name, own) in zip(grid, spent.items(), strict=True):
        factor = lambda seconds: round(statistics.median(seconds) / options.seconds, 4)  # noqa: E731
        table[name] = numbers(own) | {"real_time_factor": factor([wall for wall, _ in own])}
        if rate == CODEC_RATE:
            both = [own[0] + more[0] for own, more in zip(own, decoded, strict=True)]
            table[name]["with_decoding"] = factor(both)
            table[name]["decoding_share"] = round(statistics.median(d[0] / b for d, b in zip(decoded, both)), 3)
    return table | {"decoding": numbers(decoded)}


def train(options: argparse.Namespace) -> dict[str, Any]:
    sides = {size: training(size, options.batch, options.seconds) for size in options.sizes}
    for step in sides.values():
        step()
    spent = measure(sides, options.rounds)
    first = spent[options.sizes[0]]
    table = {}
    for size, own in spent.items():
        ratio = statistics.median(b[0] / a[0] for a, b in zip(first, own, strict=True))
        audio = options.batch * options.seconds / statistics.median(wall for wall, _ in own)
        table[size] = numbers(own) | {f"times_as_long_as_{options.sizes[0]}": round(ratio, 2)}
        table[size]["audio_s_per_s"] = round(audio, 1)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=["sample", "train"])
    parser.add_argument("--sizes", nargs="+", default=["tiny", "small", "base"])
    parser.add_argument("--rates", type=float, nargs="+", default=[12.5, 25.0, 50.0], help="frames per second")
    parser.add_argument("--steps", type=int, nargs="+", default=[16, 32], help="of Euler's method")
    parser.add_argument("--seconds", type=float, default=10.0, help="of audio, of an example")
    parser.add_argument("--batch", type=int, default=4, help="examples of a training step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    random.seed(0)
    about = {"case": options.case, "torch": torch.__version__, "threads": options.threads, "n": options.rounds}
    about["load_before"] = os.getloadavg()
    table = {"sample": sample, "train": train}[options.case](options)
    print(json.dumps(about | {"load_after": os.getloadavg(), "results": table}, indent=2))


if __name__ == "__main__":
    main()
