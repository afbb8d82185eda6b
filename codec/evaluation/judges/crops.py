"""Training crops for the judges, by speakers other than those to be judged."""

from collections.abc import Collection, Iterator
from typing import Any

from codec.data.base import Stream
from codec.evaluation.judges.mel import SAMPLE_RATE
from codec.utils.errors import InputError


def crops_without(speakers: Collection[str], corpus: Any, samples: int, count: int, seed: int) -> Iterator[dict]:
    """``count`` training crops of ``samples`` samples by none of ``speakers``, nor with the vocal tract of one.

    The vocal tract is what follows the plus in an eSpeak name such as "de+Gene". Raises InputError if the corpus is not
    at 16 kHz, is a stream, or has next to no crops by others.
    """
    if corpus.sample_rate != SAMPLE_RATE:
        raise InputError(f"the judges need {SAMPLE_RATE} Hz, not {corpus.sample_rate} Hz: give a corpus at that rate")
    crops, tracts, found = corpus.crops(samples, seed), {_tract(speaker) for speaker in speakers}, 0
    if isinstance(crops, Stream):
        raise InputError("the judges cannot learn from a stream: give a folder, shards or the espeak corpus")
    for n in range(20 * count):
        item = crops[n]
        if not item["speaker"] or _tract(item["speaker"]) not in tracts:
            yield item
            found += 1
            if found == count:
                return
    raise InputError("nearly all voices of the judges' corpus are those to be judged: train the judges on others")


def _tract(speaker: str) -> str:
    return speaker.rpartition("+")[2]
