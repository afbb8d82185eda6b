"""What the judges learn from: voices that have nothing to do with those to be judged."""

from collections.abc import Collection, Iterator
from typing import Any

from codec.data.base import Stream
from codec.evaluation.judges.mel import SAMPLE_RATE
from codec.utils.errors import InputError


def strangers(corpus: Any, samples: int, count: int, seed: int, apart: Collection[str]) -> Iterator[dict]:
    """``count`` training crops of ``samples`` samples by speakers who have nothing to do with those in ``apart``.

    In a name of eSpeak's such as "de+Gene", what follows the plus is the vocal tract: no two speakers with the same
    one are strangers.

    Raises:
        InputError: if the corpus is not at 16 kHz, or hardly anybody in it is a stranger.
    """
    if corpus.sample_rate != SAMPLE_RATE:
        raise InputError(
            f"the judges hear {SAMPLE_RATE} Hz, and the corpus gives {corpus.sample_rate} Hz: give one at {SAMPLE_RATE}"
        )
    crops, tracts, found = corpus.crops(samples, seed), {tract(speaker) for speaker in apart}, 0
    if isinstance(crops, Stream):
        raise InputError("the judges cannot learn from a stream: give a folder, shards or the espeak corpus")
    for n in range(20 * count):
        item = crops[n]
        if not item["speaker"] or tract(item["speaker"]) not in tracts:
            yield item
            found += 1
            if found == count:
                return
    raise InputError("nearly all voices of the judges' corpus are those to be judged: train the judges on others")


def tract(speaker: str) -> str:
    return speaker.rpartition("+")[2]
