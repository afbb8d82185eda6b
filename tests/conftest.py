import dataclasses
import logging
import os
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

# Small arrays: threads that wait for each other cost more, on a busy machine many times as much. NumPy reads the first
# once; without the second, Lightning's ddp gives this process a thread for each core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import soundfile
import torch
import torch.distributed as dist

from tests.helpers.ranks import Pair
from tests.helpers.signals import speechlike

pytest_plugins = ["tests.helpers.judges"]
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may depend on a network
os.environ.setdefault("WANDB_MODE", "offline")
torch.set_num_threads(1)  # the same
warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
warnings.filterwarnings("ignore", message=".*does not have many workers.*")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory) -> Path:
    """Twelve FLAC recordings of 1.5 s at 16 kHz by four speakers, with a manifest."""
    folder = tmp_path_factory.mktemp("speech")
    lines = ["file,speaker"]
    for n in range(12):
        soundfile.write(folder / f"{n:02d}.flac", speechlike(1.5, 16_000, n), 16_000)
        lines.append(f"{n:02d}.flac,s{n % 4}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    """Tests fork processes from this one: what they inherit must not wait for threads or peers that they have not, and
    nothing in their environment may say that they were started together."""
    environment = dict(os.environ)
    yield
    for name in os.environ.keys() - environment.keys():  # Lightning's of ddp: LOCAL_RANK, MASTER_PORT, ...
        del os.environ[name]
    torch.set_num_threads(1)
    if dist.is_initialized():  # by strategy=ddp, which goes on for the life of a process
        dist.destroy_process_group()


@pytest.fixture(scope="session")
def pair(tmp_path_factory) -> Iterator[Pair]:
    """Two processes that can talk, for all tests that need them."""
    made = Pair(tmp_path_factory.mktemp("pair"))
    yield made
    made.stop()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Caches of a test run are its own."""
    os.environ["CODEC_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def _score_here(monkeypatch):
    """Reports have the mel distance alone, computed in this process."""
    from codec.evaluation import evaluate
    from codec.evaluation.metrics.table import METRICS
    from codec.evaluation.metrics.workers import score_clips

    one = {"mel_distance": METRICS["mel_distance"]}
    monkeypatch.setattr(evaluate, "score_clips", lambda pairs, rate, *_: score_clips(pairs, rate, one, 0))


@pytest.fixture
def _costs_nothing(monkeypatch):
    """Systems are not profiled: neither look-ahead nor FLOP nor a stable real-time factor."""
    from codec.evaluation import systems
    from codec.evaluation.baselines.codec import CodecSystem

    monkeypatch.setattr(CodecSystem, "cost", dict.fromkeys(("latency_ms", "gflop_encode", "gflop_decode")))
    monkeypatch.setattr(systems, "real_time_factors", partial(systems.real_time_factors, seconds=0.1, repeats=1))


TINY_WAVLM = {
    "extractor_conv_layer_config": [(8, 10, 5), (8, 3, 2), (8, 3, 2), (8, 3, 2), (8, 3, 2), (8, 2, 2), (8, 2, 2)],
    "encoder_embed_dim": 16,
    "encoder_pos_conv_kernel": 8,
    "encoder_pos_conv_groups": 4,
    "encoder_num_layers": 4,
    "encoder_num_heads": 2,
    "encoder_ff_interm_features": 32,
}


@pytest.fixture
def _tiny_wavlm(monkeypatch):
    """The structures of base and of large at a size for tests, as tiny-base and tiny-large."""
    from codec.distillation.teachers import wavlm

    for name, bundle in (("base", wavlm.WAVLM_BASE), ("large", wavlm.WAVLM_LARGE)):
        tiny = dataclasses.replace(bundle, _path=f"tiny_{name}.pth", _params=bundle._params | TINY_WAVLM)
        monkeypatch.setitem(wavlm.BUNDLES, f"tiny-{name}", tiny)
