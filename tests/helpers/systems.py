"""Three systems with their reports and their sound, and a sweep, small and with awkward names."""

import math
from pathlib import Path

import pandas
import torch

from codec.evaluation.evaluate import evaluate
from codec.evaluation.html.base import Effect, Entry, Grid
from codec.evaluation.metrics.intervals import Interval
from codec.evaluation.metrics.table import METRICS
from tests.helpers.speech import RATE, Rounding, clip

FAST = {name: METRICS[name] for name in ("stoi", "si_sdr", "mel_distance")}
EVIL = "<script>document.title = 'broken'</script><img src=x onerror=\"document.title = 'broken'\">'\"&"
CLIPS, HEARD = 8, 3


def systems(folder: Path, bits=(4, 6, 9), seconds: float = 1.0) -> list[Entry]:
    """The last one is a baseline; all have the same clips, the first few with sound."""
    made = []
    for number in bits:
        items = [noisy(clip(i, seconds + 0.1 * i), i) for i in range(CLIPS)]
        items[1]["speaker"], items[2]["file"] = EVIL, '/data/</script><b>odd/it\'s "2".wav'
        place, system = folder / str(number), Rounding(number)
        report = evaluate(system, items, RATE, {}, str(number), 0, FAST, folder=place, audio=HEARD)
        report.failures += [{"clip": f"lost {i}", "metric": "file", "reason": EVIL} for i in range(number)]
        name = f"{number} bits </script>" if number == 6 else f"{number} bits"
        entry = Entry(name, report, place, "rounding", number == bits[-1], f'python eval.py ckpt="{EVIL}"')
        made.append(entry)
    return made


def noisy(item: dict, seed: int) -> dict:
    """The clip with noise, without which FLAC would be smaller than Opus."""
    noise = torch.randn(item["wav"].shape, generator=torch.Generator().manual_seed(seed))
    return item | {"wav": item["wav"] + 0.06 * noise}


def grid() -> Grid:
    """Four runs, one of them with a score, and an effect of one pair."""
    states = ["finished", "failed", "diverged", "unfinished"]
    runs = pandas.DataFrame(
        {
            "name": [f"run-{i}" for i in range(4)],
            "state": states,
            "reason": ["", f"out of memory {EVIL}", "loss was nan at step 7", "killed"],
            "disc": ["none", "none", "msd", "msd"],
            "command": [f"python train.py disc=x seed={i} 'note={EVIL}'" for i in range(4)],
            "stoi": [0.9, math.nan, math.nan, math.nan],
        }
    )
    effect = Effect("disc", "msd", "none", "stoi", 0.95, Interval(0.05, math.nan, math.nan, 1))
    return Grid(runs, {"disc": ["none", "msd"]}, [effect])
