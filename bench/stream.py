"""One frame of 80 ms through full-size Mimi, encoder and decoder, on one thread: ours beside moshi's own streaming.

    pip install moshi  # for the other side (MIT; it pins other versions: into an environment of its own, or --target)
    python bench/stream.py --frames 100

Both have the same random weights and hear the same noise; their frames alternate in one process, so that a noisy
machine hits both. The caches are filled (10 s) before anything is timed. Prints JSON: median, p99 and share of real
time (80 ms) of each side, the median ratio of neighbouring frames, and the share of equal codes for each codebook.
"""

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from codec.checkpoints.convert.mimi import export_mimi
from codec.model import Codec
from tests.helpers.parts import full_mimi

HOP = 1920


class Ours:
    def __init__(self, codec: Codec, encoder: torch.dtype = torch.float32, decoder: torch.dtype = torch.float32):
        self.stream = copy.deepcopy(codec).for_inference(encoder, decoder).streaming()

    def __call__(self, wav: torch.Tensor) -> torch.Tensor:
        codes = self.stream.encode(wav)
        self.stream.decode(codes)
        return codes


class Moshi:
    def __init__(self, codec: Codec):
        from moshi.models import loaders

        with tempfile.TemporaryDirectory() as folder:
            weights, config = export_mimi(codec, folder, "moshi")
            options = json.loads(config.read_text())
            self.model = loaders.get_mimi(weights, options, num_codebooks=codec.quantizer.n_q).eval()
        self.model.streaming_forever(1)

    def __call__(self, wav: torch.Tensor) -> torch.Tensor:
        codes = self.model.encode(wav)
        self.model.decode(codes)
        return codes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    codec = full_mimi()
    low = torch.bfloat16
    sides = {"ours": Ours(codec), "ours_bf16_decoder": Ours(codec, decoder=low), "ours_bf16": Ours(codec, low, low)}
    try:
        sides["moshi"] = Moshi(codec)
    except ImportError:
        print("moshi is not installed: there is no other side", file=sys.stderr)
    del codec
    warm, frames = 130, options.frames  # 10.4 s: beyond the 250 steps of context
    noise = 0.3 * torch.randn(1, 1, (warm + frames) * HOP, generator=torch.Generator().manual_seed(0))
    seconds, codes = {name: [] for name in sides}, {name: [] for name in sides}
    with torch.inference_mode():
        for n, frame in enumerate(noise.split(HOP, dim=-1)):
            for name, side in sides.items():
                start = time.perf_counter()
                found = side(frame)
                if n >= warm:
                    seconds[name].append(time.perf_counter() - start)
                codes[name].append(found)
    result = {"torch": torch.__version__, "threads": options.threads, "n": frames, "sides": {}}
    reference = torch.cat(codes["ours"], -1)
    for name, values in seconds.items():
        ordered = sorted(values)
        equal = (torch.cat(codes[name], -1) == reference).float().mean((0, 2))
        result["sides"][name] = {
            "median_ms": round(1e3 * statistics.median(values), 1),
            "p99_ms": round(1e3 * ordered[int(0.99 * (frames - 1))], 1),
            "real_time_factor": round(statistics.median(values) / 0.08, 3),
            "times_as_long_as_ours": round(
                statistics.median(b / a for a, b in zip(seconds["ours"], values, strict=True)), 2
            ),
            "codes_equal_to_ours": [round(float(share), 3) for share in equal],
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
