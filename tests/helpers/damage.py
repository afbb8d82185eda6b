"""Thousands of damaged files of every kind, each read in a guarded process. JSON.

    python -m tests.helpers.damage --count 1000          # of every kind; --kinds for some of them

Damage is a function of (kind, number): truncated, bits flipped, header replaced, parts overwritten with noise, numbers
replaced, and one empty file. A process reads one file after another, with at most 2 GB more than at its start
(RLIMIT_AS) and 10 CPU seconds for each; if it dies or hangs, another process continues with the next file. Results:
docs/results/faults.md.
"""

import argparse
import dataclasses
import hashlib
import json
import logging
import multiprocessing
import random
import re
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch

from tests.helpers.kinds import KINDS, Kind, LeftOut

ROOM = 2 * 2**30  # bytes
PATIENCE = 10.0  # seconds of computing for a file
WAIT = 120.0  # seconds without a word: it waits for something
HOW = {"cut": 4, "flip": 8, "header": 3, "noise": 3, "lie": 6}  # weights
MAGIC = [
    b"RIFF\xff\xff\xff\xffWAVEfmt ",
    b"fLaC",
    b"OggS",
    b"ID3\x04",
    b"PK\x03\x04",
    b"\x80\x02",
    b"\x1f\x8b\x08",
    b"{",
]
NUMBERS = ["0", "-1", "1e999", "NaN", "4294967296", "9223372036854775807", "9" * 400, "0.5", "true", '"x"', "[]"]


def damaged(content: bytes, number: int, rng: random.Random) -> tuple[bytes, str]:
    """(what is left of a file, what was done to it); the first is empty."""
    if number == 0:
        return b"", "empty"
    how = rng.choices(list(HOW), list(HOW.values()))[0]
    data = bytearray(content)
    if how == "cut":
        del data[rng.randrange(len(data)) :]
    elif how == "flip":
        for _ in range(rng.choice([1, 1, 2, 8])):
            data[rng.randrange(min(len(data), rng.choice([64, 1024, len(data)])))] ^= 1 << rng.randrange(8)
    elif how == "header":
        new = rng.choice([rng.choice(MAGIC), rng.randbytes(rng.randrange(1, 64))])
        data[: len(new)] = new
    elif how == "noise":
        at = rng.randrange(len(data))
        new = rng.randbytes(rng.choice([8, 256, len(data)]))
        data[at : at + len(new)] = new[: len(data) - at]
    else:
        lie(data, rng)
    return bytes(data), how


def lie(data: bytearray, rng: random.Random) -> None:
    """One number becomes another: one in digits, or one of 2 to 8 bytes near either end, where formats keep theirs."""
    digits = list(re.finditer(rb"\d+", data))
    if digits and rng.random() < 0.5:
        found = rng.choice(digits)
        data[found.start() : found.end()] = rng.choice(NUMBERS).encode()
        return
    size = rng.choice([2, 4, 8])
    at = rng.choice([rng.randrange(80), -rng.randrange(size, 80)]) % max(1, len(data) - size)
    value = rng.choice([0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 2 ** (8 * size - 1) - 1, rng.getrandbits(20)])
    data[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, rng.choice(["little", "big"]))


def damage(kind: str, count: int) -> dict[str, Any]:
    """`count` damaged files of one kind -> how it went with them."""
    context, results = multiprocessing.get_context("fork"), []
    while len(results) < count:
        mine, theirs = context.Pipe(duplex=False)
        child = context.Process(target=read_all, args=(kind, len(results), count, theirs), daemon=True)
        child.start()
        theirs.close()
        while len(results) < count:
            try:
                if not mine.poll(WAIT):
                    raise TimeoutError
                results.append(mine.recv())
            except (EOFError, TimeoutError) as error:
                child.kill()
                child.join()
                why = "hangs" if isinstance(error, TimeoutError) else f"dies of {signal.Signals(-child.exitcode).name}"
                results.append({"outcome": "crash", "how": "?", "ms": 1000 * PATIENCE, "mb": 0, "said": why})
                break
        child.join()
    outcomes = Counter(one["outcome"] for one in results)
    crashes = [f"{n} ({one['how']}): {one['said']}" for n, one in enumerate(results) if one["outcome"] == "crash"]
    return {
        "kind": kind,
        "n": count,
        **{name: outcomes[name] for name in ("refused", "left out", "same", "other", "crash")},
        "slowest_cpu_ms": round(max(one["ms"] for one in results)),
        "most_mb": round(max(one["mb"] for one in results)),
        "other_by": dict(Counter(one["how"] for one in results if one["outcome"] == "other")),
        "crashes": crashes[:10],
    }


def read_all(name: str, first: int, last: int, results: Connection) -> None:
    """In the process that may die: send a dictionary for each file."""
    kind = KINDS[name]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = kind.make(Path(folder))
        whole = path.read_bytes()
        expected = digest(kind.read(path))
        resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + ROOM,) * 2)
        for number in range(first, last):
            content, how = damaged(whole, number, random.Random(f"{name} {number}"))
            path.write_bytes(content)
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again
            before, start = memory("VmRSS"), time.process_time()
            signal.setitimer(signal.ITIMER_PROF, PATIENCE)  # ends the process, whatever it is doing
            outcome, said = outcome_of(kind, path, expected)
            signal.setitimer(signal.ITIMER_PROF, 0)
            facts = {"ms": 1000 * (time.process_time() - start), "mb": (memory("VmHWM") - before) / 2**20}
            results.send({"outcome": outcome, "said": said, "how": how, **facts})


def outcome_of(kind: Kind, path: Path, expected: str) -> tuple[str, str]:
    try:
        return ("same" if digest(kind.read(path)) == expected else "other"), ""
    except Exception as error:
        said = str(error).strip()
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, MemoryError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            return "crash", f"more than 2 GB: {said[:200]}"
        if isinstance(error, kind.refusal | LeftOut) and said and "\n" not in said and len(said) < 2000:
            return ("left out" if isinstance(error, LeftOut) else "refused"), said
        return "crash", f"{type(error).__name__}: {said[:300]}"


def memory(name: str) -> int:
    """Bytes of this process, as /proc calls them."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[1])


def digest(value: Any) -> str:
    """Of tensors, tables and plain values in each other."""
    found = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found.update(f"{value.dtype}{list(value.shape)}".encode() + value.contiguous().numpy().tobytes())
        elif isinstance(value, np.ndarray):
            add(torch.from_numpy(value))
        elif isinstance(value, pandas.DataFrame):
            found.update(value.to_csv().encode())
        elif isinstance(value, dict):
            add([*value, *value.values()])
        elif isinstance(value, list | tuple):
            found.update(f"{len(value)}".encode())
            for one in value:
                add(one)
        elif dataclasses.is_dataclass(value):
            add(vars(value))
        else:
            found.update(repr(value).encode())

    add(value)
    return found.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="files of each kind (%(default)s)")
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    results = []
    for kind in options.kinds:
        results.append(damage(kind, options.count))
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
