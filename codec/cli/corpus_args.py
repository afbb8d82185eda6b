"""A corpus named on the command line of ``python -m codec``: a folder, shards, or Hydra's overrides as in train.py."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf.errors import OmegaConfBaseException

from codec.data.base import Corpus, CorpusError
from codec.data.folder import FolderCorpus
from codec.data.shard_corpus import ShardCorpus
from codec.data.shard_index import INDEX

CONF = Path(__file__).parents[2] / "conf"


def open_corpus(words: Sequence[str], sample_rate: int | None = None) -> Corpus:
    """The corpus of ``["DIR"]``, ``["URL"]``, or overrides such as ``["dataset=folder", "dataset.path=DIR"]``.

    ``sample_rate`` (Hz) is that of its items; None leaves what the configuration says.

    Raises:
        CorpusError: if there is no such corpus or the words are no overrides.
    """
    if len(words) == 1 and "=" not in words[0]:
        shards = "://" in words[0] or (Path(words[0]).expanduser() / INDEX).is_file()
        return (ShardCorpus if shards else FolderCorpus)(words[0], sample_rate or 24_000)
    if not any(word.lstrip("+").startswith("dataset") for word in words):
        raise CorpusError(f"{' '.join(words)!r} names no corpus: give a folder, or dataset=NAME dataset.OPTION=VALUE.")
    rate = [f"sample_rate={sample_rate}"] if sample_rate else []
    try:
        with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
            config = compose("train", [*words, *rate]).dataset
        return instantiate(config, _convert_="all")
    except (HydraException, OmegaConfBaseException) as error:
        if isinstance(error.__cause__, CorpusError):
            raise error.__cause__ from None
        reason = " ".join(str(error.__cause__ or error).split())
        for tail in (" Config search path", " full_key"):  # where Hydra has looked, and what omegaconf saw
            reason = reason.partition(tail)[0]
        raise CorpusError(f"{' '.join(words)} is no corpus: {reason}") from None
