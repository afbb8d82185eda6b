"""The corpus argument of a command: Hydra overrides as for train.py, ``dataset=folder dataset.path=DIR``."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codec.data.base import Corpus

CONF = Path(__file__).parents[2] / "conf"


def add_corpus(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides",
        nargs="+",
        metavar="dataset=NAME",
        help="the corpus, a folder or as for train.py: dataset=folder dataset.path=DIR dataset.holdout=0.1",
    )


def open_corpus(overrides: Sequence[str], sample_rate: int | None = None) -> "Corpus":
    """The corpus that overrides such as ``["dataset=folder", "dataset.path=DIR"]`` describe, or the path of a folder,
    at ``sample_rate`` (Hz; None: as configured). Paths that exist need no quotes of Hydra's. Raises CorpusError if
    there is no such corpus, or a word is no override of a dataset."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from hydra.utils import instantiate
    from omegaconf.errors import OmegaConfBaseException

    from codec.cli.integers import whole_numbers
    from codec.data.base import CorpusError
    from codec.utils.quoting import override

    words = []
    for word in overrides:
        key, _, value = word.partition("=")
        if Path(word).is_dir():
            words += ["dataset=folder", override("dataset.path", word)]
            continue
        words.append(override(key, value) if "/" in value and Path(value).exists() else word)
        if not word.lstrip("+~").startswith("dataset"):
            raise CorpusError(f"{word} is no option of a corpus: give dataset=folder dataset.path=DIR, for example")
    rate = [f"sample_rate={sample_rate}"] if sample_rate else []
    try:
        with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
            config = compose("train", [*words, *rate])
            whole_numbers(config, "train", words)
        return instantiate(config.dataset, _convert_="all")
    except (HydraException, OmegaConfBaseException) as error:
        if isinstance(error.__cause__, CorpusError):
            raise error.__cause__ from None
        reason = " ".join(str(error.__cause__ or error).split())
        for tail in (" Config search path", " full_key"):  # Hydra's search path and OmegaConf's context
            reason = reason.partition(tail)[0]
        raise CorpusError(f"{' '.join(overrides)} is no corpus: {reason}") from None
