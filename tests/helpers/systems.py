"""Results of three small systems with audio, and a sweep, with hostile names."""

import math
from pathlib import Path

import pandas
import torch

from codec.evaluation.evaluate import evaluate
from codec.evaluation.html.base import Effect, Grid, SystemResult
from codec.evaluation.metrics.intervals import Interval
from codec.evaluation.metrics.table import METRICS
from codec.evaluation.report import Report
from tests.helpers.speech import RATE, Rounding, clip

FAST = {name: METRICS[name] for name in ("stoi", "si_sdr", "mel_distance")}
EVIL = "<script>document.title = 'broken'</script><img src=x onerror=\"document.title = 'broken'\">'\"&"
CLIPS, AUDIBLE = 8, 3


def rounding_results(folder: Path, bits=(4, 6, 9)) -> list[SystemResult]:
    """Results of rounding to so many bits on the same clips, the first few with audio; the last one is a baseline."""
    clips, results = [clip(i, 1 + 0.1 * i) for i in range(CLIPS)], []
    for i, item in enumerate(clips):  # noise, without which FLAC would be smaller than Opus
        item["wav"] = item["wav"] + 0.06 * torch.randn(item["wav"].shape, generator=torch.Generator().manual_seed(i))
    clips[1]["speaker"], clips[2]["file"] = EVIL, '/data/</script><b>odd/it\'s "2".wav'
    for number in bits:
        place = folder / str(number)
        options = {"workers": 0, "metrics": FAST, "folder": place, "audio": AUDIBLE}
        report = evaluate(Rounding(number), clips, RATE, {}, str(number), **options)
        report.failures += [{"clip": f"lost {i}", "metric": "file", "reason": EVIL} for i in range(number)]
        name = f"{number} bits </script>" if number == 6 else f"{number} bits"
        command = f'python eval.py ckpt="{EVIL}"'
        results.append(SystemResult(name, report, place, "rounding", number == bits[-1], command))
    return results


def stoi_report(count: int, speakers=("s",), offset: float = 0.0) -> Report:
    """A report of so many clips without audio, of these speakers in turn."""
    rows = [[f"c{i}", speakers[i % len(speakers)], 1.0, 0.5 + i / 100 + offset] for i in range(count)]
    return Report(pandas.DataFrame(rows, columns=["clip", "speaker", "seconds", "stoi"]), [], {"kbps": 1.0})


def grid() -> Grid:
    """Four runs, one of them with a score, and an effect of one pair."""
    runs = pandas.DataFrame(
        {
            "name": [f"run-{i}" for i in range(4)],
            "state": ["finished", "failed", "diverged", "unfinished"],
            "reason": ["", f"out of memory {EVIL}", "loss was nan at step 7", "killed"],
            "disc": ["none", "none", "msd", "msd"],
            "command": [f"python train.py disc=x seed={i} 'note={EVIL}'" for i in range(4)],
            "stoi": [0.9, math.nan, math.nan, math.nan],
        }
    )
    effect = Effect("disc", "msd", "none", "stoi", 0.95, Interval(0.05, math.nan, math.nan, 1))
    return Grid(runs, {"disc": ["none", "msd"]}, [effect])
