"""Inpainting benchmark: flow models inpaint spans of held-out recordings in a codec's latents; judges score the audio.

Latents are those of the whole recording, as in training: where an encoder has context, the neighbours of the span
contain traces of it, equal for all systems on one codec, not across codecs; ``silenced`` bounds their value. Usage:
codec/cli/judge.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from codec.evaluation.report import Report
from codec.flow.evaluation.panel import Panel
from codec.flow.evaluation.spans import Recording, frame_mask
from codec.flow.evaluation.table import CEILING, FLOOR, RECORDING, span_report
from codec.flow.model import FlowModel
from codec.utils.errors import InputError

BATCH = 16  # recordings that are inpainted together
PROMPT = 3.0  # seconds at most, as the longest in training


@dataclass(frozen=True)
class Masked:
    """Input of a system: normalised latents ``known`` ``[C, F]``, to be inpainted where ``span`` ``[F]`` is true."""

    recording: Recording
    known: Tensor
    span: Tensor


System = Callable[[Sequence[Masked]], Sequence[Tensor | InputError]]
"""Inputs -> latents ``[C, F]`` of each with the span inpainted, or why there are none."""


class InpaintingBenchmark:
    """Recordings with spans to inpaint in the latents of one codec, encoded once for all systems.

    Args:
        space: a :class:`codec.latents.latent_space.LatentSpace`.
        recordings: at its sample rate (:func:`codec.flow.evaluation.spans.with_spans`).
        examples: number of recordings whose decoded audio is stored in ``decoded``, by system and clip.
        silenced: encode the known latents with silence in the span; in the span they stay the true ones, for the
            ceiling.
    """

    def __init__(
        self, space: Any, recordings: Sequence[Recording], panel: Panel, examples: int = 0, silenced: bool = False
    ):
        self.space, self.recordings, self.panel, self.silenced = space, list(recordings), panel, silenced
        self.examples = self.recordings[:examples]
        self.decoded: dict[str, dict[str, np.ndarray | InputError]] = {}
        self.masked = [self._encode(recording) for recording in self.recordings]

    def bounds(self) -> dict[str, Report]:
        """Reports of the recordings (judges' errors), copy synthesis (ceiling: codec) and interpolation (floor)."""
        wavs = {recording.clip: recording.wav for recording in self.recordings}
        return {
            RECORDING: span_report(RECORDING, self.recordings, wavs, self.space.sample_rate, self.panel),
            CEILING: self.score(CEILING, lambda masked: [one.known for one in masked]),
            FLOOR: self.score(FLOOR, lambda masked: [interpolation(one.known, one.span) for one in masked]),
        }

    def evaluate(
        self,
        flow: FlowModel,
        name: str = "flow",
        *,
        steps: int = 16,
        guidance: float = 2.0,
        sampler: str = "euler",
        seed: int = 0,
        progress: Callable[[float], None] = lambda share: None,
    ) -> Report:
        """Report of a flow model (:func:`codec.flow.evaluation.table.span_report`); its facts contain the options.

        Conditioning is what the model needs of the text, the phones with their times, and as a prompt up to 3 s of the
        longer side of the recording, farthest from the span; a recording that lacks any of these is a failure. ``seed``
        of the noise: results repeat on one machine. Other options: :meth:`codec.flow.model.FlowModel.inpaint`. Raises
        InputError if the model was trained on other latents, an option is not valid, or no recording can be used.
        """
        if flow.fingerprint != self.space.fingerprint:
            raise InputError(f"{name} was trained on other latents than this codec's: give the codec of its training")
        options: dict[str, Any] = {"steps": steps, "guidance": guidance, "sampler": sampler}
        system = lambda masked: inpaint(flow, self.space, masked, seed, progress, **options)  # noqa: E731
        return self.score(name, system, options | {"seed": seed})

    def score(self, name: str, system: System, facts: Mapping[str, Any] | None = None) -> Report:
        """Report of any system on latents.

        Raises ValueError if it changes latents outside of a span, InputError if there is no recording.
        """
        decoded: dict[str, np.ndarray | InputError] = {}
        for masked, latents in zip(self.masked, system(self.masked), strict=True):
            clip = masked.recording.clip
            decoded[clip] = latents if isinstance(latents, InputError) else self._decode(masked, latents)
        self.decoded[name] = {recording.clip: decoded[recording.clip] for recording in self.examples}
        about = {"frame_rate": self.space.frame_rate, "silenced": self.silenced, **(facts or {})}
        return span_report(name, self.recordings, decoded, self.space.sample_rate, self.panel, about)

    @torch.inference_mode()
    def _encode(self, recording: Recording) -> Masked:
        wav = torch.from_numpy(recording.wav)[None, None]
        known = self.space.encode(wav)[0]
        span = frame_mask(recording.span, known.shape[-1], self.space.frame_rate)
        if self.silenced:
            start, end = (round(time * self.space.sample_rate) for time in recording.span)
            quiet = wav.clone()
            quiet[..., start:end] = 0
            known = torch.where(span.to(known.device), known, self.space.encode(quiet)[0])
        return Masked(recording, known, span)

    @torch.inference_mode()
    def _decode(self, masked: Masked, latents: Tensor) -> np.ndarray:
        known, outside = masked.known, ~masked.span
        if latents.shape != known.shape or not torch.equal(latents[:, outside], known[:, outside]):
            raise ValueError("a system changed latents outside of the span")
        return self.space.decode(latents[None], length=len(masked.recording.wav))[0, 0].float().cpu().numpy()


def interpolation(known: Tensor, span: Tensor) -> Tensor:
    """Latents ``[C, F]``, linearly interpolated across the span ``[F]``; at an end the nearest known frame repeats."""
    if span.all():
        raise InputError("the span covers a whole recording: there is nothing to interpolate between")
    frames = torch.arange(len(span), device=known.device)
    given = frames[~span]
    after = torch.searchsorted(given, frames[span])
    right, left = given[after.clamp(max=len(given) - 1)], given[(after - 1).clamp(min=0)]
    share = (frames[span] - left) / (right - left).clamp(min=1)
    share = torch.where(right > left, share.clamp(0, 1), 0.0).to(known.dtype)
    out = known.clone()
    out[:, span] = known[:, left] * (1 - share) + known[:, right] * share
    return out


def inpaint(
    flow: FlowModel,
    space: Any,
    masked: Sequence[Masked],
    seed: int,
    progress: Callable[[float], None] = lambda share: None,
    **sampling: Any,
) -> list[Tensor | InputError]:
    """Latents inpainted by a flow model, or why there are none; its normalisation may differ from that of ``space``."""
    found: list[Tensor | InputError] = [
        InputError(f"the recording is {reason}") if (reason := _unusable(flow, one)) else one.known for one in masked
    ]
    usable = [n for n, one in enumerate(found) if isinstance(one, Tensor)]
    if not usable:
        reason = f"the model can use none of {len(found)} recordings: {found[0]}" if found else "there is no recording"
        raise InputError(reason)
    usable.sort(key=lambda n: len(masked[n].span))  # little padding in a batch
    mean, std, device = flow.mean[:, None], flow.std[:, None], flow.mean.device
    for first in range(0, len(usable), BATCH):
        numbers = usable[first : first + BATCH]
        batch = [masked[n] for n in numbers]
        own = [(space.denormalise(one.known).to(device) - mean) / std for one in batch]
        out = flow.inpaint(
            pad_sequence([x.t() for x in own], batch_first=True).transpose(1, 2),
            pad_sequence([one.span for one in batch], batch_first=True).to(device),
            conditioning(flow, batch, own),
            seed=seed * len(masked) + first,  # the noise of an example is that of seed + its place in the batch
            progress=lambda share: progress((first + share * len(numbers)) / len(usable)),  # noqa: B023, called at once
            **sampling,
        )
        for n, one, latents in zip(numbers, batch, out, strict=True):
            latents = space.normalise((latents[:, : len(one.span)] * std + mean).to(one.known))
            found[n] = torch.where(one.span.to(latents.device), latents, one.known)
    return found


def _unusable(flow: FlowModel, masked: Masked) -> str:
    """Why a model cannot inpaint a recording; "" if it can."""
    recording, frames = masked.recording, len(masked.span)
    if flow.condition.needs_whole and frames > flow.max_frames:
        return f"longer than the {flow.max_frames / flow.frame_rate:g} s that the model was trained on"
    return flow.condition.refusal({"text": recording.text, "phones": recording.phones}, frames)


def conditioning(flow: FlowModel, batch: Sequence[Masked], known: Sequence[Tensor]) -> dict[str, Any]:
    """Inputs of the model's conditions for a batch; ``known`` ``[C, F]`` of each, normalised as in its training."""
    fields: dict[str, Any] = {
        "text": [one.recording.text for one in batch],
        "phones": [one.recording.phones for one in batch],
        "lengths": torch.tensor([len(one.span) for one in batch]),
    }
    if flow.condition.needs_prompt:
        most = max(1, round(PROMPT * flow.frame_rate))
        prompts = [prompt(x, one.span, most) for x, one in zip(known, batch, strict=True)]
        fields["prompt"] = pad_sequence([x.t() for x in prompts], batch_first=True).transpose(1, 2)
        fields["prompt_lengths"] = torch.tensor([x.shape[1] for x in prompts])
    return fields


def prompt(known: Tensor, span: Tensor, most: int) -> Tensor:
    """Prompt ``[C, P]``, P up to ``most``, from the longer side of the span ``[F]`` in ``known``, farthest from it."""
    inside = span.nonzero()[:, 0]
    before, after = known[:, : int(inside[0])], known[:, int(inside[-1]) + 1 :]
    return before[:, :most] if before.shape[1] >= after.shape[1] else after[:, -most:]
