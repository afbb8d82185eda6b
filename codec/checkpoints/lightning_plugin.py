"""A Lightning plugin that writes checkpoints atomically (:mod:`codec.checkpoints.save`)."""

import logging
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.plugins.io import TorchCheckpointIO

from codec.checkpoints.save import StorageError, write

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically, on rank 0, and keeps the previous one.

    A failed write is a warning and training continues; callers that depend on it call :func:`require_saved`.
    """

    def __init__(self):
        self.intact: set[Path] = set()  # files that this process has written and read back
        self.failure: str | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path).absolute()
        try:
            write(checkpoint, path, old_intact=path in self.intact)
        except StorageError as error:
            self.failure = str(error)
            log.warning("%s", error)
        else:
            self.intact.add(path)
            self.failure = None


def require_saved(trainer: lightning.Trainer) -> None:
    """Raises StorageError, on rank 0, if the last checkpoint could not be written."""
    if failure := getattr(trainer.strategy.checkpoint_io, "failure", None):
        raise StorageError(failure)
