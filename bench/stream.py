"""One frame of 80 ms through full-size Mimi, encoder and decoder, on one thread: ours beside moshi's own streaming.

    pip install moshi  # for the other side (MIT; it pins other versions: into an environment of its own, or --target)
    python bench/stream.py --frames 100

Both have the same random weights and input; their frames alternate in one process. Caches are filled (10 s) before the
first measurement. Prints JSON: median, p99 and real-time factor of each side, the median ratio of neighbouring frames,
and the fraction of equal codes for each codebook.
"""

import copy
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.common import full_mimi, machine, noise, parser, show
from codec.checkpoints.convert.mimi import export_mimi
from codec.model import Codec

HOP = 1920
WARM = 130  # frames, 10.4 s: beyond the 250 steps of context


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
    arguments = parser(__doc__)
    arguments.add_argument("--frames", type=int, default=100)
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    codec, low = full_mimi(), torch.bfloat16
    sides = {"ours": Ours(codec), "ours_bf16_decoder": Ours(codec, decoder=low), "ours_bf16": Ours(codec, low, low)}
    try:
        sides["moshi"] = Moshi(codec)
    except ImportError:
        print("moshi is not installed: there is no other side", file=sys.stderr)
    del codec
    seconds, codes = {name: [] for name in sides}, {name: [] for name in sides}
    with torch.inference_mode():
        for frame in noise((WARM + options.frames) * HOP).split(HOP, dim=-1):
            for name, side in sides.items():
                start = time.perf_counter()
                codes[name].append(side(frame))
                seconds[name].append(time.perf_counter() - start)
    result = machine() | {"threads": options.threads, "n": options.frames, "sides": {}}
    first, reference = seconds["ours"][WARM:], torch.cat(codes["ours"], -1)
    for name in sides:
        values = seconds[name][WARM:]
        equal = (torch.cat(codes[name], -1) == reference).float().mean((0, 2))
        ratios = [b / a for a, b in zip(first, values, strict=True)]
        result["sides"][name] = {
            "median_ms": round(1e3 * statistics.median(values), 1),
            "p99_ms": round(1e3 * sorted(values)[int(0.99 * (options.frames - 1))], 1),
            "real_time_factor": round(statistics.median(values) / 0.08, 3),
            "times_as_long_as_ours": round(statistics.median(ratios), 2),
            "codes_equal_to_ours": [round(float(fraction), 3) for fraction in equal],
        }
    show(result)


if __name__ == "__main__":
    main()
