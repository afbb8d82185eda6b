"""Whole files through full-size Mimi, encoder and decoder: ours beside transformers' MimiModel and moshi, same weights.

    pip install moshi  # optional (MIT; it pins other versions: into an environment of its own, or --target)
    python bench/infer.py --seconds 10 60

Prints JSON: the median of seconds of computing per second of audio, the median ratio to ours of the same round, the
fraction of equal codes, and for each side and length the peak of resident memory in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.common import full_mimi, interleaved, machine, median_wall, noise, parser, peak_mb, ratio, show
from codec.checkpoints.convert.mimi import export_mimi, import_mimi
from codec.checkpoints.load import load_codec

RATE = 24_000
SIDES = ("ours", "ours_bf16", "ours_trained_form", "transformers", "transformers_bf16", "moshi")


def write_weights(folder: Path) -> None:
    """One random Mimi in the formats of all sides."""
    codec = full_mimi()
    export_mimi(codec, folder / "transformers", "transformers")
    export_mimi(codec, folder / "moshi", "moshi")
    imported, config = import_mimi(folder / "moshi")
    state = {f"codec.{name}": value for name, value in imported.state_dict().items()}
    torch.save({"state_dict": state, "config": config, "global_step": 0}, folder / "ours.ckpt")


def make(side: str, folder: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """-> a function wav -> codes that also decodes them."""
    dtype = torch.bfloat16 if side == "transformers_bf16" else torch.float32
    if side.startswith("transformers"):
        from transformers import MimiModel

        model = MimiModel.from_pretrained(folder / "transformers", dtype=dtype).eval()
    elif side == "moshi":
        from moshi.models import loaders

        config = json.loads((folder / "moshi" / "mimi.json").read_text())
        codebooks = config["quantizer"]["n_q"]
        model = loaders.get_mimi(folder / "moshi" / "mimi.safetensors", config, num_codebooks=codebooks).eval()
    else:
        model, _ = load_codec(folder / "ours.ckpt")
        if side != "ours_trained_form":
            model.for_inference(*((torch.bfloat16, torch.bfloat16) if side == "ours_bf16" else ()))

    def run(wav: torch.Tensor) -> torch.Tensor:
        codes = model.encode(wav.to(dtype))
        codes = codes.audio_codes if side.startswith("transformers") else codes
        model.decode(codes)
        return codes

    return run


def peak(side: str, seconds: float, threads: int, folder: Path) -> float:
    """Peak memory in MB of a process that loads one side and runs it once."""
    command = [sys.executable, __file__, "--only", side, "--folder", str(folder)]
    command += ["--seconds", str(seconds), "--threads", str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


@torch.inference_mode()
def compare(options: argparse.Namespace, folder: Path) -> dict[str, dict]:
    runs = {}
    for side in options.sides:
        try:
            runs[side] = make(side, folder)
        except ImportError as error:
            print(f"{side} is left out: {error}", file=sys.stderr)
    lengths = {f"{seconds:g} s": (seconds, noise(round(seconds * RATE))) for seconds in options.seconds}
    codes = {(side, length): run(wav) for side, run in runs.items() for length, (_, wav) in lengths.items()}
    times = interleaved({key: partial(runs[key[0]], lengths[key[1]][1]) for key in codes}, options.rounds)
    table: dict[str, dict] = {length: {} for length in lengths}
    for (side, length), found in codes.items():
        frames, seconds = min(codes[s, length].shape[-1] for s in runs), lengths[length][0]
        equal = (found[..., :frames] == codes["ours", length][..., :frames]).float().mean((0, 2))
        table[length][side] = {
            "real_time_factor": round(median_wall(times[side, length]) / seconds, 4),
            "times_as_long_as_ours": ratio(times[side, length], times["ours", length]),
            "codes_equal_to_ours": [round(float(fraction), 3) for fraction in equal],
            "peak_mb": round(peak(side, seconds, options.threads, folder)),
        }
    return table


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--seconds", type=float, nargs="+", default=[10.0, 60.0])
    arguments.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    arguments.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    if options.only:
        with torch.inference_mode():
            make(options.only, options.folder)(noise(round(options.seconds[0] * RATE)))
        print(peak_mb())
        return
    with tempfile.TemporaryDirectory() as folder:
        write_weights(Path(folder))
        lengths = compare(options, Path(folder))
    show(machine() | {"threads": options.threads, "n": options.rounds, "lengths": lengths})


if __name__ == "__main__":
    main()
