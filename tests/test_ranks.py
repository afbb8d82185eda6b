"""Processes that train together under Lightning's plain ddp: equal models, the gradients of one, each draw once."""

import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from codec.run import InputError, one_folder, record
from tests.ranks_task import EACH, process, train
from tests.test_task import small_task

ROOT = Path(__file__).parents[1]
STEPS = 12


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def both(speech: Path, out: Path, **options) -> list[dict]:
    """What two processes saw."""
    multiprocessing.set_forkserver_preload(["lightning", "tests.ranks_task"])
    arguments = (free_port(), str(speech), str(out), options)
    mp.start_processes(process, arguments, nprocs=2, start_method="forkserver")
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def ranks(speech_folder, tmp_path_factory) -> list[dict]:
    """Discriminators from the third step on, quantizer dropout, codes that die; two loader processes each."""
    return both(speech_folder, tmp_path_factory.mktemp("ranks"), steps=STEPS, workers=2)


def test_models_codebooks_and_averages_are_equal_on_every_rank(ranks):
    first, second = ranks
    for part in ("state", "ema"):
        assert first[part].keys() == second[part].keys()
        for name, value in first[part].items():
            assert torch.equal(value, second[part][name]), name
    assert any(name.startswith("discriminators.") for name in first["state"])
    assert first["steps"] == second["steps"] == STEPS


def test_initialisation_and_replaced_codes_are_the_same_after_every_step(ranks):
    first, second = (rank["codebooks"] for rank in ranks)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    jumps = [float((b - a).norm(dim=-1).max()) for a, b in pairwise(first)]
    assert max(jumps) > 5 * sorted(jumps)[len(jumps) // 2]  # some code was replaced, the others only moved


def test_random_numbers_differ_between_ranks(ranks):
    first, second = (rank["draws"] for rank in ranks)
    assert not set(first) & set(second)


def test_no_draw_comes_twice_and_together_they_are_those_of_one_process(ranks, speech_folder):
    alone = train(speech_folder, 6)["crops"]
    assert len(set(alone)) == len(alone) == 6 * 2 * EACH  # within one epoch: 9 files of 3 slots
    assert set(ranks[0]["crops"][: 6 * EACH]) | set(ranks[1]["crops"][: 6 * EACH]) == set(alone)


@pytest.mark.parametrize("balanced", [False, True], ids=["weighted", "balancer"])
def test_gradients_are_those_of_one_process_with_the_whole_batch(speech_folder, tmp_path, balanced):
    """Within 2e-5 of the gradient of each side (fp32; 1.1e-5 seen), and those of the balancer up to a factor.

    But for feature matching as EnCodec normalises it, by a mean over the batch: each process divides by that of its own
    batch, which differs from one process by some 1e-5 (small as these maps are).

    The balancer gives every example a gradient whose length does not depend on the batch, so that the codec's is the
    sum over a process's examples; ddp takes the mean over processes, and two give half of what one does.
    """
    together = both(speech_folder, tmp_path, steps=1, given=True, balanced=balanced)
    alone = train(speech_folder, 1, given=True, balanced=balanced)
    for side in ("codec", "discriminators"):
        expected = {name: g for name, g in alone["gradients"].items() if name.startswith(side)}
        factor = 0.5 if balanced and side == "codec" else 1.0
        whole = factor * float(torch.stack([g.norm() for g in expected.values()]).norm())
        assert whole > 0.01
        for name, value in expected.items():
            one, two = (rank["gradients"][name] for rank in together)
            assert torch.equal(one, two), name
            if not (balanced and name.startswith("codec.encoder")):  # whose share of the commitment is not balanced
                assert float((one - factor * value).norm()) < 2e-5 * whole, name
    for name, value in alone["state"].items():
        if ".quantizer." in name:
            torch.testing.assert_close(together[0]["state"][name], value, atol=1e-5, rtol=1e-4)


def test_processes_without_a_common_run_folder_are_told_so(monkeypatch):
    for name in ("RUN_ID", "WANDB_RUN_ID", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "1")
    one_folder()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="set RUN_ID"):
        one_folder()
    monkeypatch.setenv("RUN_ID", "x")
    one_folder()


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    log = tmp_path / "csv" / "metrics.csv"
    log.parent.mkdir()
    log.write_text("")
    for variable in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "1")
            record(tmp_path, {}, small_task())
    assert list(tmp_path.iterdir()) == [log.parent]
    assert log.is_file()
    record(tmp_path, {}, small_task())
    assert [path.name for path in log.parent.iterdir()] == ["metrics-1.csv"]
    assert (tmp_path / "config.yaml").is_file()


def test_two_hosts_train_together(speech_folder, tmp_path):
    """Two network namespaces with a cable between them, and torchrun in each."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    names, addresses = [f"codec{os.getpid()}{side}" for side in "ab"], ["10.213.7.1", "10.213.7.2"]
    cables = [f"cv{os.getpid() % 10**6}{side}" for side in "ab"]

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    started: list[subprocess.Popen] = []
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
            for name, cable, address in zip(names, cables, addresses, strict=True):
                ip("link", "set", cable, "netns", name)
                ip("-n", name, "addr", "add", f"{address}/24", "dev", cable)
                ip("-n", name, "link", "set", cable, "up")
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        for node, (name, cable) in enumerate(zip(names, cables, strict=True)):
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(node)]
            torchrun += ["--nproc-per-node", "1", "--master-addr", addresses[0], "--master-port", "29517"]
            program = ["-m", "tests.ranks_task", str(speech_folder), str(tmp_path)]
            command = ["ip", "netns", "exec", name, *torchrun, *program]
            log = (tmp_path / f"{node}.log").open("w")
            place = environment | {"GLOO_SOCKET_IFNAME": cable}
            started.append(subprocess.Popen(command, cwd=ROOT, env=place, stdout=log, stderr=subprocess.STDOUT))
        for node, one in enumerate(started):
            assert one.wait(180) == 0, (tmp_path / f"{node}.log").read_text()[-3000:]
    finally:
        for one in started:
            one.kill()
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["ip", "link", "del", cables[0]], capture_output=True)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(value, second["state"][name]) for name, value in first["state"].items())
    assert not set(first["crops"]) & set(second["crops"])
