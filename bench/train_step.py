"""One training step: the one-pass step against the usual two-optimiser step, on the same networks and batches.

    python bench/train_step.py                    # JSON: medians, ratios, n; a few minutes on two cores
    python bench/train_step.py --cases msd+mfd:encodec --model soundstream --batch 4 --rounds 15
    python bench/train_step.py --model mimi_transformer --cases msstft:balancer --batch 1 --rounds 3

The usual step is that of HiFi-GAN, DAC and EnCodec: the discriminators run on recording and detached output, backward,
step; then again on recording and output for the codec, backward, step. `usual` leaves the discriminators in the
graph (gradients of their weights are computed and thrown away, as in most code) and, with the balancer, sends the
commitment loss back by itself, as audiocraft does; `usual_frozen` spares itself both. The sides run interleaved in one
process, in an order drawn for each round, so that a noisy machine hits all alike. Ratios are medians of each round's.
`parts` are the shares of one more one-pass step: forward passes, the gradient of the losses at the waveform, the
backward pass of codec and discriminators, clipping and optimiser. Memory is the peak of the process so far (on a GPU of
its tensors), with the networks of all three sides.
"""

import argparse
import copy
import json
import random
import resource
import statistics
import sys
import time
from pathlib import Path

import torch
from hydra import compose, initialize
from hydra.utils import instantiate
from torch import autograd

sys.path.insert(0, str(Path(__file__).parents[1]))

from codec.losses.balancer import Balancer
from codec.training.codec_task import CodecTask


def build(model: str, disc: str, loss: str) -> CodecTask:
    with initialize(version_base="1.3", config_path="../conf"):
        cfg = compose("train", overrides=[f"model={model}", f"disc={disc}", f"loss={loss}", "quantizer.kmeans_iters=2"])
    parts = {"codec": cfg.codec, "discriminators": cfg.disc, "losses": cfg.loss, "optim": cfg.optim}
    torch.manual_seed(0)
    return CodecTask(**{name: instantiate(part, _convert_="all") for name, part in parts.items()})


class OnePass:
    def __init__(self, task: CodecTask, steps: int = 1000):
        self.task = task
        self.optimizer, self.schedule = task.optim.build(task.learners(), steps)

    def __call__(self, wav: torch.Tensor) -> None:
        total, _ = self.task.one_pass(wav)
        self.backward(total)
        self.update()

    def backward(self, total: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        total.backward()

    def update(self) -> None:
        self.task.optim.clip(self.optimizer)
        self.optimizer.step()
        self.schedule.step()

    def parts(self, wav: torch.Tensor) -> dict[str, float]:
        """Seconds of each part of a step."""
        codec, seconds = self.task.codec, {}

        def timed(name, call):
            def run(*args, **kwargs):
                start = now(wav)
                result = call(*args, **kwargs)
                seconds[name] = seconds.get(name, 0.0) + now(wav) - start
                return result

            return run

        named = {"encoder": codec.encoder, "quantizer": codec.quantizer, "decoder": codec.decoder}
        named["discriminators"] = self.task.discriminators
        for name, module in named.items():
            module.forward = timed(name, module.forward)
        self.task.losses.gradient = timed("losses", self.task.losses.gradient)
        total, _ = self.task.one_pass(wav)
        timed("backward", self.backward)(total)
        timed("optimiser", self.update)()
        return seconds


def now(wav: torch.Tensor) -> float:
    if wav.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_mb(wav: torch.Tensor) -> int:
    if wav.is_cuda:
        return round(torch.cuda.max_memory_allocated() / 2**20)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


class Usual:
    def __init__(self, task: CodecTask, frozen: bool, steps: int = 1000):
        self.task, self.frozen = task, frozen
        self.codec, self.disc = (
            torch.optim.AdamW(m.parameters(), side.lr, tuple(side.betas), weight_decay=side.weight_decay, fused=True)
            for m, side in ((task.codec, task.optim.codec), (task.discriminators, task.optim.disc))
        )
        factor = lambda step: task.optim.schedule(step, steps)  # noqa: E731
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(o, factor) for o in (self.codec, self.disc)]

    def __call__(self, wav: torch.Tensor) -> None:
        task, losses = self.task, self.task.losses
        out = task.codec(wav)
        disc_loss = losses.discriminator(task.discriminators(wav), task.discriminators(out.wav.detach()))
        self.disc.zero_grad()
        disc_loss.backward()
        torch.nn.utils.clip_grad_norm_(task.discriminators.parameters(), 10.0)
        self.disc.step()

        task.discriminators.requires_grad_(not self.frozen)
        values = losses.reconstruction(wav, out.wav) | losses.generator(
            task.discriminators(wav), task.discriminators(out.wav)
        )
        self.codec.zero_grad()
        commitment = losses.commitment * out.quantized.loss
        if isinstance(losses.combine, Balancer):
            if not self.frozen:  # as audiocraft does: the penalty goes back through the encoder by itself
                commitment.backward(retain_graph=True)
                commitment = torch.zeros(())
            self.balance(values, out.wav)
            ((out.wav * self.gradient).sum() + commitment).backward()
        else:
            (sum(losses.weights[name] * value for name, value in values.items()) + commitment).backward()
        torch.nn.utils.clip_grad_norm_(task.codec.parameters(), 10.0)
        self.codec.step()
        for schedule in self.schedules:
            schedule.step()
        task.discriminators.requires_grad_(True)

    def balance(self, values: dict[str, torch.Tensor], estimate: torch.Tensor) -> None:
        """EnCodec's balancer; unless frozen, each loss also computes the gradients of the discriminators' weights."""
        losses = self.task.losses
        if self.frozen:
            self.gradient = losses.gradient(values, estimate)
            return
        weights = list(self.task.discriminators.parameters())
        gradients, norms = [], []
        for value in values.values():
            gradients.append(autograd.grad(value, [estimate, *weights], retain_graph=True, allow_unused=True)[0])
            norms.append(gradients[-1].flatten(1).norm(dim=1).mean())
        total = sum(losses.weights.values())
        self.gradient = sum(
            g * (losses.weights[n] / total / (m + 1e-12)) for n, g, m in zip(values, gradients, norms, strict=True)
        )


def measure(task: CodecTask, wav: torch.Tensor, rounds: int, autocast: bool) -> dict:
    sides = {
        "one_pass": OnePass(copy.deepcopy(task)),
        "usual": Usual(copy.deepcopy(task), frozen=False),
        "usual_frozen": Usual(copy.deepcopy(task), frozen=True),
    }
    seconds = {name: [] for name in sides}
    for round_ in range(rounds + 1):
        for name in random.sample(list(sides), len(sides)):
            start = now(wav)
            with torch.autocast(wav.device.type, torch.bfloat16, enabled=autocast):
                sides[name](wav)
            if round_:  # the first is a warm-up
                seconds[name].append(now(wav) - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {
        name: statistics.median(b / a for a, b in zip(seconds["one_pass"], seconds[name], strict=True))
        for name in ("usual", "usual_frozen")
    }
    with torch.autocast(wav.device.type, torch.bfloat16, enabled=autocast):
        parts = sides["one_pass"].parts(wav)
    return {
        "median_s": {name: round(value, 4) for name, value in medians.items()},
        "ratio_to_one_pass": {name: round(value, 3) for name, value in ratios.items()},
        "parts": {name: round(value / sum(parts.values()), 3) for name, value in parts.items()},
        "peak_mb": peak_mb(wav),
        "audio_s_per_s": round(wav.shape[0] * wav.shape[-1] / task.codec.sample_rate / medians["one_pass"], 2),
        "n": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = ["msd+mfd:encodec", "msstft:encodec", "msd+mfd:balancer", "msstft:balancer"]
    parser.add_argument("--cases", nargs="+", default=cases, help="disc:loss pairs")
    parser.add_argument("--model", default="encodec")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    random.seed(0)
    result = {"torch": torch.__version__, **vars(options), "cases": {}}
    for case in options.cases:
        task = build(options.model, *case.split(":")).to(options.device).train()
        wav = 0.1 * torch.randn(options.batch, 1, int(options.seconds * task.codec.sample_rate), device=options.device)
        result["cases"][case] = measure(task, wav, options.rounds, options.bf16)
        print(f"{case}: {result['cases'][case]}", file=sys.stderr, flush=True)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
