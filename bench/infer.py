"""Whole files through full-size Mimi, encoder and decoder: ours beside transformers' MimiModel and moshi, same weights.

    pip install moshi  # optional (MIT; it pins other versions: into an environment of its own, or --target)
    python bench/infer.py --seconds 10 60

One round runs every side once at every length, in an order drawn for each round. Prints JSON: the median of seconds of
computing per second of audio, the median ratio to ours of the same round, the share of equal codes, and for each side
and length the peak of resident memory, measured in a process of its own that does nothing else.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from codec.checkpoints.convert.mimi import export_mimi, import_mimi
from codec.checkpoints.load import load_codec
from tests.helpers.parts import full_mimi

RATE = 24_000
SIDES = ("ours", "ours_bf16", "ours_trained_form", "transformers", "transformers_bf16", "moshi")


def write_weights(folder: Path) -> None:
    """One random Mimi, for every side in its own files."""
    codec = full_mimi()
    export_mimi(codec, folder / "transformers", "transformers")
    export_mimi(codec, folder / "moshi", "moshi")
    imported, config = import_mimi(folder / "moshi")
    state = {f"codec.{name}": value for name, value in imported.state_dict().items()}
    torch.save({"state_dict": state, "config": config, "global_step": 0}, folder / "ours.ckpt")


def make(side: str, folder: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """-> a function wav -> codes that also decodes them."""
    if side.startswith("transformers"):
        from transformers import MimiModel

        dtype = torch.bfloat16 if side.endswith("bf16") else torch.float32
        model = MimiModel.from_pretrained(folder / "transformers", dtype=dtype).eval()

        def run(wav: torch.Tensor) -> torch.Tensor:
            codes = model.encode(wav.to(dtype)).audio_codes
            model.decode(codes)
            return codes

        return run
    if side == "moshi":
        from moshi.models import loaders

        config = json.loads((folder / "moshi" / "mimi.json").read_text())
        codebooks = config["quantizer"]["n_q"]
        model = loaders.get_mimi(folder / "moshi" / "mimi.safetensors", config, num_codebooks=codebooks).eval()
    else:
        model, _ = load_codec(folder / "ours.ckpt")
        if side != "ours_trained_form":
            low = (torch.bfloat16, torch.bfloat16) if side == "ours_bf16" else ()
            model.for_inference(*low)

    def run(wav: torch.Tensor) -> torch.Tensor:
        codes = model.encode(wav)
        model.decode(codes)
        return codes

    return run


def noise(seconds: float) -> torch.Tensor:
    return 0.3 * torch.randn(1, 1, round(seconds * RATE), generator=torch.Generator().manual_seed(0))


def available(sides: list[str]) -> list[str]:
    try:
        import moshi  # noqa: F401
    except ImportError:
        print("moshi is not installed: that side is missing", file=sys.stderr)
        return [side for side in sides if side != "moshi"]
    return sides


def peak(side: str, seconds: float, threads: int, folder: Path) -> float:
    """Megabytes of resident memory at their highest, of a process that loads one side and runs it once."""
    command = [sys.executable, __file__, "--only", side, "--folder", str(folder)]
    command += ["--seconds", str(seconds), "--threads", str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10.0, 60.0])
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.only:
        with torch.inference_mode():
            make(options.only, options.folder)(noise(options.seconds[0]))
        status = Path("/proc/self/status").read_text()  # getrusage would tell the peak of the process that forked
        print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_weights(Path(folder))
        compare(options, Path(folder))


def compare(options: argparse.Namespace, folder: Path) -> None:
    random.seed(0)
    sides = {side: make(side, folder) for side in available(options.sides)}
    times = {(side, seconds): [] for side in sides for seconds in options.seconds}
    codes = {}
    with torch.inference_mode():
        for run in sides.values():
            run(noise(1.0))
        for _ in range(options.rounds):
            for side, seconds in random.sample(list(times), len(times)):
                wav = noise(seconds)
                start = time.perf_counter()
                codes[side, seconds] = sides[side](wav)
                times[side, seconds].append((time.perf_counter() - start) / seconds)
    result = {"torch": torch.__version__, "threads": options.threads, "n": options.rounds, "lengths": {}}
    for seconds in options.seconds:
        table = result["lengths"][f"{seconds:g} s"] = {}
        for side in sides:
            frames = min(codes[s, seconds].shape[-1] for s in sides)
            reference = codes["ours", seconds][..., :frames]
            equal = (codes[side, seconds][..., :frames] == reference).float().mean((0, 2))
            ratios = [b / a for a, b in zip(times["ours", seconds], times[side, seconds], strict=True)]
            table[side] = {
                "real_time_factor": round(statistics.median(times[side, seconds]), 4),
                "times_as_long_as_ours": round(statistics.median(ratios), 2),
                "codes_equal_to_ours": [round(float(share), 3) for share in equal],
                "peak_mb": round(peak(side, seconds, options.threads, folder)),
            }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
