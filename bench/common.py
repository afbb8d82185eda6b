"""What the measuring scripts share: configurations, generated speech, a full-size Mimi, interleaved timing."""

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from codec.model import Codec
from codec.training.codec_task import CodecTask

ROOT = Path(__file__).parents[1]
Times = dict[str, list[tuple[float, float]]]


def parser(doc: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def composed(*overrides: str) -> DictConfig:
    """The configuration of train.py."""
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        return compose("train", overrides=list(overrides))


def built(config: DictConfig) -> Any:
    return instantiate(config, _convert_="all")


def codec_task(cfg: DictConfig) -> CodecTask:
    """The training step of a configuration, with random weights."""
    return CodecTask(built(cfg.codec), built(cfg.disc), built(cfg.loss), built(cfg.optim))


def full_mimi(*overrides: str) -> Codec:
    """Full-size Mimi in eval mode: random weights, effective transformers, codebooks as wide as their residuals."""
    torch.manual_seed(0)
    codec = built(composed("model=mimi_transformer", *overrides).codec).eval()
    quantizer = codec.quantizer
    with torch.no_grad():
        for part in (codec.encoder, codec.decoder):
            for layer in part.transformer.layers:
                layer.scale1.fill_(0.3)
                layer.scale2.fill_(0.3)
        z = codec.latents(0.3 * torch.randn(1, 1, 24 * codec.hop_length))
        for part in (quantizer.semantic, quantizer.acoustic):
            residual = part.project_in(z)[0].t()
            for k, book in enumerate(part.codebooks):
                book.copy_(residual.mean(0) + residual.std(0) * torch.randn_like(book))
                residual = residual - book[part._nearest(residual, k)]
    return codec


def noise(samples: int) -> torch.Tensor:
    """``[1, 1, T]``, the same in every process."""
    return 0.3 * torch.randn(1, 1, samples, generator=torch.Generator().manual_seed(0))


def write_speech(folder: Path, files: int, seconds: float, rate: int) -> None:
    """FLAC files that compress about as well as speech: noise of falling spectrum and syllabic envelope."""
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * rate)) / rate
    for i in range(files):
        spectrum = np.fft.rfft(rng.standard_normal(len(t)))
        wav = np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 50), len(t))
        wav = wav * (1.02 + np.sin(2 * np.pi * 4 * t))
        soundfile.write(folder / f"{i:03d}.flac", 0.3 * wav / np.abs(wav).max(), rate, subtype="PCM_16")


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def interleaved(sides: dict[str, Callable[[], Any]], rounds: int) -> Times:
    """(wall seconds, CPU seconds) of each side in each round; the order is drawn for each round, so that other load on
    the machine affects all sides alike."""
    spent: Times = {name: [] for name in sides}
    for n in range(rounds):
        for name in random.sample(list(sides), len(sides)):
            wall, cpu = now(), time.process_time()
            sides[name]()
            spent[name].append((now() - wall, time.process_time() - cpu))
            print(f"round {n} {name} {spent[name][-1][0]:.3f} s", file=sys.stderr, flush=True)
    return spent


def median_wall(times: list[tuple[float, float]]) -> float:
    return statistics.median(wall for wall, _ in times)


def ratio(times: list[tuple[float, float]], reference: list[tuple[float, float]]) -> float:
    """Median over rounds of the wall time relative to that of the reference in the same round."""
    return round(statistics.median(a[0] / b[0] for a, b in zip(times, reference, strict=True)), 3)


def peak_mb(process: int | str = "self") -> float:
    """Peak resident memory of a process; 0 if it has ended. (getrusage includes the process that forked it.)"""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def show(result: dict[str, Any] | list[Any]) -> None:
    print(json.dumps(result, indent=2, default=str))


def machine() -> dict[str, Any]:
    """What belongs to every result."""
    return {"torch": torch.__version__, "cores": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 1)}
