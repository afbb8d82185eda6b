"""The flow model: a network, what it is told, what it has learned, and filling in spans with it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from codec.flow.conditioning import Batch, Conditions, Given
from codec.flow.dit import DiT
from codec.flow.objective import Objective, on_path
from codec.flow.sampler import EVALUATIONS, integrate, noise_like, windows
from codec.quantizers.base import KINDS
from codec.utils.errors import InputError


class FlowModel(nn.Module):
    """Fills in spans of normalised latents ``[B, C, F]`` (codec/latents/latent_space.py).

    Its buffers ``mean`` and ``std`` ``[C]`` are those of the latents before they were normalised.

    Args:
        network, condition, objective: the parts.
        sample_rate: of the codec, Hz.
        hop_length: samples for each frame of latents.
        fingerprint: of the latent space; other codecs' latents mean something else.
        kind: of the latents, ``pre`` or ``post``.
        max_seconds: the longest piece it was trained on.

    Raises:
        ValueError: if these are no latents.
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
            raise ValueError(
                f"latents are of a codec with a fingerprint, and of kind {' or '.join(KINDS)}, not {kind!r}"
            )
        if min(sample_rate, hop_length) < 1 or not 0 < max_seconds < math.inf:
            raise ValueError("sample_rate, hop_length and max_seconds are above 0")
        self.network, self.condition, self.objective = network, condition, objective
        self.sample_rate, self.hop_length, self.fingerprint, self.kind = sample_rate, hop_length, fingerprint, kind
        self.frame_rate = sample_rate / hop_length
        self.max_frames = max(1, int(max_seconds * self.frame_rate))
        self.register_buffer("mean", torch.zeros(network.channels))
        self.register_buffer("std", torch.ones(network.channels))

    def forward(
        self, x: Tensor, t: Tensor, known: Tensor, span: Tensor, inside: Tensor, given: Given, seen: Tensor
    ) -> Tensor:
        """The network's output ``[B, C, F]``, which the objective turns into losses or a velocity.

        Args:
            x, known: ``[B, C, F]``, noisy and clean.
            t: ``[B]``.
            span, inside: ``[B, F]`` bool, what is to be filled in, and where an example has not ended.
            given: what else it is told.
            seen: ``[B]`` bool, which examples see what is known, clean and noisy. The others see the span alone.
        """
        context = inside & ~span & seen[:, None]
        visible = (context | (inside & span))[:, None]
        # `where`, not a product: what is hidden may be anything
        known, x = torch.where(context[:, None], known, 0.0), torch.where(visible, x, 0.0)
        return self.network(x, known, span & inside, t, inside, given)

    @torch.no_grad()
    def inpaint(
        self,
        known: Tensor,
        span: Tensor,
        given: Batch | None = None,
        *,
        steps: int = 32,
        guidance: float = 2.0,
        sampler: str = "euler",
        seed: int = 0,
        progress: Callable[[float], None] = lambda share: None,
    ) -> Tensor:
        """Latents ``[B, C, F]`` with their spans filled in; everything else is as it was, to the bit.

        More frames than the model was trained on are filled in piece by piece (:func:`codec.flow.sampler.windows`).

        Args:
            known: ``[B, C, F]`` normalised; what stands in the span is not looked at.
            span: ``[B, F]`` bool.
            given: what the conditions ask for (``text``, ``phones``: lists of B; ``prompt`` ``[B, C, P]``,
                ``prompt_lengths``), and ``lengths`` ``[B]`` where examples are padded on the right.
            steps: of the sampler, each one pass of the network (midpoint: two), twice as wide with guidance.
            guidance: w in ``free + w (told - free)``: 1 is none, 0 samples without being told or shown anything.
            sampler: ``euler`` or ``midpoint``.
            seed: the same gives the same.
            progress: called with the share that is done.

        Raises:
            InputError: if the batch lacks what a condition asks for, or an option cannot be.
            ValueError: if shapes do not fit.
        """
        given = given or {}
        batch, channels, frames = known.shape
        if span.shape != (batch, frames) or channels != self.network.channels or not frames:
            raise ValueError(
                f"latents {list(known.shape)} and span {list(span.shape)}: [B, {self.network.channels}, F]"
                " and [B, F] bool are wanted"
            )
        lengths = torch.as_tensor(given.get("lengths", [frames] * batch)).tolist()
        self._check(given, lengths, frames)
        noise = noise_like(known, lengths, seed)
        told = {"steps": steps, "guidance": guidance, "sampler": sampler}
        if max(lengths) <= self.max_frames:
            inside = torch.arange(frames) < torch.tensor(lengths)[:, None]
            return self._fill(known, noise, span, inside.to(known.device), given, progress, **told)
        out = known.clone()
        for n, length in enumerate(lengths):
            long = length > self.max_frames
            pieces = windows(span[n, :length].cpu(), self.max_frames) if long else [(0, span[n, :length].cpu())]
            for done, (begin, part) in enumerate(pieces):
                end = begin + len(part)
                window = (slice(n, n + 1), slice(None), slice(begin, end))
                part = part[None].to(known.device)
                report = _share(progress, (n + done / len(pieces)) / batch, 1 / len(pieces) / batch)
                own = self._piece(given, n, begin, end, length)
                out[window] = self._fill(out[window], noise[window], part, part | True, own, report, **told)
        return out

    def _fill(
        self,
        known: Tensor,
        noise: Tensor,
        span: Tensor,
        inside: Tensor,
        given: Batch,
        progress: Callable[[float], None],
        steps: int,
        guidance: float,
        sampler: str,
    ) -> Tensor:
        """Spans of examples that are not too long."""
        span = span & inside
        kept = ~span[:, None]
        batch, done, passes = len(known), 0, steps * EVALUATIONS.get(sampler, 1)
        # told and shown all; told and shown nothing: together in one pass
        sides = [side for side, weight in ((True, guidance), (False, 1 - guidance)) if weight]
        keep = torch.tensor(sides, device=known.device).repeat_interleave(batch)
        told = self.condition(given, inside)
        told = Given(*(torch.cat([part] * len(sides)) for part in told)).kept(keep)
        wide = lambda x: torch.cat([x] * len(sides))  # noqa: E731
        wide_known, wide_span, wide_inside = wide(known), wide(span), wide(inside)

        def field(x: Tensor, t: float) -> Tensor:
            nonlocal done
            at = torch.full((len(keep),), t, device=x.device)
            output = self(wide(x), at, wide_known, wide_span, wide_inside, told, keep).float()
            velocities = dict(zip(sides, self.objective.velocity(output, wide(x), at).chunk(len(sides)), strict=True))
            done += 1
            progress(done / passes)
            return sum((guidance if side else 1 - guidance) * velocity for side, velocity in velocities.items())

        def put_back(x: Tensor, t: float) -> Tensor:
            return torch.where(kept, on_path(known, noise, torch.full((batch,), t, device=x.device)), x)

        return torch.where(kept, known, integrate(field, noise, steps, sampler, put_back))

    def _check(self, given: Batch, lengths: Sequence[int], frames: int) -> None:
        """Raises InputError for what the conditions could not say afterwards."""
        self.condition.check(given, len(lengths))
        for n, length in enumerate(lengths):
            own = {name: given[name][n] for name in ("text", "phones") if given.get(name)}
            if length < frames and (reason := self.condition.refusal(own, length)):
                raise InputError(f"recording {n + 1} of {len(lengths)} cannot be filled in: it is {reason}")
        if max(lengths) > self.max_frames and self.condition.whole:
            seconds, most = max(lengths) / self.frame_rate, self.max_frames / self.frame_rate
            raise InputError(
                f"{seconds:.1f} s are more than the {most:.1f} s that this model was trained on, and its text has no "
                "times by which it could be cut: give a shorter recording with its text"
            )

    def _piece(self, given: Batch, n: int, begin: int, end: int, length: int) -> dict[str, Any]:
        """What is given of one example, from frame ``begin`` to ``end``."""
        own: dict[str, Any] = {name: [given[name][n]] for name in ("text", "phones") if given.get(name)}
        if own.get("phones") and (begin > 0 or end < length):
            own["phones"] = [cut_phones(own["phones"][0], begin / self.frame_rate, end / self.frame_rate)]
        for name in ("prompt", "prompt_lengths"):
            if given.get(name) is not None:
                own[name] = given[name][n : n + 1]
        return own


def _share(progress: Callable[[float], None], before: float, size: float) -> Callable[[float], None]:
    """The progress of a part of the whole that begins when ``before`` of it is done."""
    return lambda share: progress(before + size * share)


def cut_phones(phones: Sequence[tuple[str, float]], start: float, end: float) -> list[tuple[str, float]]:
    """Phones of the time from ``start`` to ``end`` (seconds), which is then 0: those that begin within, after the one
    that sounds at its beginning.

    Raises:
        InputError: if their times are not known.
    """
    if any(time is None for _, time in phones):
        raise InputError(
            "phones without times cannot be cut: say when each of them starts, or give a shorter recording"
        )
    before = [(symbol, 0.0) for symbol, time in phones if time <= start]
    return before[-1:] + [(symbol, time - start) for symbol, time in phones if start < time < end]
