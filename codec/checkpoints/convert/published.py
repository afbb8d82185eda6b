"""Codecs that others have published, found by the kind of their files."""

from pathlib import Path
from typing import Any

from codec.checkpoints.convert import lyra, mimi
from codec.checkpoints.load import load_codec
from codec.model import Codec


def import_published(source: str | Path, n_q: int | None = None) -> tuple[Codec, dict[str, Any]]:
    """A published codec with its first ``n_q`` codebooks (None: all) in eval mode, and the configuration to rebuild it.

    ``source`` is "lyra" (from its release, with a network), a folder or URL with Lyra's .tflite files, or a Mimi
    (:func:`codec.checkpoints.convert.mimi.import_mimi`). Raises CheckpointError if it cannot be read.
    """
    text = str(source)
    if text == "lyra":
        return lyra.import_lyra(n_q=n_q)
    if "://" in text or any(Path(text, name).exists() for name in lyra.FILES):
        return lyra.import_lyra(source, n_q)
    return mimi.import_mimi(source, n_q)


def load_any(source: str | Path) -> Codec:
    """The codec of a checkpoint (.ckpt; EMA weights if it has them) or a published one, in eval mode."""
    return load_codec(source)[0] if str(source).endswith(".ckpt") else import_published(source)[0]
