"""One training step: the one-pass step against the usual two-optimiser step, on the same networks and batches.

    python bench/train_step.py                    # JSON: medians, ratios, n; a few minutes on two cores
    python bench/train_step.py --cases msd+mfd:encodec --model soundstream --batch 4 --rounds 15
    python bench/train_step.py --model mimi_transformer --cases msstft:balancer --batch 1 --rounds 3

The usual step is that of HiFi-GAN, DAC and EnCodec: the discriminators run on recording and detached output, backward,
step; then again on recording and output for the codec, backward, step. `usual` leaves the discriminators in the graph
(gradients of their weights are computed and discarded, as in most code) and, with the balancer, has a backward pass for
the commitment loss, as audiocraft does; `usual_frozen` avoids both. Ratios are medians of each round's. `parts` are the
fractions of one more one-pass step: forward passes, the gradient of the losses at the waveform, the backward pass of
codec and discriminators, clipping and optimiser. Memory is the peak of the process (on a GPU of its tensors), with the
networks of all three sides.
"""

import copy
import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import autograd, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.common import codec_task, composed, interleaved, machine, median_wall, now, parser, peak_mb, ratio, show
from codec.losses.balancer import Balancer
from codec.training.codec_task import CodecTask
from codec.training.optim import ParameterGroup


def build(model: str, disc: str, loss: str) -> CodecTask:
    torch.manual_seed(0)
    return codec_task(composed(f"model={model}", f"disc={disc}", f"loss={loss}", "quantizer.kmeans_iters=2"))


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
        codec, losses, seconds = self.task.codec, self.task.losses, {}

        def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args, **kwargs):
                start = now()
                result = call(*args, **kwargs)
                seconds[name] = seconds.get(name, 0.0) + now() - start
                return result

            return run

        modules = {"encoder": codec.encoder, "quantizer": codec.quantizer, "decoder": codec.decoder}
        for name, module in (modules | {"discriminators": self.task.discriminators}).items():
            module.forward = timed(name, module.forward)
        losses.gradient = timed("losses", losses.gradient)
        total, _ = self.task.one_pass(wav)
        timed("backward", self.backward)(total)
        timed("optimiser", self.update)()
        return {name: round(value / sum(seconds.values()), 3) for name, value in seconds.items()}


class Usual:
    def __init__(self, task: CodecTask, frozen: bool, steps: int = 1000):
        self.task, self.frozen = task, frozen
        self.codec = self._adam(task.codec, task.optim.codec)
        self.disc = self._adam(task.discriminators, task.optim.disc)
        factor = lambda step: task.optim.schedule(step, steps)  # noqa: E731
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(o, factor) for o in (self.codec, self.disc)]

    def _adam(self, module: nn.Module, group: ParameterGroup) -> torch.optim.Optimizer:
        options = {"lr": group.lr, "betas": tuple(group.betas), "weight_decay": group.weight_decay}
        return torch.optim.AdamW(module.parameters(), fused=True, **options)

    def __call__(self, wav: torch.Tensor) -> None:
        task, losses, disc = self.task, self.task.losses, self.task.discriminators
        out = task.codec(wav)
        disc_loss = losses.discriminator(disc(wav), disc(out.wav.detach()))
        self.disc.zero_grad()
        disc_loss.backward()
        nn.utils.clip_grad_norm_(disc.parameters(), 10.0)
        self.disc.step()

        disc.requires_grad_(not self.frozen)
        values = losses.reconstruction(wav, out.wav) | losses.generator(disc(wav), disc(out.wav))
        self.codec.zero_grad()
        commitment = losses.commitment * out.quantized.loss
        if isinstance(losses.combine, Balancer):
            if not self.frozen:
                commitment.backward(retain_graph=True)
                commitment = torch.zeros(())
            ((out.wav * self._balanced(values, out.wav)).sum() + commitment).backward()
        else:
            (sum(losses.weights[name] * value for name, value in values.items()) + commitment).backward()
        nn.utils.clip_grad_norm_(task.codec.parameters(), 10.0)
        self.codec.step()
        for schedule in self.schedules:
            schedule.step()
        disc.requires_grad_(True)

    def _balanced(self, values: dict[str, torch.Tensor], estimate: torch.Tensor) -> torch.Tensor:
        """EnCodec's balancer; unless frozen, each loss also computes the gradients of the discriminators' weights."""
        losses = self.task.losses
        if self.frozen:
            return losses.gradient(values, estimate)
        weights, total, gradient = list(self.task.discriminators.parameters()), sum(losses.weights.values()), 0.0
        for name, value in values.items():
            one = autograd.grad(value, [estimate, *weights], retain_graph=True, allow_unused=True)[0]
            norm = one.flatten(1).norm(dim=1).mean()
            gradient = gradient + one * (losses.weights[name] / total / (norm + 1e-12))
        return gradient


def measure(task: CodecTask, wav: torch.Tensor, rounds: int, autocast: bool) -> dict[str, Any]:
    sides = {"one_pass": OnePass(copy.deepcopy(task))}
    sides |= {name: Usual(copy.deepcopy(task), frozen=name == "usual_frozen") for name in ("usual", "usual_frozen")}
    with torch.autocast(wav.device.type, torch.bfloat16, enabled=autocast):
        for side in sides.values():
            side(wav)
        times = interleaved({name: partial(side, wav) for name, side in sides.items()}, rounds)
        parts = sides["one_pass"].parts(wav)
    seconds = wav.shape[0] * wav.shape[-1] / task.codec.sample_rate
    peak = torch.cuda.max_memory_allocated() / 2**20 if wav.is_cuda else peak_mb()
    return {
        "median_s": {name: round(median_wall(rows), 4) for name, rows in times.items()},
        "ratio_to_one_pass": {name: ratio(times[name], times["one_pass"]) for name in ("usual", "usual_frozen")},
        "parts": parts,
        "peak_mb": round(peak),
        "audio_s_per_s": round(seconds / median_wall(times["one_pass"]), 2),
        "n": rounds,
    }


def main() -> None:
    arguments = parser(__doc__)
    cases = ["msd+mfd:encodec", "msstft:encodec", "msd+mfd:balancer", "msstft:balancer"]
    arguments.add_argument("--cases", nargs="+", default=cases, help="disc:loss pairs")
    arguments.add_argument("--model", default="encodec")
    arguments.add_argument("--batch", type=int, default=2)
    arguments.add_argument("--seconds", type=float, default=1.0)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--bf16", action="store_true")
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    random.seed(0)
    result = machine() | vars(options) | {"cases": {}}
    for case in options.cases:
        task = build(options.model, *case.split(":")).to(options.device).train()
        wav = 0.1 * torch.randn(options.batch, 1, int(options.seconds * task.codec.sample_rate), device=options.device)
        result["cases"][case] = measure(task, wav, options.rounds, options.bf16)
    show(result)


if __name__ == "__main__":
    main()
