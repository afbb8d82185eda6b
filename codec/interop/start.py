"""Begin training with the codec of someone else's, or of an earlier, run."""

from pathlib import Path

from codec.checkpoint import load_codec
from codec.interop.mimi import import_mimi
from codec.interop.plain import load_plain, plain_state
from codec.model import Codec

LEVELS = ("usage", "sums", "codebooks")  # buffers of an RVQ, one row for each of its codebooks


def start_from(codec: Codec, source: str | Path) -> None:
    """Copy the weights of ``source`` into ``codec``, which may have fewer codebooks, and weight norm or not.

    Args:
        source: a checkpoint (.ckpt; its averaged weights where it has them), or a Mimi file, folder or Hub id.

    Raises:
        CheckpointError: if it cannot be read, or another architecture is in it; names the tensors.
    """
    trained = load_codec(source)[0] if str(source).endswith(".ckpt") else import_mimi(source)[0]
    weights = plain_state(trained)
    for name, own in codec.state_dict().items():
        if name.rpartition(".")[2] in LEVELS and name in weights:
            weights[name] = weights[name][: len(own)]
    load_plain(codec, weights, str(source))
