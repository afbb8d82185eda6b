"""Quality that a recipe reaches in a given time: train, then score on other recordings. JSON with intervals.

    python bench/quality.py --train DIR --test DIR experiment=tiny_20min
    python bench/quality.py model=soundstream_tiny max_steps=300          # generated speech, held-out voices

Further arguments go to train.py. The curve is of clips held out from the training data; the test scores are of the
averaged weights on all recordings of --test.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def program(name: str, *arguments: str) -> float:
    """Run it -> seconds."""
    start = time.monotonic()
    subprocess.run([sys.executable, str(ROOT / name), *arguments], check=True, stdout=sys.stderr)
    return time.monotonic() - start


def curve(run: Path) -> list[dict[str, float]]:
    """The scored validations, as {step, pesq_wb, stoi, mel_distance}."""
    with open(run / "csv" / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/stoi")]
    names = ("pesq_wb", "stoi", "mel_distance")
    return [{"step": int(r["step"]) + 1} | {n: round(float(r[f"val/{n}"]), 4) for n in names} for r in rows]


def folder(path: str | None, *more: str) -> list[str]:
    return ["dataset=folder", f"dataset.path={Path(path).resolve()}", *more] if path else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", help="folder of recordings; default: generated speech")
    parser.add_argument("--test", help="folder of other recordings; default: what training held out")
    parser.add_argument("--run-dir", default=None)
    options, overrides = parser.parse_known_args()
    run = Path(options.run_dir or tempfile.mkdtemp(prefix="quality-"))
    seconds = program("train.py", *overrides, *folder(options.train), f"run_dir={run}")
    test = folder(options.test, "dataset.holdout=1")
    program("eval.py", f"ckpt={run / 'checkpoints' / 'last.ckpt'}", *test, f"out={run / 'test'}")
    report = json.loads(next(p for p in (run / "test").glob("*.json") if p.name != "timing.json").read_text())
    result = {"overrides": overrides, "train_minutes": round(seconds / 60, 2), "curve": curve(run)}
    print(json.dumps(result | {"test": report["summary"], "facts": report["facts"]}, indent=2))


if __name__ == "__main__":
    main()
