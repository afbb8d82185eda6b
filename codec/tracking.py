"""A report in the W&B run that it belongs to, while that run goes on or after it has ended."""

import sys
from typing import Any

from codec.report import Report
from codec.runs import Run


def log_now(name: str, report: Report) -> None:
    """:func:`log_report` to the W&B run of this process, where there is one."""
    if "wandb" in sys.modules and sys.modules["wandb"].run is not None:
        log_report(sys.modules["wandb"].run, name, report)


def log_report(run: Any, name: str, report: Report) -> None:
    """Log means under ``NAME/METRIC`` and the table of clips under ``NAME/clips``.

    Args:
        run: a run of W&B (``wandb.run``).
    """
    import wandb  # slow to import, and only with logger=wandb

    clips = wandb.Table(dataframe=report.clips.astype({"speaker": str}))
    means = {f"{name}/{metric}": entry["mean"] for metric, entry in report.summary().items()}
    rates = {f"{name}/{fact}": report.facts[fact] for fact in ("kbps", "entropy_kbps") if report.facts.get(fact)}
    run.log({**means, **rates, f"{name}/clips": clips})


def log_later(run: Run, name: str, report: Report) -> bool:
    """:func:`log_report` to the W&B run of a run that has ended; False where it was not logged to W&B.

    Offline, W&B writes what is added into a folder of its own beside the first, of the same run id: ``wandb sync``
    takes both.
    """
    folders = sorted(run.folder.glob("wandb/*run-*-*"))
    if not folders:
        return False
    import wandb

    last = folders[-1].name
    mode = "offline" if last.startswith("offline-") else "online"
    project = run.config["logger"]["wandb"]["project"]
    with wandb.init(project=project, id=last.rpartition("-")[2], resume="allow", dir=run.folder, mode=mode) as again:
        log_report(again, name, report)
    return True
