"""Lightning's logger for W&B, which keeps the program's arguments with every run: without the secrets in them."""

from typing import Any

from lightning.pytorch.loggers import WandbLogger as LightningLogger

from codec.redact import redact_arguments


class WandbLogger(LightningLogger):
    """The same, which hides secrets in the arguments before W&B reads them, when its run begins.

    Not earlier: Lightning starts the other processes of a run with the arguments of the first.
    """

    @property
    def experiment(self) -> Any:
        redact_arguments()
        return super().experiment
