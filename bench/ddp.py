"""Two processes that train together (`trainer=ddp`, gloo) against one, a thread each: examples per second.

A case of bench/faults.py. A third side is two processes that know nothing of each other: what the machine gives to two
at once. All sides are runs of train.py that live all the time; each is let go for some seconds in turn, in an order
drawn for each round, while the others are stopped (SIGSTOP). Ratios are those of a round, and their medians.
"""

import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.kills import witness, witnessed

ROOT = Path(__file__).parents[1]
ENDLESS = ["max_steps=1000000", "val_every=1000000", "logger=csv", "data.workers=0", "~callbacks.progress"]
ENDLESS += ["trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]


class Side:
    """One or two processes that train until they are told otherwise; `steps` are what each that writes has done."""

    def __init__(self, run: Path, processes: int, together: bool, options: list[str]):
        self.run, self.processes = run, processes
        run.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.children = []
        for rank in range(processes):
            about = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
            own = run if together else run / str(rank)
            command = [sys.executable, str(ROOT / "train.py"), *ENDLESS, *options, f"hydra.run.dir={own}"]
            command += witness(run / f"steps{0 if together else rank}")
            if together:
                command += ["trainer=ddp", f"trainer.devices={processes}"]
                about |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
                about |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_PORT": port}
                about |= {"TORCHELASTIC_RUN_ID": "bench"}  # that it is torchrun who has started them
            with open(run / f"output{rank}", "w") as output:
                self.children.append(
                    subprocess.Popen(command, env=os.environ | about, stdout=output, stderr=subprocess.STDOUT)
                )

    def signal(self, number: int) -> None:
        for child in self.children:
            child.send_signal(number)

    def end(self) -> None:
        self.signal(signal.SIGKILL)
        for child in self.children:
            child.wait()

    def steps(self) -> list[list[float]]:
        """When each step ended, for each witness."""
        return [[at for *_, at in witnessed(path)] for path in sorted(self.run.glob("steps*"))]

    def warm(self, steps: int) -> None:
        """Wait until so many steps are done, and stop it."""
        while len(found := self.steps()) < (1 if "together" in self.run.name else self.processes) or any(
            len(ends) < steps for ends in found
        ):
            if any(child.poll() is not None for child in self.children):
                raise RuntimeError((self.run / "output0").read_text()[-3000:])
            time.sleep(0.2)
        self.signal(signal.SIGSTOP)

    def rate(self, seconds: float) -> float:
        """Let it go for some seconds -> steps per second of all its processes, between the first and the last."""
        begin = time.monotonic()
        self.signal(signal.SIGCONT)
        time.sleep(seconds)
        self.signal(signal.SIGSTOP)
        rates = []
        for ends in self.steps():
            mine = [at for at in ends if at > begin]
            rates.append((len(mine) - 1) / (mine[-1] - mine[0]))
        return sum(rates) * (self.processes / len(rates))


def ddp(speech: Path, scratch: Path, options: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """Steps per second of both processes against one, and of two that are on their own."""
    options = ["dataset=folder", f"dataset.path={speech}", *options]
    sides: dict[str, Side] = {}
    with ExitStack() as stack:
        for name, processes in (("alone", 1), ("together", 2), ("apart", 2)):
            sides[name] = Side(scratch / name, processes, name == "together", options)
            stack.callback(sides[name].end)
            sides[name].warm(5)
        rates: dict[str, list[float]] = {name: [] for name in sides}
        others = []
        for n in range(rounds):
            for name in random.Random(n).sample(sorted(sides), len(sides)):
                rates[name].append(sides[name].rate(seconds))
            others.append(os.getloadavg()[0])
            print(n, {name: round(found[-1], 2) for name, found in rates.items()}, others[-1], file=sys.stderr)
    ratio = {name: [a / b for a, b in zip(rates[name], rates["alone"], strict=True)] for name in ("together", "apart")}
    return {
        "options": options[2:],
        "rounds": rounds,
        "seconds": seconds,
        "steps_per_s": {name: round(statistics.median(found), 3) for name, found in rates.items()},
        "ratio": {name: round(statistics.median(found), 3) for name, found in ratio.items()},
        "ratios": {name: [round(r, 2) for r in found] for name, found in ratio.items()},
        "load": [round(load, 1) for load in others],
    }
