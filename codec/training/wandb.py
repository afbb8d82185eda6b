"""Weights & Biases: a logger that records no secrets, and logging of evaluation reports."""

import logging
import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.loggers import WandbLogger as LightningLogger

from codec.evaluation.report import Report
from codec.evaluation.runs.run_folder import Run
from codec.utils.errors import InputError
from codec.utils.redact import redact_arguments

FOLDER = re.compile(r"(?P<offline>offline-)?run-(?P<time>\d{8}_\d{6})-(?P<id>.+)")  # folder of a W&B run
log = logging.getLogger(__name__)


class WandbLogger(LightningLogger):
    """Lightning's W&B logger, which removes secrets from the command line before W&B records it."""

    @property
    def experiment(self) -> Any:
        # not earlier: Lightning starts the other ranks with the arguments of this process
        redact_arguments()
        try:
            return super().experiment
        except Exception as error:  # of W&B: no login, no network
            if not type(error).__module__.startswith("wandb."):
                raise
            raise InputError(
                f"W&B cannot be reached ({error}): `wandb login`, or log without it, logger.wandb.offline=true"
            ) from error


def log_report(run: Any, name: str, report: Report) -> None:
    """Log means as ``NAME/METRIC`` and the table of clips as ``NAME/clips`` to ``run``, a ``wandb.Run``."""
    import wandb  # slow to import, and only with logger=wandb

    means = {f"{name}/{metric}": entry["mean"] for metric, entry in report.summary().items()}
    rates = {fact: report.facts.get(fact) for fact in ("kbps", "entropy_kbps")}
    means |= {f"{name}/{fact}": rate for fact, rate in rates.items() if rate is not None and math.isfinite(rate)}
    run.log({**means, f"{name}/clips": wandb.Table(dataframe=report.clips.astype({"speaker": str}))})


def log_now(name: str, report: Report) -> None:
    """Log a report to the active W&B run of this process, if any."""
    if "wandb" in sys.modules and sys.modules["wandb"].run is not None:
        log_report(sys.modules["wandb"].run, name, report)


def log_later(run: Run, name: str, report: Report) -> bool:
    """Log a report to the W&B run of a finished training run; returns whether it was logged. Warns if W&B fails.

    Offline, W&B writes a second folder with the same run id; ``wandb sync`` uploads both.
    """
    options = run.config.get("logger", {}).get("wandb", {})
    parts = [found for folder in run.folder.glob("wandb/*run-*-*") if (found := FOLDER.fullmatch(folder.name))]
    if not parts or not options:
        return False
    # The first part: to a folder created in the same second W&B appends a number.
    first = min(parts, key=lambda part: (part["time"], len(part["id"])))
    import wandb

    options = {"project": options.get("project"), "entity": options.get("entity"), "id": first["id"]}
    options |= {"mode": "offline" if first["offline"] else "online", "dir": run.folder, "resume": "allow"}
    redact_arguments()  # W&B records them
    try:
        with wandb.init(**options) as resumed:
            log_report(resumed, name, report)
    except Exception as error:  # no login, no network, a run that was deleted
        log.warning("%s: not logged to W&B: %s", run.folder, str(error).splitlines()[0])
        return False
    return True


@contextmanager
def ending_wandb() -> Iterator[None]:
    """Finish the W&B run with this training run, or the next run of a sweep in this process would continue it."""
    code = 1
    try:
        yield
        code = 0
    finally:
        if "wandb" in sys.modules:
            sys.modules["wandb"].finish(exit_code=code)
