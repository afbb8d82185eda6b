"""Two DDP ranks (gloo, one thread each) against one process, in steps per second. A case of faults.py.

A third side is two independent processes: what the machine can give to two at once. All sides are runs of train.py;
each continues for some seconds in turn, in an order drawn for each round, while the others are stopped (SIGSTOP).
Ratios are of the same round.
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

from bench.common import ROOT
from bench.witness import witness, witnessed

ENDLESS = ["max_steps=1000000", "val_every=1000000", "logger=csv", "data.workers=0", "~callbacks.progress"]
ENDLESS += ["trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]
STRATEGY = "trainer.strategy={_target_:lightning.pytorch.strategies.DDPStrategy,"
HOOKS = "torch.distributed.algorithms.ddp_comm_hooks.default_hooks"
WAYS = {  # of gradient exchange: `together` is trainer=ddp
    "together": [],
    "bucket_view": [f"{STRATEGY}gradient_as_bucket_view:true}}"],
    "static_graph": [f"{STRATEGY}gradient_as_bucket_view:true,static_graph:true}}"],
    "one_bucket": [f"{STRATEGY}gradient_as_bucket_view:true,bucket_cap_mb:200}}"],
    "fp16": [f"{STRATEGY}ddp_comm_hook:{{_target_:hydra.utils.get_method,path:{HOOKS}.fp16_compress_hook}}}}"],
}


class Side:
    """One or two processes that train until they are ended."""

    def __init__(self, run: Path, processes: int, way: str | None, options: list[str]):
        self.run, self.processes, together = run, processes, way is not None
        self.writers = 1 if together else processes
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
                command += ["trainer=ddp", f"trainer.devices={processes}", *WAYS[way]]
                about |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
                about |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_PORT": port}
                about |= {"TORCHELASTIC_RUN_ID": "bench"}  # as if started by torchrun
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
        """Wait for so many steps, then stop."""
        while len(found := self.steps()) < self.writers or min(map(len, found)) < steps:
            if any(child.poll() is not None for child in self.children):
                raise RuntimeError((self.run / "output0").read_text()[-3000:])
            time.sleep(0.2)
        self.signal(signal.SIGSTOP)

    def rate(self, seconds: float) -> tuple[float, float]:
        """Continue for some seconds -> (steps per second of all its processes, CPU seconds per second of each)."""
        begin, used = time.monotonic(), self.cpu()
        self.signal(signal.SIGCONT)
        time.sleep(seconds)
        self.signal(signal.SIGSTOP)
        rates = []
        for ends in self.steps():
            mine = [at for at in ends if at > begin]
            rates.append((len(mine) - 1) / (mine[-1] - mine[0]))
        busy = (self.cpu() - used) / (time.monotonic() - begin) / self.processes
        return sum(rates) * (self.processes / len(rates)), busy

    def cpu(self) -> float:
        """CPU seconds so far."""
        stats = [Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split() for child in self.children]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def ddp(
    speech: Path, scratch: Path, options: list[str], ways: list[str], rounds: int, seconds: float
) -> dict[str, Any]:
    """Steps per second of two processes, together and on their own, against one."""
    options = ["dataset=folder", f"dataset.path={speech}", *options]
    sides: dict[str, Side] = {}
    found: dict[str, list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        for name, processes in (("alone", 1), ("apart", 2), *((way, 2) for way in ways)):
            sides[name], found[name] = Side(scratch / name, processes, name if name in WAYS else None, options), []
            stack.callback(sides[name].end)
            sides[name].warm(5)
        for n in range(rounds):
            for name in random.Random(n).sample(sorted(sides), len(sides)):
                found[name].append(sides[name].rate(seconds))
            print(n, {name: round(one[-1][0], 2) for name, one in found.items()}, os.getloadavg()[0], file=sys.stderr)
    rates, busy = ({name: [one[k] for one in all] for name, all in found.items()} for k in range(2))
    ratio = {name: [a / b for a, b in zip(rates[name], rates["alone"], strict=True)] for name in sides}
    cpu = {name: [busy * side.processes / rate for rate, busy in found[name]] for name, side in sides.items()}
    medians = lambda table: {name: round(statistics.median(of), 3) for name, of in table.items()}  # noqa: E731
    return {
        "options": options[2:],
        "rounds": rounds,
        "seconds": seconds,
        "steps_per_s": medians(rates),
        "ratio": medians(ratio),
        "ratios": {name: [round(r, 2) for r in of] for name, of in ratio.items()},
        "busy": medians(busy),
        "cpu_s_per_step": medians(cpu),
    }
