"""Preemption: a checkpoint at the last step and on a signal, and a SLURM job that requeues itself.

Lightning counts on a checkpoint having been saved from ``on_train_batch_end`` when it resumes: one saved after ``fit``
would log one step too high, and one saved in a signal handler holds half of a step.
"""

import logging
import os
import signal
import subprocess
import threading
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import SLURMEnvironment

from codec.checkpoints.lightning_plugin import require_saved

LEFT = 75  # exit code of a run that left on a signal: sysexits.h's EX_TEMPFAIL, "the user is invited to retry"


SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


log = logging.getLogger(__name__)


class SaveLastStep(Callback):
    """Saves the last step, which no validation need follow. Raises StorageError if that fails.

    Args:
        path: of the checkpoint.
    """

    def __init__(self, path: str):
        self.path = path

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step >= trainer.max_steps:
            trainer.save_checkpoint(self.path)
            require_saved(trainer)


class LeaveOnSignal(Callback):
    """SIGTERM or SIGUSR1 to any process: all finish the step, save it, and exit with status 75 (:data:`LEFT`).

    Whoever listened to the signal before training began gets it once the checkpoint has been written, and decides how
    to go on: submitit puts the job back in SLURM's queue. Lightning's own handlers stay out, those for SLURM as well:
    they save in the middle of a step.

    Args:
        path: of the checkpoint.
        run_dir: of the run, for the sentence that says how to go on.
    """

    def __init__(self, path: str, run_dir: str):
        self.path, self.run_dir = path, run_dir
        self.received: int | None = None
        self.before: dict[int, Any] = {}

    def setup(self, trainer: lightning.Trainer, task: lightning.LightningModule, stage: str) -> None:
        self.before = {number: signal.getsignal(number) for number in SIGNALS}
        environment = trainer._accelerator_connector.cluster_environment  # nothing public names it for one process
        if isinstance(environment, SLURMEnvironment):
            environment.auto_requeue = False

    def on_train_start(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        self.received = None
        if threading.current_thread() is threading.main_thread():  # Python gives signals to no other
            for number in SIGNALS:
                signal.signal(number, self._receive)  # Lightning puts the handlers of before back when fit ends

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    def on_train_batch_end(self, trainer: lightning.Trainer, task, outputs, batch, batch_idx: int) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:  # the step is not complete
            return
        if trainer.enable_validation and not (batch_idx + 1) % trainer.val_check_batch:
            return  # a validation follows, which a resumed run would not make up for: the next step is the one to leave
        number = self.received or 0
        if trainer.world_size > 1:  # Lightning asks all processes before every step, too
            number = torch.tensor(float(number), device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(number, reduce_op="max"))
        if number and trainer.global_step < trainer.max_steps:
            self._save(trainer, signal.Signals(number))

    def _save(self, trainer: lightning.Trainer, number: signal.Signals) -> None:
        self.received = None
        trainer.save_checkpoint(self.path)
        require_saved(trainer)
        if trainer.is_global_zero:
            again = f"hydra.run.dir={self.run_dir} ckpt_path=last"
            log.warning(
                "%s: step %d is saved; the same command with %s goes on", number.name, trainer.global_step, again
            )
        if callable(listener := self.before.get(number)):
            listener(number, None)
        else:
            self.leave(trainer, number)

    def leave(self, trainer: lightning.Trainer, number: signal.Signals) -> None:
        """End this process; in all processes, once the checkpoint has been written."""
        raise SystemExit(LEFT)


PATIENCE = 60  # seconds for an answer of scontrol


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
