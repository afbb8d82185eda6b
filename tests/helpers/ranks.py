"""Processes that run at once."""

import io
import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

SECONDS = 120  # for one call of a pair; after them the two are thought to wait for each other


class Pair:
    """Two processes that can talk, and do one thing after the other; ``folder`` is where they meet.

    They are forked from this one when first needed, which saves the imports, and stay for all tests. After an error
    the next call finds two new ones.
    """

    def __init__(self, folder: Path):
        self.folder, self.starts = folder, 0
        self.processes: list[multiprocessing.Process] = []
        self.lines: list[Connection] = []

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What ``function(rank, *arguments)``, of a module, returns in each: tensors and plain values.

        Raises RuntimeError with the trace of an error in one of them, TimeoutError where they do not end.
        """
        if not self.processes:
            self._start()
        try:
            for line in self.lines:
                line.send((function, arguments))
            answers: dict[Connection, Any] = {}
            while len(answers) < len(self.lines):
                ready = wait([line for line in self.lines if line not in answers], SECONDS)
                if not ready:
                    raise TimeoutError(f"{function.__name__} has not ended in both processes after {SECONDS} s")
                for line in ready:
                    answers[line] = torch.load(io.BytesIO(line.recv_bytes()), weights_only=True)
                    if "error" in answers[line]:
                        raise RuntimeError(answers[line]["error"])
        except BaseException:
            self.stop()
            raise
        return [answers[line]["result"] for line in self.lines]

    def _start(self) -> None:
        self.starts += 1
        context, store = multiprocessing.get_context("fork"), self.folder / f"store{self.starts}"
        pipes = [context.Pipe() for _ in range(2)]
        self.lines = [ours for ours, _ in pipes]
        self.processes = [context.Process(target=_serve, args=(rank, pipes, store)) for rank in range(2)]
        for process in self.processes:
            process.start()
        for _, theirs in pipes:
            theirs.close()

    def stop(self) -> None:
        for line in self.lines:
            line.close()
        for process in self.processes:
            process.kill()
            process.join()
        self.processes, self.lines = [], []


def _serve(rank: int, pipes: list[tuple[Connection, Connection]], store: Path) -> None:
    """Answer calls until the other end is closed: nobody else may hold it open."""
    line = pipes[rank][1]
    for end in (end for pipe in pipes for end in pipe if end is not line):
        end.close()
    about = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    about |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 0, "TORCHELASTIC_RUN_ID": "test"}  # as torchrun says
    os.environ.update({name: str(value) for name, value in about.items()})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    while True:
        try:
            function, arguments = line.recv()
        except EOFError:
            os._exit(0)  # without what this process's parent does when it ends
        data = io.BytesIO()
        try:
            torch.save({"result": function(rank, *arguments)}, data)
        except BaseException:
            data = io.BytesIO()
            torch.save({"error": traceback.format_exc()}, data)
        line.send_bytes(data.getvalue())
