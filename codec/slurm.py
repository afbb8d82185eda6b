"""A SLURM job that was told in time that it must end: saved, and back in the queue."""

import logging
import os
import signal
import subprocess

import lightning
from lightning.pytorch.plugins.environments import SLURMEnvironment

from codec.saving import LeaveOnSignal

PATIENCE = 60  # seconds for an answer of scontrol

log = logging.getLogger(__name__)


class RequeueOnSignal(LeaveOnSignal):
    """:class:`LeaveOnSignal`, where SIGUSR1 also puts the job back in the queue (``sbatch --signal=SIGUSR1@90``).

    With ``ckpt_path=auto`` (``trainer=slurm``) the job then goes on from what was saved. SIGTERM, with which SLURM ends
    a job that somebody has cancelled, does not.
    """

    def leave(self, trainer: lightning.Trainer, number: signal.Signals) -> None:
        if number == signal.SIGUSR1:
            if trainer.is_global_zero:
                requeue()
            trainer.strategy.barrier("requeue")  # srun ends all processes as soon as one of them leaves
        super().leave(trainer, number)


def requeue() -> bool:
    """Put the job of this process back in SLURM's queue; False, and a warning, where that fails.

    Nothing happens, and False is returned, outside of a job and in an interactive one, which nobody would start again.
    """
    if SLURMEnvironment.job_id() is None:
        return False
    job, array = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        run = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=PATIENCE)
        failure = (run.stderr.strip() or f"status {run.returncode}").splitlines()[0] if run.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    if failure:
        log.warning("job %s is not queued again (scontrol requeue: %s): submit it anew, and it goes on", job, failure)
        return False
    log.info("job %s is queued again, and goes on from there", job)
    return True
