"""Write any corpus as shards: WebDataset's tar files with FLAC inside, and an index of where each recording lies.

Each unit of the corpus (units.py) becomes one shard, whoever makes it, with the same bytes. NAME.tar is renamed into
place first and NAME.entries after it: a shard is done when its entries are there, and is never made twice.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open
from webdataset import TarWriter

from codec.data.audio import AudioError
from codec.data.base import CorpusError, Recording
from codec.data.flac import to_flac
from codec.data.read_errors import ReadErrors, check_share
from codec.data.shard_index import INDEX, RECORDING, RECORDINGS, Index, Shard, save_entries, seconds
from codec.data.work_units import WorkUnits
from codec.utils.atomic import atomic_file, write_atomic

PLAN = "plan.json"  # of which corpus the folder holds shards
NAMED = 100  # unreadable recordings of a shard that its entries name


def pack(
    units: WorkUnits,
    folder: Path,
    sample_rate: int | None = None,
    workers: int = 1,
    part: tuple[int, int] = (0, 1),
    report: Callable[[str], None] = print,
) -> Index | None:
    """Write the shards of `units` that are not there yet -> the index, None while other processes still have to pack.

    Args:
        sample_rate: of the packed recordings, Hz; None keeps that of each.
        workers: processes; 0 packs in this one.
        part: (index, count) of this call among several that pack the corpus together, on other machines, say.

    Raises CorpusError if the folder holds shards of something else, or too many recordings cannot be read.
    """
    check_plan(folder, {"corpus": units.digest, "sample_rate": sample_rate})
    ledger = ReadErrors(units.size)
    ledger.add(units.bad)
    mine = range(part[0], len(units.names), part[1])
    todo = [unit for unit in mine if not (folder / f"{units.names[unit]}.entries").is_file()]
    for done, (unit, skipped, heard) in enumerate(_made(units, folder, sample_rate, workers, todo), start=1):
        ledger.add(skipped, heard)
        report(f"{units.names[unit]}: {done} of {len(todo)} shards made")
    if not all((folder / f"{name}.entries").is_file() for name in units.names):
        return None
    index = _index(units, folder)  # of all processes and calls: none of them may have seen that too much is bad
    write_atomic(folder / INDEX, index.dump())
    return index


def check_plan(folder: Path, plan: dict) -> None:
    """Note in the folder what it is for. Raises CorpusError if it is for something else."""
    content = json.dumps(plan, sort_keys=True).encode() + b"\n"
    path = folder / PLAN
    if not path.is_file():
        write_atomic(path, content)
    if path.read_bytes() != content:
        raise CorpusError(f"{folder} holds work on another corpus, or with other options: give an empty folder.")


def _made(
    units: WorkUnits, folder: Path, sample_rate: int | None, workers: int, todo: list[int]
) -> Iterator[tuple[int, list[tuple[str, str]], list[str]]]:
    """(unit, unreadable recordings, the others) of each shard once it is made."""
    if not workers or len(todo) < 2:
        for unit in todo:
            yield unit, *write_shard(units, unit, folder, sample_rate)
        return
    context = multiprocessing.get_context("forkserver")  # a fork inherits threads of torch and the network
    context.set_forkserver_preload(["codec.data.shard_writer"])  # seconds of importing, paid once
    with ProcessPoolExecutor(min(workers, len(todo)), context, _start, (units, folder, sample_rate)) as pool:
        futures = {pool.submit(_work, unit): unit for unit in todo}
        try:
            for future in as_completed(futures):
                yield futures[future], *future.result()
        finally:
            pool.shutdown(cancel_futures=True)


_task: tuple = ()


def _start(*task: object) -> None:
    global _task
    _task = task
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A program that is killed cannot stop its workers, and they would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _work(unit: int) -> tuple[list[tuple[str, str]], list[str]]:
    units, folder, sample_rate = _task
    return write_shard(units, unit, folder, sample_rate)


def write_shard(
    units: WorkUnits, unit: int, folder: Path, sample_rate: int | None
) -> tuple[list[tuple[str, str]], list[str]]:
    """Write NAME.tar and NAME.entries -> (name, reason) of what could not be read, and the names of the others."""
    name, place, skipped, heard = units.names[unit], [], [], []
    with atomic_file(folder / f"{name}.tar") as file:
        hashed = _Hashed(file)
        # `encoder=False` takes bytes as they are; the default one would pickle, and the default times differ
        with TarWriter(hashed, user="", group="", mode=0o644, mtime=0, compress=False, encoder=False) as tar:
            for recording in units.recordings(unit):
                try:
                    if isinstance(recording, AudioError):
                        raise recording
                    sound, frames, rate = _fitting(recording, sample_rate)
                except AudioError as error:
                    skipped.append((error.file, error.reason))
                    continue
                if len(place) == RECORDINGS:
                    raise CorpusError(f"{name} would have more than {RECORDINGS:,} recordings: give less --seconds.")
                first = tar.tarstream.offset
                tar.write({"__key__": f"{name}-{len(place):06d}", "flac": sound, "json": _about(recording)})
                place.append((first, tar.tarstream.offset - first, frames, rate))
                heard.append(recording.name)
    table = np.array(place, np.int64).reshape(-1, 4)
    facts = {"name": name, "recordings": len(place), "seconds": seconds(table), "bytes": hashed.size}
    facts |= {"sha256": hashed.digest.hexdigest(), "unreadable": len(skipped), "named": skipped[:NAMED]}
    if not place:
        (folder / f"{name}.tar").unlink()
    with atomic_file(folder / f"{name}.entries") as file:
        file.write(save_entries(table, {"facts": json.dumps(facts)}))
    return skipped, heard


def _fitting(recording: Recording, sample_rate: int | None) -> tuple[bytes, int, int]:
    sound, frames, rate = to_flac(recording, sample_rate)
    if len(sound) + 2**20 > RECORDING:
        raise AudioError(recording.name, "is longer than a shard takes: cut it into pieces")
    return sound, frames, rate


def _about(recording: Recording) -> bytes:
    facts = {"file": recording.name} | {part: getattr(recording, part) for part in ("speaker", "text", "phones")}
    return json.dumps(facts, sort_keys=True).encode()


class _Hashed:
    """A file to write to, with the length and the digest of what went through."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.size = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self.file.write(data)


def _index(units: WorkUnits, folder: Path) -> Index:
    """The index of the shards in the folder, all of which are there; those without a recording are left out."""
    shards: list[Shard] = []
    numbers: dict[int, int] = {}
    good, bad = 0, len(units.bad)
    for unit, name in enumerate(units.names):
        path = folder / f"{name}.entries"
        try:
            with safe_open(path, framework="np") as file:
                facts = json.loads((file.metadata() or {})["facts"])
            good, bad = good + facts["recordings"], bad + facts["unreadable"]
            if not facts["recordings"]:
                continue
            kept = {part: facts[part] for part in ("name", "recordings", "seconds", "bytes", "sha256")}
            shard = Shard(**kept, entries=hashlib.sha256(path.read_bytes()).hexdigest())
        except (SafetensorError, KeyError, ValueError, TypeError):
            raise CorpusError(f"{path} is damaged: remove it and pack again.") from None
        with contextlib.suppress(OSError):
            if (folder / f"{name}.tar").stat().st_size == shard.bytes:
                numbers[unit] = len(shards)
                shards.append(shard)
                continue
        raise CorpusError(f"{folder / name}.tar is missing or damaged: remove {path.name} and pack again.")
    check_share(bad, units.size, good + bad)
    if not shards:
        raise CorpusError("none of the recordings can be read: there is nothing to pack.")
    return Index(shards, {part: [numbers[u] for u in found if u in numbers] for part, found in units.splits.items()})


def summary(index: Index) -> str:
    """One line about what was packed."""
    recordings, hours = sum(s.recordings for s in index.shards), sum(s.seconds for s in index.shards) / 3600
    held = sum(index.shards[i].recordings for i in set(index.splits["val"]) | set(index.splits["test"]))
    size = sum(s.bytes for s in index.shards) / 1e9
    return f"{recordings} recordings ({held} held out), {hours:.2f} h, {size:.3f} GB in {len(index.shards)} shards"
