"""Run folders as train.py and Hydra write them, without training."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas
import yaml

from codec.evaluation.report import Report
from codec.evaluation.runs.run_folder import Run, find_runs

STEPS = 100
ERROR = "[2026-01-02 03:04:05,678][train][ERROR] - error: "
INFO = "[2026-01-02 03:04:05,678][train][INFO] - encoder   45,320 parameters  codec.encoders.seanet.SEANetEncoder\n"


def report(scores: Mapping[str, float], step: int = STEPS, clips: Sequence[str] = ("a", "b"), **facts: Any) -> Report:
    """A report with these means: one clip is 0.25 above, one 0.25 below."""
    table = pandas.DataFrame({"clip": list(clips), "speaker": "s", "seconds": 1.0})
    for metric, mean in scores.items():
        table[metric] = [mean + (0.25 if n % 2 else -0.25) for n in range(len(clips))]
    return Report(table, [], {"step": step, **facts})


def write_run(
    folder: Path,
    overrides: Sequence[str] = (),
    groups: Mapping[str, str | None] | None = None,
    config: Mapping[str, Any] | None = None,
    scores: Mapping[str, float] | None = None,
    losses: Sequence[Mapping[str, Any]] = ({"step": 99, "train/mel": 1.5},),
    log: str = INFO,
    **about_report: Any,
) -> Path:
    """A run of ``STEPS`` steps. scores: of its report, None: no report; losses: rows of its CSV; log: of its job."""
    folder.mkdir(parents=True)
    resolved = {"seed": 0, "max_steps": STEPS, "run_dir": str(folder), "name": "x", **(config or {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False))
    (folder / "parts.json").write_text("{}")
    write_hydra(folder, overrides, groups or {}, resolved)
    (folder / "train.log").write_text(log)
    write_csv(folder / "csv" / "metrics.csv", losses)
    if scores is not None:
        report(scores, **about_report).write(folder)
    return folder


def write_hydra(folder: Path, overrides: Sequence[str], groups: Mapping[str, str | None], config: Mapping) -> None:
    hydra = {"job": {"name": "train"}, "runtime": {"choices": {**groups, "hydra/launcher": "basic"}}}
    composed = {**config, "run_dir": "${hydra:runtime.output_dir}"}
    (folder / ".hydra").mkdir(parents=True)
    for name, content in {"overrides": list(overrides), "hydra": {"hydra": hydra}, "config": composed}.items():
        (folder / ".hydra" / f"{name}.yaml").write_text(yaml.safe_dump(content))


def write_csv(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """As Lightning does: empty where nothing was logged, ``nan`` for a NaN."""
    file.parent.mkdir(exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(str(row.get(column, "")) for column in columns) for row in rows]
    file.write_text("\n".join([",".join(columns), *lines]) + "\n")


DISC = {"msd": 0.5, "none": 0.0, "mfd": -0.25}
LR = {"0.1": 0.0, "0.2": 2.0}
SEED = {0: 1.0, 1: 3.0}


def write_grid(folder: Path, noise=lambda disc, lr, seed: 0.0, failed=(), **about: Any) -> list[Run]:
    """Runs whose metrics are the sum of what each of their settings adds (DISC, LR, SEED), and noise."""
    for n, (disc, lr, seed) in enumerate(itertools.product(DISC, LR, SEED)):
        score = DISC[disc] + LR[lr] + SEED[seed] + noise(disc, lr, seed)
        outcome = {"scores": {"stoi": score, "mel_distance": -score}}
        if (disc, lr, seed) in failed:
            outcome = {"log": f"{ERROR}no memory\n"}
        config = {"lr": float(lr), "seed": seed, "disc": {"x": disc}}
        overrides = [f"disc={disc}", f"lr={lr}", f"seed={seed}"]
        write_run(folder / str(n), overrides, {"disc": disc}, config, **outcome, **about)
    return find_runs([folder])
