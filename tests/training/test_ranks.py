"""Processes that train together under Lightning's plain ddp: equal models, the sums of one, each draw once."""

import ctypes
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import groupby, pairwise

import pytest
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from codec.checkpoints.load import CheckpointError
from codec.cli.app import check_run_folder
from codec.data.hf import open_hub
from codec.training.resume import check_same_step
from codec.training.setup import InputError, record
from tests.helpers.hub import hub, question
from tests.helpers.ranks_task import EACH, RATE, SEGMENT, digest, folder_data, given, long_run, on_a_host, streamed
from tests.helpers.training import small_task

STEPS = 22


@pytest.fixture(scope="module")
def ranks(pair, speech_folder) -> list[dict]:
    """What two processes saw, with two loader processes each."""
    return pair(long_run, str(speech_folder), STEPS, 2)


def test_models_codebooks_and_averages_are_equal_on_every_rank(ranks):
    """Codebooks after every step, initialised and replaced alike; random numbers differ."""
    first, second = ranks
    for part in ("state", "ema"):
        assert first[part].keys() == second[part].keys()
        for name, value in first[part].items():
            assert torch.equal(value, second[part][name]), name
    assert any(name.startswith("discriminators.") for name in first["state"])
    books = first["codebooks"]
    assert first["steps"] == second["steps"] == len(books) == STEPS
    assert all(torch.equal(a, b) for a, b in zip(books, second["codebooks"], strict=True))
    jumps = [float((b - a).norm(dim=-1).max()) for a, b in pairwise(books)]
    assert max(jumps) > 5 * sorted(jumps)[len(jumps) // 2]  # some code was replaced, the others only moved
    assert not set(first["draws"]) & set(second["draws"])


def test_no_draw_comes_twice_and_together_they_are_those_of_one_process(ranks, speech_folder):
    """Over epochs that no number of steps divides: the last step of one takes the first draws of the next."""
    crops = folder_data(speech_folder, 2 * EACH).corpus.crops(round(SEGMENT * RATE), 0)
    assert crops.slots % (2 * EACH)
    drawn = [ranks[n % 2]["crops"][n // 2] for n in range(STEPS * 2 * EACH)]
    assert drawn == [digest(crops[n]["wav"]) for n in range(len(drawn))]
    epochs = [range(start, start + crops.slots) for start in range(0, len(drawn) - crops.slots, crops.slots)]
    assert len(epochs) >= 3
    for epoch in epochs:
        assert len({drawn[n] for n in epoch}) == len({crops.slot(n) for n in epoch}) == crops.slots


def test_ranks_divide_a_stream_of_an_odd_number_of_files(pair, tmp_path):
    """Each reads over several passes the files of its share, which has no file of the other's."""
    corpus, shares = open_hub(hub(tmp_path), **question(streaming=True, held=1, sample_rate=RATE)), []
    for rank, found in enumerate(pair(streamed, corpus, 15)):
        crops = corpus.crops(round(SEGMENT * RATE), 0)
        crops.set_reader(rank, 2, 0)
        shares.append([[place for _, place in crops.rows(epoch)] for epoch in range(4)])
        places = [place for one_pass in shares[-1] for place in one_pass]
        files = [file for file, _ in groupby(file.split(":")[0] for file in found["files"])]  # up to 3 crops of each
        assert len(files) > len(places) // 4
        assert files == places[: len(files)]
    for first, second in zip(*shares, strict=True):
        assert len({*first, *second}) == len(first) + len(second) == 11


@pytest.mark.parametrize("exact", [False, True])
def test_two_processes_compute_what_one_does_with_the_whole_batch(pair, speech_folder, exact):
    """Gradients, for each side as a whole, and all that was trained after a few steps, the balancer's state too."""
    tolerance = 1e-10 if exact else 3e-6
    together = pair(given, str(speech_folder), exact)
    alone = given(0, str(speech_folder), exact, world=1)
    for side in ("codec.encoder", "codec.decoder", "discriminators", "distillation"):
        names = [name for name in alone["gradients"] if name.startswith(side)]
        expected, one, two = (torch.cat([r["gradients"][n].flatten() for n in names]) for r in (alone, *together))
        assert torch.equal(one, two)
        assert expected.norm() > 1e-3
        assert (one - expected).norm() < tolerance * expected.norm(), side
    for name, value in alone["state"].items():
        if exact or ".quantizer." in name or ".means." in name:
            one, two = (rank["state"][name] for rank in together)
            assert torch.equal(one, two), name
            torch.testing.assert_close(one, value, atol=10 * tolerance, rtol=10 * tolerance, msg=name)


def test_processes_without_a_common_run_folder_are_refused(monkeypatch):
    for name in ("RUN_ID", "WANDB_RUN_ID", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="RUN_ID"):
        check_run_folder()
    for name, value in (("RUN_ID", "x"), ("WORLD_SIZE", "1")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            check_run_folder()


def test_processes_that_would_resume_from_different_steps_are_refused(pair, tmp_path):
    """As where a network file system shows one of them an older last.ckpt, or none yet."""
    older, newer = (str(tmp_path / f"{step}.ckpt") for step in (3, 5))
    for path, step in ((older, 3), (newer, 5)):
        torch.save({"global_step": step}, path)
    assert pair(refusal, [older, older]) == pair(refusal, [None, None]) == ["", ""]
    for paths, theirs, first in (([newer, older], 3, 5), ([None, newer], 5, 0)):
        for sentence in pair(refusal, paths):
            assert f"process 1 would resume from step {theirs}, process 0 from step {first}" in sentence


def refusal(rank: int, paths: list[str | None]) -> str:
    try:
        check_same_step(paths[rank])
    except CheckpointError as error:
        return str(error)
    return ""


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


@pytest.fixture
def hosts() -> Iterator[list[tuple[str, str, str]]]:
    """Two network namespaces with a cable between them: (name, cable, address) of each."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    sides = [(f"codec{os.getpid()}{n}", f"cv{os.getpid() % 10**6}{n}", f"10.213.7.{n}") for n in (1, 2)]
    (one, cable, _), (two, other, _) = sides
    lines = [f"netns add {one}", f"netns add {two}", f"link add {cable} type veth peer name {other}"]
    for name, end, address in sides:
        lines += [f"link set {end} netns {name}", f"-n {name} addr add {address}/24 dev {end}"]
        lines += [f"-n {name} link set {end} up", f"-n {name} link set lo up"]
    try:
        for line in lines:
            subprocess.run(["ip", *line.split()], check=True, capture_output=True)
        yield sides
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    finally:
        for line in (f"netns del {one}", f"netns del {two}", f"link del {cable}"):
            subprocess.run(["ip", *line.split()], capture_output=True)


def test_two_hosts_train_together(hosts, speech_folder, tmp_path):
    """With torchrun's agent in each."""
    context, started = multiprocessing.get_context("fork"), []
    try:
        for node, (name, cable, _) in enumerate(hosts):
            arguments = (node, name, cable, f"{hosts[0][2]}:29517", str(speech_folder), str(tmp_path))
            started.append(context.Process(target=host, args=arguments, daemon=False))
            started[-1].start()
        for one in started:
            one.join(120)
        assert [one.exitcode for one in started] == [0, 0]
    finally:
        for one in started:
            one.kill()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(value, second["state"][name]) for name, value in first["state"].items())
    assert not set(first["crops"]) & set(second["crops"])


def host(node: int, namespace: str, cable: str, meeting: str, speech: str, out: str) -> None:
    """What torchrun does on one of two hosts, but for starting Python anew."""
    with open(f"/var/run/netns/{namespace}") as file:
        assert ctypes.CDLL(None).setns(file.fileno(), 0) == 0
    os.environ |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": cable}
    config = LaunchConfig(
        min_nodes=2, max_nodes=2, nproc_per_node=1, run_id="hosts", rdzv_backend="static", rdzv_endpoint=meeting,
        rdzv_configs={"rank": node, "timeout": 60}, max_restarts=0, start_method="fork",
    )  # fmt: skip
    elastic_launch(config, on_a_host)(speech, out)
