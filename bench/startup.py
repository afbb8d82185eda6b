"""Start-up times: CPU and wall seconds of commands that should answer at once, each in a fresh process.

    python bench/startup.py --rounds 5

Commands run interleaved, in an order drawn for each round; the first round fills the file cache and is not counted.
Prints JSON: medians over rounds. ``import torch`` is the lower bound of everything that loads a model.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "load_codec": ["-c", "from codec.checkpoints.load import load_codec"],
    "python -m codec --help": ["-m", "codec", "--help"],
    "python train.py --help": ["train.py", "--help"],
    "python train.py disc=misspelt": ["train.py", "disc=misspelt"],
}


def run(arguments: list[str]) -> tuple[float, float]:
    """(CPU, wall) seconds of one process and its children."""
    start, before = time.perf_counter(), os.times()
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    after = os.times()
    if (done.returncode != 0) != ("disc=misspelt" in arguments):
        raise RuntimeError(f"{arguments} ended with status {done.returncode}: {done.stderr[-1000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for n in range(options.rounds + 1):
        for name in random.sample(list(COMMANDS), len(COMMANDS)):
            spent = run(COMMANDS[name])
            if n:
                times[name].append(spent)
    seconds = {
        name: {kind: round(statistics.median(column), 2) for kind, column in zip(("cpu_s", "wall_s"), zip(*rows))}
        for name, rows in times.items()
    }
    print(json.dumps({"n": options.rounds, "load": round(os.getloadavg()[0], 1), "commands": seconds}, indent=2))


if __name__ == "__main__":
    main()
