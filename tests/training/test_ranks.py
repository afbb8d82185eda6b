"""Processes that train together under Lightning's plain ddp: equal models, the sums of one, each draw once."""

import ctypes
import multiprocessing
import os
import shutil
import subprocess
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

STEPS = 32


@pytest.fixture(scope="module")
def ranks(pair, speech_folder) -> list[dict]:
    """What two processes saw, with two loader processes each."""
    return pair(long_run, str(speech_folder), STEPS, 2)


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
    assert len(first) == len(second) == STEPS
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    jumps = [float((b - a).norm(dim=-1).max()) for a, b in pairwise(first)]
    assert max(jumps) > 5 * sorted(jumps)[len(jumps) // 2]  # some code was replaced, the others only moved


def test_random_numbers_differ_between_ranks(ranks):
    first, second = (rank["draws"] for rank in ranks)
    assert not set(first) & set(second)


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


def test_a_stream_of_an_odd_number_of_files_ends_together_and_repeats_nothing(pair, tmp_path):
    corpus = open_hub(hub(tmp_path), **question(streaming=True, held=1, sample_rate=RATE))
    passes = range(4)
    seen = pair(streamed, corpus, 15)
    everything = {epoch: [] for epoch in passes}
    for rank, found in enumerate(seen):
        crops = corpus.crops(round(SEGMENT * RATE), 0)
        crops.set_reader(rank, 2, 0)
        places = [(epoch, place) for epoch in passes for _, place in crops.rows(epoch)]
        files = [file for file, _ in groupby(file.split(":")[0] for file in found["files"])]  # up to 3 crops of each
        assert len(files) > len(places) // 4
        assert files == [place for _, place in places][: len(files)]
        for epoch, place in places:
            everything[epoch].append(place)
    for epoch in passes:
        assert sorted(everything[epoch]) == [f"{shard}/{row}" for shard in range(3) for row in range(4)][1:]


@pytest.mark.parametrize(
    ("balanced", "double", "steps", "tolerance"),
    [(False, False, 1, 3e-6), (False, True, 3, 1e-10), (True, True, 3, 1e-10)],
)
def test_two_processes_compute_what_one_does_with_the_whole_batch(
    pair, speech_folder, balanced, double, steps, tolerance
):
    """Gradients, for each side as a whole, and all that was trained after a few steps, the balancer's state too."""
    together = pair(given, str(speech_folder), balanced, double, steps)
    alone = given(0, str(speech_folder), balanced, double, steps, world=1)
    for side in ("codec.encoder", "codec.decoder", "discriminators", "distillation"):
        names = [name for name in alone["gradients"] if name.startswith(side)]
        expected, one, two = (torch.cat([r["gradients"][n].flatten() for n in names]) for r in (alone, *together))
        assert torch.equal(one, two)
        assert expected.norm() > 1e-3
        assert (one - expected).norm() < tolerance * expected.norm(), side
    for name, value in alone["state"].items():
        if double or ".quantizer." in name or ".means." in name:
            one, two = (rank["state"][name] for rank in together)
            assert torch.equal(one, two), name
            torch.testing.assert_close(one, value, atol=10 * tolerance, rtol=10 * tolerance, msg=name)


def test_processes_without_a_common_run_folder_are_told_so(monkeypatch):
    for name in ("RUN_ID", "WANDB_RUN_ID", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "1")
    check_run_folder()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="set RUN_ID"):
        check_run_folder()
    monkeypatch.setenv("RUN_ID", "x")
    check_run_folder()


def test_processes_that_would_go_on_from_different_steps_say_so(pair, tmp_path):
    """As where a network file system shows one of them an older last.ckpt, or none yet."""
    older, newer = (str(tmp_path / f"{step}.ckpt") for step in (3, 5))
    for path, step in ((older, 3), (newer, 5)):
        torch.save({"global_step": step}, path)
    assert pair(refusal, [older, older]) == pair(refusal, [None, None]) == ["", ""]
    sentences = pair(refusal, [newer, older]) + pair(refusal, [None, newer])
    for sentence, (theirs, first) in zip(sentences, ((3, 5), (3, 5), (5, 0), (5, 0)), strict=True):
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


def test_two_hosts_train_together(speech_folder, tmp_path):
    """Two network namespaces with a cable between them, and torchrun's agent in each."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    names, addresses = [f"codec{os.getpid()}{side}" for side in "ab"], ["10.213.7.1", "10.213.7.2"]
    cables = [f"cv{os.getpid() % 10**6}{side}" for side in "ab"]

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    context, hosts = multiprocessing.get_context("fork"), []
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
        for node, (name, cable) in enumerate(zip(names, cables, strict=True)):
            arguments = (node, name, cable, f"{addresses[0]}:29517", str(speech_folder), str(tmp_path))
            hosts.append(context.Process(target=host, args=arguments, daemon=False))
            hosts[-1].start()
        for one in hosts:
            one.join(120)
        assert [one.exitcode for one in hosts] == [0, 0]
    finally:
        for one in hosts:
            one.kill()
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["ip", "link", "del", cables[0]], capture_output=True)
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
