"""Weights & Biases: a logger that records no secrets, and reports in the run that they belong to."""

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
from codec.utils.redact import redact_arguments

FOLDER = re.compile(r"(?P<offline>offline-)?run-(?P<time>\d{8}_\d{6})-(?P<id>.+)")  # of a run of W&B
log = logging.getLogger(__name__)


class WandbLogger(LightningLogger):
    """Lightning's logger, which removes secrets from the arguments of this process before W&B records them.

    Only then, because Lightning starts the other processes of a run with the arguments of the first.
    """

    @property
    def experiment(self) -> Any:
        redact_arguments()
        return super().experiment


def log_report(run: Any, name: str, report: Report) -> None:
    """Log means under ``NAME/METRIC`` and the table of clips under ``NAME/clips`` to ``run``, a ``wandb.Run``."""
    import wandb  # slow to import, and only with logger=wandb

    means = {f"{name}/{metric}": entry["mean"] for metric, entry in report.summary().items()}
    rates = {fact: report.facts.get(fact) for fact in ("kbps", "entropy_kbps")}
    means |= {f"{name}/{fact}": rate for fact, rate in rates.items() if rate is not None and math.isfinite(rate)}
    run.log({**means, f"{name}/clips": wandb.Table(dataframe=report.clips.astype({"speaker": str}))})


def log_now(name: str, report: Report) -> None:
    """:func:`log_report` to the W&B run of this process, where there is one."""
    if "wandb" in sys.modules and sys.modules["wandb"].run is not None:
        log_report(sys.modules["wandb"].run, name, report)


def log_later(run: Run, name: str, report: Report) -> bool:
    """:func:`log_report` to the W&B run of a run that has ended -> whether it was logged.

    Offline, W&B writes additions into a second folder with the same run id: ``wandb sync`` takes both. If W&B cannot
    be reached, a warning says so.
    """
    options = run.config.get("logger", {}).get("wandb", {})
    parts = [found for folder in run.folder.glob("wandb/*run-*-*") if (found := FOLDER.fullmatch(folder.name))]
    if not parts or not options:
        return False
    # of the first part: W&B adds a number to the name of another that begins in the same second
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
    """End the W&B run, where there is one, with this run: the next of a sweep in this process would continue it."""
    code = 1
    try:
        yield
        code = 0
    finally:
        if "wandb" in sys.modules:
            sys.modules["wandb"].finish(exit_code=code)
