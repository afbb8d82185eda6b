"""Flow model of a codec's latents: network, conditions, objective, and inpainting by sampling."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from codec.flow.conditioning import Batch, Conditions, Embeddings
from codec.flow.dit import DiT
from codec.flow.objective import Objective, on_path
from codec.flow.sampler import EVALUATIONS, Sampling, integrate, noise_like, windows
from codec.quantizers.base import KINDS
from codec.utils.errors import InputError


class FlowModel(nn.Module):
    """Flow-matching model that inpaints spans of normalised latents ``[B, C, F]`` (codec/latents/latent_space.py).

    The buffers ``mean`` and ``std`` ``[C]`` are those of the normalisation.

    Args:
        sample_rate, hop_length: of the codec, in Hz and in samples per frame of latents.
        fingerprint: of the latent space; latents of another codec do not fit.
        kind: of the latents, ``pre`` or ``post`` quantization.
        max_seconds: the longest example in training.
    """

    def __init__(
        self,
        network: DiT,
        condition: Conditions,
        objective: Objective,
        sample_rate: int,
        hop_length: int,
        fingerprint: str,
        kind: str,
        max_seconds: float,
    ):
        super().__init__()
        if kind not in KINDS or not isinstance(fingerprint, str):
            raise ValueError(f"latents have a fingerprint and a kind, {' or '.join(KINDS)}, not {kind!r}")
        if min(sample_rate, hop_length) < 1 or not 0 < max_seconds < math.inf:
            raise ValueError("sample_rate, hop_length and max_seconds are above 0")
        self.network, self.condition, self.objective = network, condition, objective
        self.sample_rate, self.hop_length, self.fingerprint, self.kind = sample_rate, hop_length, fingerprint, kind
        self.frame_rate = sample_rate / hop_length
        self.max_frames = max(1, int(max_seconds * self.frame_rate))
        self.register_buffer("mean", torch.zeros(network.channels))
        self.register_buffer("std", torch.ones(network.channels))

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        known: Tensor,
        span: Tensor,
        valid: Tensor,
        embeddings: Embeddings,
        show_context: Tensor,
    ) -> Tensor:
        """Network output ``[B, C, F]``, from which the objective computes losses or a velocity.

        Args:
            x, known: noisy and clean latents ``[B, C, F]``.
            t: ``[B]`` in [0, 1].
            span, valid: ``[B, F]`` bool, frames to inpaint, and frames that are not padding.
            show_context: ``[B]`` bool, examples whose context (frames outside of the span, clean and noisy) is visible.
        """
        context = valid & ~span & show_context[:, None]
        visible = (context | (valid & span))[:, None]
        # `where`, not a product: invisible frames may hold NaN
        known, x = torch.where(context[:, None], known, 0.0), torch.where(visible, x, 0.0)
        return self.network(x, known, span & valid, t, valid, embeddings)

    @torch.no_grad()
    def inpaint(self, known: Tensor, span: Tensor, conditioning: Batch | None = None, **sampling: Any) -> Tensor:
        """Latents ``[B, C, F]`` with inpainted spans; all other frames are bit-identical to ``known``.

        Recordings longer than ``max_seconds`` are inpainted in windows (:func:`codec.flow.sampler.windows`). Raises
        InputError if the batch lacks what a condition needs, or an option is invalid.

        Args:
            known: normalised latents ``[B, C, F]``; values in the span are not read.
            span: ``[B, F]`` bool.
            conditioning: inputs of the conditions (``text``, ``phones``: lists of B; ``prompt`` ``[B, C, P]``,
                ``prompt_lengths`` ``[B]``), and ``lengths`` ``[B]`` where examples are padded on the right.
            sampling: see :class:`codec.flow.sampler.Sampling`.
        """
        options = Sampling(**sampling)
        conditioning = conditioning or {}
        batch, channels, frames = known.shape
        if span.shape != (batch, frames) or channels != self.network.channels or not frames:
            raise ValueError(
                f"latents {list(known.shape)} and span {list(span.shape)} must be [B, {self.network.channels}, F] and "
                "[B, F] bool"
            )
        lengths = torch.as_tensor(conditioning.get("lengths", [frames] * batch)).tolist()
        self._check(conditioning, lengths, frames)
        noise = noise_like(known, lengths, options.seed)
        if max(lengths) <= self.max_frames:
            valid = torch.arange(frames) < torch.tensor(lengths)[:, None]
            return self._sample(known, noise, span, valid.to(known.device), conditioning, options)
        out = known.clone()
        for n, length in enumerate(lengths):
            long = length > self.max_frames
            parts = windows(span[n, :length].cpu(), self.max_frames) if long else [(0, span[n, :length].cpu())]
            for done, (begin, part) in enumerate(parts):
                end = begin + len(part)
                window, part = (slice(n, n + 1), slice(None), slice(begin, end)), part[None].to(known.device)
                own = self._cut(conditioning, n, begin, end, length)
                before, share = (n + done / len(parts)) / batch, 1 / len(parts) / batch
                progress = lambda x, before=before, share=share: options.progress(before + share * x)  # noqa: E731
                within = replace(options, progress=progress)
                out[window] = self._sample(out[window], noise[window], part, part | True, own, within)
        return out

    def _sample(
        self, known: Tensor, noise: Tensor, span: Tensor, valid: Tensor, conditioning: Batch, options: Sampling
    ) -> Tensor:
        """Inpainted latents of examples of at most ``max_frames`` frames."""
        span = span & valid
        outside = ~span[:, None]
        batch, done, passes = len(known), 0, options.steps * EVALUATIONS[options.sampler]
        # conditional and unconditional in one pass; a side of weight 0 is not computed
        weights = {True: options.guidance, False: 1 - options.guidance}
        weights = {conditional: weight for conditional, weight in weights.items() if weight}
        repeat = lambda x: torch.cat([x] * len(weights))  # noqa: E731
        conditional = torch.tensor(list(weights), device=known.device).repeat_interleave(batch)
        embeddings = Embeddings(*map(repeat, self.condition(conditioning, valid))).where(conditional)
        inputs = repeat(known), repeat(span), repeat(valid), embeddings, conditional

        def field(x: Tensor, t: float) -> Tensor:
            nonlocal done
            x, at = repeat(x), torch.full((len(conditional),), t, device=x.device)
            velocities = self.objective.velocity(self(x, at, *inputs).float(), x, at).chunk(len(weights))
            done += 1
            options.progress(done / passes)
            return sum(weight * velocity for weight, velocity in zip(weights.values(), velocities, strict=True))

        def put_back(x: Tensor, t: float) -> Tensor:
            return torch.where(outside, on_path(known, noise, torch.full((batch,), t, device=x.device)), x)

        return torch.where(outside, known, integrate(field, noise, options.steps, options.sampler, put_back))

    def _check(self, conditioning: Batch, lengths: Sequence[int], frames: int) -> None:
        """Raises InputError if conditioning and lengths do not fit the conditions."""
        self.condition.check(conditioning, len(lengths))
        for n, length in enumerate(lengths):
            own = {name: conditioning[name][n] for name in ("text", "phones") if conditioning.get(name)}
            if length < frames and (reason := self.condition.refusal(own, length)):
                raise InputError(f"recording {n + 1} of {len(lengths)} cannot be inpainted: it is {reason}")
        if max(lengths) > self.max_frames and self.condition.needs_whole:
            seconds, most = max(lengths) / self.frame_rate, self.max_frames / self.frame_rate
            raise InputError(
                f"{seconds:.1f} s are more than the {most:.1f} s that this model was trained on, and its text has no "
                "times by which it could be cut: give a shorter recording with its text"
            )

    def _cut(self, conditioning: Batch, n: int, begin: int, end: int, length: int) -> dict[str, Any]:
        """Conditioning of example ``n`` from frame ``begin`` to ``end``."""
        own: dict[str, Any] = {name: [conditioning[name][n]] for name in ("text", "phones") if conditioning.get(name)}
        if own.get("phones") and (begin > 0 or end < length):
            own["phones"] = [cut_phones(own["phones"][0], begin / self.frame_rate, end / self.frame_rate)]
        for name in ("prompt", "prompt_lengths"):
            if conditioning.get(name) is not None:
                own[name] = conditioning[name][n : n + 1]
        return own


def cut_phones(phones: Sequence[tuple[str, float]], start: float, end: float) -> list[tuple[str, float]]:
    """Phones from ``start`` to ``end`` (seconds), with times from ``start``. Raises InputError if a time is unknown."""
    if any(time is None for _, time in phones):
        raise InputError("phones without times cannot be cut: give the start time of each, or a shorter recording")
    before = [(symbol, 0.0) for symbol, time in phones if time <= start]
    return before[-1:] + [(symbol, time - start) for symbol, time in phones if start < time < end]
