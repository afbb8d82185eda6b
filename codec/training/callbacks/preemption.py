"""Checkpoints at the last step and on a signal (preemption), and requeueing of SLURM jobs.

Both are saved in ``on_train_batch_end``: a run resumed from one saved after ``fit`` would log one step too high.
"""

import logging
import os
import signal
import subprocess
import threading
import time
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import SLURMEnvironment

from codec.checkpoints.lightning_plugin import require_saved
from codec.utils.quoting import option

PREEMPTED = 75  # exit status of a preempted run: EX_TEMPFAIL of sysexits.h, "the user is invited to retry"
INTERRUPTED = 130  # that of Ctrl-C in a shell
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
ONCE = 1.0  # seconds in which a signal that comes again is the same one: torchrun passes on what the group has got
TIMEOUT = 60  # seconds for scontrol to answer

log = logging.getLogger(__name__)


class SaveLastStep(Callback):
    """Saves a checkpoint at the last step, even if no validation follows it. Raises StorageError on failure."""

    def __init__(self, path: str):
        self.path = path

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step >= trainer.max_steps:
            trainer.save_checkpoint(self.path)
            require_saved(trainer)


class Preemption(Callback):
    """On SIGTERM, SIGUSR1 or Ctrl-C to any process, all ranks finish the step, save ``path``, and exit with status 75
    (Ctrl-C: 130). A second SIGTERM or Ctrl-C ends the process at once, as where the data does not come.

    If a handler was installed before training, it is called after the save instead of exiting (submitit's requeues the
    job). Lightning's own handlers are disabled: they save in the middle of a step.
    """

    def __init__(self, path: str, run_dir: str):
        self.path, self.run_dir = path, run_dir
        self.received: int | None = None
        self.since = 0.0  # when the first signal came
        self.handlers: dict[int, Any] = {}  # installed before training

    def setup(self, trainer: lightning.Trainer, task: lightning.LightningModule, stage: str) -> None:
        self.handlers = {number: signal.getsignal(number) for number in SIGNALS}
        environment = trainer._accelerator_connector.cluster_environment  # with one process no public name exists
        if isinstance(environment, SLURMEnvironment):
            environment.auto_requeue = False

    def on_train_start(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        self.received = None
        if threading.current_thread() is threading.main_thread():  # others cannot set handlers
            for number in SIGNALS:
                signal.signal(number, self._receive)  # Lightning restores the earlier handlers when fit ends

    def _receive(self, number: int, frame: FrameType | None) -> None:
        urgent = number != signal.SIGUSR1  # which schedulers send some time before the end
        if urgent and self.received not in (None, signal.SIGUSR1):
            if time.monotonic() - self.since > ONCE:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
        elif urgent:
            self.since = time.monotonic()
            os.write(2, b"\nthis step is finished and saved first; a second signal ends at once\n")
        if urgent or self.received is None:
            self.received = number

    def on_train_batch_end(self, trainer: lightning.Trainer, task, outputs, batch, batch_idx: int) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:  # gradients are still being accumulated
            return
        if trainer.enable_validation and not (batch_idx + 1) % trainer.val_check_batch:
            return  # a validation follows, which a resumed run would not repeat: exit after the next step
        number = self.received or 0
        if trainer.world_size > 1:  # Lightning synchronises all ranks before every step, too
            number = torch.tensor(float(number), device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(number, reduce_op="max"))
        if number and trainer.global_step < trainer.max_steps:
            self._save(trainer, signal.Signals(number))

    def _save(self, trainer: lightning.Trainer, number: signal.Signals) -> None:
        trainer.save_checkpoint(self.path)
        require_saved(trainer)
        if self.received == number:  # and not one that came meanwhile
            self.received = None
        if trainer.is_global_zero:
            options = f"{option('hydra.run.dir', self.run_dir)} ckpt_path=last"
            log.warning(
                "%s: step %d is saved; the same command with %s resumes", number.name, trainer.global_step, options
            )
        handler = self.handlers.get(number)
        if callable(handler) and handler is not signal.default_int_handler:
            handler(number, None)
        else:
            self.exit(trainer, number)

    def exit(self, trainer: lightning.Trainer, number: signal.Signals) -> None:
        """End the process; called on all ranks after the checkpoint has been written."""
        raise SystemExit(INTERRUPTED if number == signal.SIGINT else PREEMPTED)


class SlurmPreemption(Preemption):
    """Preemption that requeues the SLURM job on SIGUSR1 (``sbatch --signal=SIGUSR1@90``), not on SIGTERM (scancel)."""

    def exit(self, trainer: lightning.Trainer, number: signal.Signals) -> None:
        if number == signal.SIGUSR1:
            if trainer.is_global_zero:
                requeue()
            trainer.strategy.barrier("requeue")  # srun ends all processes as soon as one of them exits
        super().exit(trainer, number)


def requeue() -> bool:
    """Requeue this process's SLURM job, if any and not interactive; returns success. Warns if scontrol fails."""
    if SLURMEnvironment.job_id() is None:
        return False
    job, array = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        run = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=TIMEOUT)
        failure = (run.stderr.strip() or f"status {run.returncode}").splitlines()[0] if run.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    if failure:
        log.warning("job %s is not requeued (scontrol requeue: %s): submit it again, and it resumes", job, failure)
        return False
    log.info("job %s is requeued", job)
    return True
