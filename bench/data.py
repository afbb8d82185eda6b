"""Speed of training crops from folders and shards: seconds of audio per second, as JSON.

python bench/data.py [--path DIR] [--sample-rate 24000] [--segment 1.0]
"""

import sys
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.common import interleaved, machine, median_wall, parser, show, write_speech
from codec.data.codec_datamodule import collate
from codec.data.folder import FolderCorpus
from codec.data.infinite_datamodule import InfiniteSampler
from codec.data.shard_corpus import ShardCorpus
from codec.data.shard_writer import pack
from codec.data.work_units import cut

BATCH = 16


def in_process(crops: Dataset, n: int) -> Callable[[], None]:
    def run() -> None:
        for draw in range(n):
            crops[draw]

    return run


def one_worker(crops: Dataset, n: int) -> Callable[[], None]:
    sampler = InfiniteSampler(lambda: 0, 0, 1)
    loader = DataLoader(crops, BATCH, sampler=sampler, num_workers=1, collate_fn=collate, persistent_workers=True)
    batches = iter(loader)
    next(batches)  # the start of the worker is not measured
    return lambda: [None for _ in islice(batches, n // BATCH)]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--path", help="a folder of audio; default: generated 24 kHz FLAC files")
    arguments.add_argument("--sample-rate", type=int, nargs="+", default=[24_000, 16_000], help="Hz")
    arguments.add_argument("--segment", type=float, default=1.0, help="seconds")
    arguments.add_argument("--crops", type=int, default=1600, help="crops per round")
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        source, shards = options.path or Path(scratch, "folder"), Path(scratch, "shards")
        if not options.path:
            source.mkdir()
            write_speech(source, 60, 10.0, 24_000)
        pack(cut(FolderCorpus(source, 24_000, holdout=0), 60.0), shards, workers=0, report=lambda _: None)
        for rate in options.sample_rate:
            folder = FolderCorpus(source, rate, holdout=0)
            sides = {}
            for loader in (in_process, one_worker):
                for name, corpus in (("folder", folder), ("shards", ShardCorpus(shards, rate))):
                    crops = corpus.crops(int(options.segment * rate), 0)
                    sides[name, loader.__name__] = loader(crops, options.crops)
            times = interleaved(sides, options.rounds)
            seconds = options.crops // BATCH * BATCH * options.segment
            results += [
                {"dataset": name, "loader": loader, "sample_rate": rate}
                | {"times_real_time": round(seconds / median_wall(rows), 1)}
                for (name, loader), rows in times.items()
            ]
            del sides  # ends the workers
        hours = round(folder.lengths.sum() / rate / 3600, 3)
    about = {"files": folder.size, "hours": hours, "segment_s": options.segment, "n": options.rounds}
    show(machine() | about | {"results": results})


if __name__ == "__main__":
    main()
