"""Flow models before the judges: spans of held-out recordings, filled in as latents of one codec, decoded and scored.

    space = LatentSpace.load("codec.ckpt", statistics_of(flow))
    recordings, skipped = with_spans(corpus.clips("test"), space.sample_rate)
    trial = Trial(space, recordings, Panel.apart_from({recording.speaker for recording in recordings}))
    reports = trial.bounds() | {"flow": trial.judge(flow)}
    print(table(reports, trial.panel))

Latents are those of the whole recording, as in training: where an encoder's frames hear beyond themselves, traces of
the span are left in its neighbours, which all systems on one codec have, the floor among them, and systems on different
codecs have not. ``silenced`` bounds what they are worth: what is known is then encoded with silence in the span.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from codec.evaluation.report import Report
from codec.flow.evaluation.bounds import copy_synthesis, frames_of, interpolation
from codec.flow.evaluation.panel import Panel, Recording
from codec.flow.evaluation.table import CEILING, FLOOR, RECORDING, judged
from codec.flow.model import FlowModel
from codec.utils.errors import InputError

BATCH = 16  # recordings that are filled in together
PROMPT = 3.0  # seconds at most, as the longest in training


@dataclass(frozen=True)
class Hidden:
    """A recording as a system gets it: ``known`` latents ``[C, F]``, normalised, and ``span`` ``[F]`` bool, true where
    they are to be filled in, whatever stands there."""

    recording: Recording
    known: Tensor
    span: Tensor


System = Callable[[Sequence[Hidden]], Sequence[Tensor | InputError]]
"""Recordings -> latents ``[C, F]`` of each with the span filled in, or why there are none."""


class Trial:
    """Recordings with spans in the latents of one codec, encoded once for all systems.

    Args:
        space: with ``encode(wav [1, 1, T]) -> [1, C, F]``, ``decode(x, length=T) -> [1, 1, T]``, ``frame_rate``,
            ``sample_rate`` and, for flow models, what else :class:`codec.latents.latent_space.LatentSpace` has.
        recordings: as :func:`codec.flow.evaluation.table.with_spans` gives them, at the sample rate of ``space``.
        panel: the judges.
        heard: of so many recordings every system's sound is kept in ``sounds``, by system and clip.
        silenced: what is known are latents of the recording with silence in the span; in the span they stay the true
            ones, for the ceiling.
    """

    def __init__(
        self, space: Any, recordings: Sequence[Recording], panel: Panel, heard: int = 0, silenced: bool = False
    ):
        self.space, self.recordings, self.panel, self.silenced = space, list(recordings), panel, silenced
        self.heard = self.recordings[:heard]
        self.sounds: dict[str, dict[str, np.ndarray | InputError]] = {}
        self.hidden = [self._encoded(recording) for recording in self.recordings]

    def bounds(self) -> dict[str, Report]:
        """What stands in every table: the recordings themselves, which show the errors of the judges, ceiling and
        floor."""
        wavs = {recording.clip: recording.wav for recording in self.recordings}
        return {
            RECORDING: judged(RECORDING, self.recordings, wavs, self.space.sample_rate, self.panel),
            CEILING: self.score(CEILING, _one_by_one(copy_synthesis)),
            FLOOR: self.score(FLOOR, _one_by_one(interpolation)),
        }

    def judge(
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
        """The report of a flow model, see :func:`codec.flow.evaluation.table.judged`; its facts have the options.

        The model is told what its conditions ask for: the text, the phones with their times, and as a prompt up to 3 s
        of the longer side of the recording, those farthest from the span. A recording that it cannot be told about is a
        failure.

        Args:
            name: of the system, in the report.
            steps, guidance, sampler: see :meth:`codec.flow.model.FlowModel.inpaint`.
            seed: of the noise: the same seed and recordings give the same numbers on one machine.
            progress: called with the share that is filled in.

        Raises:
            InputError: if it was trained on other latents, an option cannot be, or no recording can be used.
        """
        if flow.fingerprint != self.space.fingerprint:
            raise InputError(f"{name} was trained on other latents than this codec's: give the codec of its training")
        told: dict[str, Any] = {"steps": steps, "guidance": guidance, "sampler": sampler}
        return self.score(
            name, lambda hidden: filled(flow, self.space, hidden, seed, progress, **told), told | {"seed": seed}
        )

    def score(self, name: str, system: System, facts: Mapping[str, Any] | None = None) -> Report:
        """The report of any system on latents.

        Raises:
            ValueError: if it changes latents outside of a span.
            InputError: if there is no recording.
        """
        found: dict[str, np.ndarray | InputError] = {}
        for hidden, latents in zip(self.hidden, system(self.hidden), strict=True):
            clip = hidden.recording.clip
            found[clip] = latents if isinstance(latents, InputError) else self._decoded(hidden, latents)
        self.sounds[name] = {recording.clip: found[recording.clip] for recording in self.heard}
        about = {"frame_rate": self.space.frame_rate, "silenced": self.silenced, **(facts or {})}
        return judged(name, self.recordings, found, self.space.sample_rate, self.panel, about)

    @torch.inference_mode()
    def _encoded(self, recording: Recording) -> Hidden:
        wav = torch.from_numpy(recording.wav)[None, None]
        known = self.space.encode(wav)[0]
        span = frames_of(recording.span, known.shape[-1], self.space.frame_rate)
        if self.silenced:
            start, end = (round(time * self.space.sample_rate) for time in recording.span)
            quiet = wav.clone()
            quiet[..., start:end] = 0
            known = torch.where(span.to(known.device), known, self.space.encode(quiet)[0])
        return Hidden(recording, known, span)

    @torch.inference_mode()
    def _decoded(self, hidden: Hidden, latents: Tensor) -> np.ndarray:
        known, kept = hidden.known, ~hidden.span
        if latents.shape != known.shape or not torch.equal(latents[:, kept], known[:, kept]):
            raise ValueError("a system changed latents outside of the span")
        return self.space.decode(latents[None], length=len(hidden.recording.wav))[0, 0].float().cpu().numpy()


def _one_by_one(fill: Callable[[Tensor, Tensor], Tensor]) -> System:
    return lambda hidden: [fill(one.known[None], one.span[None])[0] for one in hidden]


def filled(
    flow: FlowModel,
    space: Any,
    hidden: Sequence[Hidden],
    seed: int,
    progress: Callable[[float], None] = lambda share: None,
    **sampling: Any,
) -> list[Tensor | InputError]:
    """A flow model as a system, see :meth:`Trial.judge`.

    It may have been trained on latents that were normalised by other statistics than those of ``space``.
    """
    found: list[Tensor | InputError] = [
        InputError(f"the recording is {reason}") if (reason := refusal(flow, one)) else one.known for one in hidden
    ]
    usable = [n for n, one in enumerate(found) if isinstance(one, Tensor)]
    if not usable:
        raise InputError(
            f"the model cannot be told about any of {len(hidden)} recordings: {found[0]}"
            if found
            else "there is no recording to fill in"
        )
    usable.sort(key=lambda n: len(hidden[n].span))  # little to fill up in a batch
    mean, std, device = flow.mean[:, None], flow.std[:, None], flow.mean.device
    for first in range(0, len(usable), BATCH):
        numbers = usable[first : first + BATCH]
        batch = [hidden[n] for n in numbers]
        own = [(space.denormalise(one.known).to(device) - mean) / std for one in batch]
        known = pad_sequence([x.t() for x in own], batch_first=True).transpose(1, 2)
        span = pad_sequence([one.span for one in batch], batch_first=True).to(device)
        out = flow.inpaint(
            known,
            span,
            given(flow, batch, own),
            seed=seed * len(hidden) + first,  # the noise of an example is that of seed + its place in the batch
            progress=lambda share: progress((first + share * len(numbers)) / len(usable)),  # noqa: B023, called at once
            **sampling,
        )
        for n, one, latents in zip(numbers, batch, out, strict=True):
            latents = space.normalise((latents[:, : len(one.span)] * std + mean).to(one.known))
            found[n] = torch.where(one.span.to(latents.device), latents, one.known)
    return found


def refusal(flow: FlowModel, hidden: Hidden) -> str:
    """Why a model cannot be told about a recording; "" if it can."""
    recording, frames = hidden.recording, len(hidden.span)
    if flow.condition.whole and frames > flow.max_frames:
        return f"longer than the {flow.max_frames / flow.frame_rate:g} s that the model was trained on"
    return flow.condition.refusal({"text": recording.text, "phones": recording.phones}, frames)


def given(flow: FlowModel, batch: Sequence[Hidden], known: Sequence[Tensor]) -> dict[str, Any]:
    """What a model is told; ``known`` ``[C, F]`` of each, normalised as it was trained."""
    told: dict[str, Any] = {
        "text": [one.recording.text for one in batch],
        "phones": [one.recording.phones for one in batch],
        "lengths": torch.tensor([len(one.span) for one in batch]),
    }
    if flow.condition.prompted:
        most = max(1, round(PROMPT * flow.frame_rate))
        prompts = [prompt(x, one.span, most) for x, one in zip(known, batch, strict=True)]
        told["prompt"] = pad_sequence([x.t() for x in prompts], batch_first=True).transpose(1, 2)
        told["prompt_lengths"] = torch.tensor([x.shape[1] for x in prompts])
    return told


def prompt(known: Tensor, span: Tensor, most: int) -> Tensor:
    """Latents ``[C, F]`` with a span ``[F]`` -> ``[C, P]`` of what is before it, or of what is after it where that is
    more: those farthest from the span, ``most`` of them at most."""
    inside = span.nonzero()[:, 0]
    before, after = known[:, : int(inside[0])], known[:, int(inside[-1]) + 1 :]
    return before[:, :most] if before.shape[1] >= after.shape[1] else after[:, -most:]
