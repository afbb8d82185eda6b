"""How Lightning writes checkpoints here: through codec/checkpoints/save.py."""

import logging
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.plugins.io import TorchCheckpointIO

from codec.checkpoints.save import StorageError, write

log = logging.getLogger(__name__)


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are written whole or not at all, with the one before kept (:mod:`codec.checkpoints.save`).

    A checkpoint that cannot be written is warned about, and training goes on: the next may find room. Who depends on
    one asks :func:`require_saved`. Lightning calls this in process 0 only.
    """

    def __init__(self):
        self.known: set[Path] = set()  # files written and read back by this process
        self.failure: str | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path).absolute()
        try:
            write(checkpoint, path, known=path in self.known)
        except StorageError as error:
            self.failure = str(error)
            log.warning("%s", error)
        else:
            self.known.add(path)
            self.failure = None


def require_saved(trainer: lightning.Trainer) -> None:
    """Raises StorageError, in process 0, if the checkpoint just saved could not be written."""
    if failure := getattr(trainer.strategy.checkpoint_io, "failure", None):
        raise StorageError(failure)
