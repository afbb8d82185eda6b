"""How fast folders and shards deliver training crops: seconds of audio per second, as JSON.

python bench/data.py [--path DIR] [--sample-rate 24000] [--segment 1.0]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parents[1]))

from codec.data.codec_datamodule import collate
from codec.data.folder import FolderCorpus
from codec.data.infinite_datamodule import InfiniteSampler
from codec.data.shard_corpus import ShardCorpus
from codec.data.shard_writer import pack
from codec.data.work_units import cut

BATCH = 16


def speechlike(folder: Path, files: int, seconds: float, rate: int) -> None:
    """FLAC files that compress about as well as speech: noise of falling spectrum and syllabic envelope."""
    rng = np.random.default_rng(0)
    time_axis = np.arange(int(seconds * rate)) / rate
    for i in range(files):
        noise = np.fft.rfft(rng.standard_normal(len(time_axis)))
        noise = np.fft.irfft(noise / np.maximum(np.arange(len(noise)), 50), len(time_axis))
        wav = noise * (1.02 + np.sin(2 * np.pi * 4 * time_axis))
        soundfile.write(folder / f"{i:03d}.flac", 0.3 * wav / np.abs(wav).max(), rate, subtype="PCM_16")


def in_process(crops: Dataset, n: int, segment: float) -> float:
    begin = time.perf_counter()
    for draw in range(n):
        crops[draw]
    return n * segment / (time.perf_counter() - begin)


def one_worker(crops: Dataset, n: int, segment: float) -> float:
    sampler = InfiniteSampler(lambda: 0, 0, 1)
    loader = DataLoader(crops, BATCH, sampler=sampler, num_workers=1, collate_fn=collate, persistent_workers=True)
    batches = iter(loader)
    next(batches)  # the worker's start is paid once per run
    begin = time.perf_counter()
    count = sum(len(batch["file"]) for batch in islice(batches, n // BATCH))
    return count * segment / (time.perf_counter() - begin)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--path", help="a folder of audio; default: generated 24 kHz FLAC files")
    options.add_argument("--sample-rate", type=int, help="Hz; default: 24000 and 16000")
    options.add_argument("--segment", type=float, default=1.0, help="seconds")
    options.add_argument("--crops", type=int, default=1600, help="crops per repetition")
    options.add_argument("--repeats", type=int, default=5)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source = args.path or Path(scratch, "folder")
        if not args.path:
            source.mkdir()
            speechlike(source, 60, 10.0, 24_000)
        results = []
        pack(
            cut(FolderCorpus(source, 24_000, holdout=0), 60.0),
            Path(scratch, "shards"),
            workers=0,
            report=lambda _: None,
        )
        for rate in [args.sample_rate] if args.sample_rate else [24_000, 16_000]:
            corpus = FolderCorpus(source, rate, holdout=0)
            corpora = {"folder": corpus, "shards": ShardCorpus(Path(scratch, "shards"), rate)}
            files_at = {soundfile.info(str(corpus.recording(i).source)).samplerate
                        for i in range(0, len(corpus.rows), 1 + len(corpus.rows) // 50)}  # fmt: skip
            for name, measure in (("in_process", in_process), ("one_worker", one_worker)):
                crops = {dataset: c.crops(int(args.segment * rate), 0) for dataset, c in corpora.items()}
                speeds: dict[str, list[float]] = {dataset: [] for dataset in crops}
                for _ in range(args.repeats):  # in turns, so that a busy moment slows both
                    for dataset, part in crops.items():
                        speeds[dataset].append(measure(part, args.crops, args.segment))
                for dataset, found in speeds.items():
                    results.append({
                        "dataset": dataset,
                        "sample_rate": rate,
                        "files_at": sorted(files_at),
                        "loader": name,
                        "segment_s": args.segment,
                        "crops": args.crops,
                        "n": args.repeats,
                        "times_real_time_median": round(statistics.median(found), 1),
                        "times_real_time_min": round(min(found), 1),
                    })  # fmt: skip
        print(
            json.dumps(
                {
                    "files": corpus.size,
                    "hours": round(corpus.lengths.sum() / rate / 3600, 3),
                    "results": results,
                },
                indent=2,
            )
        )


if __name__ == "__main__":
    main()
