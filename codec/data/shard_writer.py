"""Packing of a corpus into shards: WebDataset tar files of FLAC, and an index of the recordings' positions. A unit
(work_units.py) becomes one shard, with equal bytes whichever process writes it. NAME.entries appears after NAME.tar: a
shard with entries is complete and is not written again."""

import hashlib
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from torch.utils.data import DataLoader, Dataset
from webdataset import TarWriter

from codec.data.audio import AudioError
from codec.data.base import CorpusError, Recording
from codec.data.flac import to_flac
from codec.data.read_errors import ReadErrors, check_share
from codec.data.shard_index import INDEX, RECORDING, RECORDINGS, Index, Shard, save_entries, seconds
from codec.data.work_units import WorkUnits, check_plan
from codec.utils.atomic import atomic_file, write_atomic

NAMED = 100  # unreadable recordings of a shard that its entries name


def pack(
    units: WorkUnits,
    folder: Path,
    sample_rate: int | None = None,
    workers: int = 1,
    part: tuple[int, int] = (0, 1),
    report: Callable[[str], None] = print,
) -> Index | None:
    """Write the missing shards of `units` and return the index, or None while other processes have shards to write.

    `sample_rate` (Hz) None preserves that of each recording; `workers` 0 packs in this process; `part` is (index,
    count) of this call among concurrent ones, on several machines for instance. Raises CorpusError if the folder has
    shards of another corpus, or too many recordings are unreadable.
    """
    check_plan(folder, {"corpus": units.digest, "sample_rate": sample_rate})
    errors = ReadErrors(units.size)
    errors.add(units.bad)
    mine = range(part[0], len(units.names), part[1])
    todo = [unit for unit in mine if not (folder / f"{units.names[unit]}.entries").is_file()]
    workers = min(workers, len(todo)) if len(todo) > 1 else 0
    context = multiprocessing.get_context("forkserver")  # a fork would inherit threads of torch and the network
    context.set_forkserver_preload([__name__])  # seconds of imports, once for all workers
    options = {"num_workers": workers, "multiprocessing_context": context} if workers else {}
    loader = DataLoader(_Shards(units, folder, sample_rate), None, sampler=todo, **options)
    for done, (name, skipped, read) in enumerate(loader, start=1):
        errors.add(skipped, read)
        report(f"{name}: {done} of {len(todo)} shards written")
    if not all((folder / f"{name}.entries").is_file() for name in units.names):
        return None
    index = _index(units, folder)
    write_atomic(folder / INDEX, index.dump())
    return index


class _Shards(Dataset):
    """Writes a shard on access: (name, [(name, reason)] of unreadable recordings, names of the others)."""

    def __init__(self, units: WorkUnits, folder: Path, sample_rate: int | None):
        self.units, self.folder, self.sample_rate = units, folder, sample_rate

    def __getitem__(self, unit: int) -> tuple[str, list[tuple[str, str]], list[str]]:
        name, place, speakers, skipped, read = self.units.names[unit], [], [], [], []
        with atomic_file(self.folder / f"{name}.tar") as file:
            # `encoder=False` takes bytes as they are; the default would pickle, and the default times differ
            with TarWriter(file, user="", group="", mode=0o644, mtime=0, compress=False, encoder=False) as tar:
                for recording in self.units.recordings(unit):
                    try:
                        sound, frames, rate = _encode(recording, self.sample_rate)
                    except AudioError as error:
                        skipped.append((error.file, error.reason))
                        continue
                    if len(place) == RECORDINGS:
                        raise CorpusError(f"{name} would have more than {RECORDINGS:,} recordings: lower --seconds.")
                    first = tar.tarstream.offset
                    tar.write({"__key__": f"{name}-{len(place):06d}", "flac": sound, "json": _about(recording)})
                    place.append((first, tar.tarstream.offset - first, frames, rate))
                    read.append(recording.name)
                    speakers.append(recording.speaker)
            file.flush()
            with open(file.name, "rb") as written:
                sha256, size = hashlib.file_digest(written, "sha256").hexdigest(), written.tell()
        table = np.array(place, np.int64).reshape(-1, 4)
        facts = {"name": name, "recordings": len(place), "seconds": seconds(table), "bytes": size}
        facts |= {"sha256": sha256, "unreadable": len(skipped), "named": skipped[:NAMED]}
        if not place:
            (self.folder / f"{name}.tar").unlink()
        with atomic_file(self.folder / f"{name}.entries") as file:
            file.write(save_entries(table, {"facts": json.dumps(facts)}, speakers))
        return name, skipped, read


def _encode(recording: Recording | AudioError, sample_rate: int | None) -> tuple[bytes, int, int]:
    if isinstance(recording, AudioError):
        raise recording
    sound, frames, rate = to_flac(recording, sample_rate)
    if len(sound) + 2**20 > RECORDING:
        raise AudioError(recording.name, "is longer than a shard takes: cut it into pieces")
    return sound, frames, rate


def _about(recording: Recording) -> bytes:
    facts = {"file": recording.name} | {part: getattr(recording, part) for part in ("speaker", "text", "phones")}
    return json.dumps(facts, sort_keys=True).encode()


def _index(units: WorkUnits, folder: Path) -> Index:
    """Index of the complete shards in the folder, without empty ones. Raises CorpusError if too much is unreadable."""
    shards: list[Shard] = []
    numbers: dict[int, int] = {}
    good, bad = 0, len(units.bad)
    for unit, name in enumerate(units.names):
        entries, tar = folder / f"{name}.entries", folder / f"{name}.tar"
        try:
            with safe_open(entries, framework="np") as file:
                facts = json.loads((file.metadata() or {})["facts"])
            good, bad = good + facts["recordings"], bad + facts["unreadable"]
            if not facts["recordings"]:
                continue
            shard = Shard(**facts, entries=hashlib.sha256(entries.read_bytes()).hexdigest())
        except (SafetensorError, KeyError, ValueError, TypeError):
            raise CorpusError(f"{entries} is damaged: remove it and pack again.") from None
        if not tar.is_file() or tar.stat().st_size != shard.bytes:
            raise CorpusError(f"{tar} is missing or damaged: remove {entries.name} and pack again.")
        numbers[unit] = len(shards)
        shards.append(shard)
    check_share(bad, units.size, good + bad)
    if not shards:
        raise CorpusError("none of the recordings can be read: there is nothing to pack.")
    splits = {part: [numbers[unit] for unit in found if unit in numbers] for part, found in units.splits.items()}
    return Index(format="codec-shards", version=1, splits=splits, shards=shards, held_out_by=units.held_out_by)


def summary(index: Index) -> str:
    """One line about a packed corpus."""
    recordings, hours = sum(s.recordings for s in index.shards), sum(s.seconds for s in index.shards) / 3600
    held_out = sum(index.shards[i].recordings for i in set(index.splits["val"]) | set(index.splits["test"]))
    size = sum(s.bytes for s in index.shards) / 1e9
    return f"{recordings} recordings ({held_out} held out), {hours:.2f} h, {size:.3f} GB in {len(index.shards)} shards"
