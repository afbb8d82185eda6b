"""Speech from a flow model and its codec: inpainting, text-to-speech, replacement of words."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.flow.editing import Edit, Phones, longest_known, span_frames
from codec.flow.load import codec_ckpt_of, load_with_config, statistics_of
from codec.flow.masking import runs
from codec.flow.model import FlowModel
from codec.flow.sampler import DEFAULT, Sampling
from codec.latents.latent_space import LatentSpace
from codec.utils.errors import InputError

FADE = 0.02  # seconds of cross-fade at the edges of what is generated
PROMPT = 3.0  # seconds of a prompt at most, as in training (conf/task/flow.yaml)


class Generator:
    """Deterministic speech generation by a flow model and the codec of its latents. Waveforms are mono float32 ``[T]``
    at ``sample_rate``. ``space`` is on the model's device; its codec may be in inference form."""

    def __init__(self, flow: FlowModel, space: LatentSpace):
        self.flow, self.space = flow, space
        self.sample_rate, self.hop, self.frame_rate = space.sample_rate, space.codec.hop_length, space.frame_rate

    @classmethod
    def load(cls, flow: str | Path, ckpt: str | Path | None = None, device: str = "cpu", ema: bool = True):
        """Generator from the checkpoints of a flow model and of its codec (None: the path stored in training); ``ema``:
        with averaged weights of the flow model (a codec's are always averaged). Raises CheckpointError if one cannot be
        read or is of another kind, InputError if the codec is not found or has other latents."""
        model, config = load_with_config(flow, ema)
        space = LatentSpace.load(ckpt or codec_ckpt_of(flow, config), statistics_of(model), device=device)
        space.codec.for_inference()
        return cls(model.to(device), space)

    def inpaint(
        self,
        wav: np.ndarray,
        spans: Sequence[tuple[float, float]],
        *,
        text: str = "",
        phones: Phones = (),
        prompt: np.ndarray | None = None,
        sampling: Sampling = DEFAULT,
        resynthesise: bool = False,
    ) -> np.ndarray:
        """Recording ``[T]`` with inpainted ``spans`` (start and end in seconds).

        Args:
            text, phones: of the whole recording, including the new content of the spans.
            prompt: speech of the speaker, if the model has prompts; None: longest part of the recording outside of the
                spans.
            resynthesise: return the codec's reconstruction outside of the spans, too.

        Raises InputError if a span is invalid, or an input of the model's conditions is missing.
        """
        span = np.zeros(-(-len(wav) // self.hop), bool)
        for first, end in span_frames(spans, len(wav) / self.sample_rate, self.frame_rate):
            span[first:end] = True
        return self._mixed(
            self._sample(self.latents(wav), span, text, phones, prompt, sampling), wav, span, resynthesise
        )

    def speak(
        self,
        seconds: float,
        *,
        text: str = "",
        phones: Phones = (),
        prompt: np.ndarray | None = None,
        before: np.ndarray | None = None,
        sampling: Sampling = DEFAULT,
    ) -> np.ndarray:
        """Speech ``[T]`` of ``seconds``, in the voice of ``prompt`` where the model has prompts.

        ``before`` ``[T]``: speech to continue, as in F5-TTS (arXiv 2410.06885, section 3.1), for models without
        prompts; text and phones are then of both, and only the continuation is returned. Raises InputError if
        ``seconds`` is less than a frame, an input of the conditions is missing, or the model has no text.
        """
        if not self.flow.condition.transcripts:
            raise InputError("this model was trained without text and phones, and cannot speak a text")
        if seconds * self.frame_rate < 1:
            least = math.ceil(1e4 / self.frame_rate) / 1e4
            raise InputError(f"{seconds:g} s of speech are shorter than a latent frame: give {least:g}")
        new = math.ceil(seconds * self.frame_rate)
        known = torch.zeros(1, self.space.dim, new, device=self.space.mean.device)
        if before is not None:
            self._check_prompt(before)
            known = torch.cat([self.latents(before), known], dim=-1)
        first = known.shape[-1] - new
        sampled = self._sample(known, np.arange(first + new) >= first, text, phones, prompt, sampling)
        start, end = first * self.hop, first * self.hop + round(seconds * self.sample_rate)
        return self._decoded(sampled, end)[start:]

    def edit(
        self,
        wav: np.ndarray,
        plan: Edit,
        *,
        prompt: np.ndarray | None = None,
        sampling: Sampling = DEFAULT,
        resynthesise: bool = False,
    ) -> np.ndarray:
        """Recording with words replaced as :func:`codec.flow.editing.plan_edit` plans; otherwise as :meth:`inpaint`."""
        latents = self.latents(wav)
        gap = latents.new_zeros(1, latents.shape[1], plan.frames)
        latents = torch.cat([latents[..., : plan.first], gap, latents[..., plan.end :]], dim=-1)
        silence = np.zeros(plan.frames * self.hop, np.float32)
        wav = np.concatenate([wav[: plan.first * self.hop], silence, wav[plan.end * self.hop :]])
        span = np.zeros(latents.shape[-1], bool)
        span[plan.first : plan.first + plan.frames] = True
        return self._mixed(
            self._sample(latents, span, plan.text, plan.phones, prompt, sampling), wav, span, resynthesise
        )

    def latents(self, wav: np.ndarray) -> Tensor:
        """Waveform ``[T]`` -> normalised latents ``[1, C, F]``."""
        return self.space.encode(torch.from_numpy(wav)[None, None].to(self.space.mean.device))

    def _sample(
        self,
        known: Tensor,
        span: np.ndarray,
        text: str,
        phones: Phones,
        prompt: np.ndarray | None,
        sampling: Sampling,
    ) -> Tensor:
        """Inpainted latents ``[1, C, F]`` of known ``[1, C, F]`` with span ``[F]`` bool."""
        transcripts = {"text": [text], "phones": [list(phones)]}
        conditioning: dict[str, Any] = {name: transcripts[name] for name in self.flow.condition.transcripts}
        if self.flow.condition.needs_prompt:
            conditioning["prompt"] = self._prompt(known, span, prompt)
        mask = torch.from_numpy(span)[None].to(known.device)
        latents = self.flow.inpaint(known, mask, conditioning, **vars(sampling))
        if not bool(latents.isfinite().all()):
            raise InputError("the model's latents are not finite: has its training diverged?")
        return latents

    def _prompt(self, known: Tensor, span: np.ndarray, prompt: np.ndarray | None) -> Tensor:
        """Latents ``[1, C, P]`` of the speaker's prompt."""
        most = max(1, int(PROMPT * self.frame_rate))
        if prompt is None:
            first, end = longest_known(span, most)
            if first == end:
                raise InputError("this model needs a speaker prompt: give a recording of the voice, --prompt VOICE")
            return known[..., first:end]
        self._check_prompt(prompt)
        return self.latents(prompt[: most * self.hop])[..., : len(prompt) // self.hop]

    def _check_prompt(self, wav: np.ndarray) -> None:
        if len(wav) < self.hop:
            raise InputError(f"the prompt is shorter than a latent frame, {1 / self.frame_rate:g} s: give some seconds")

    def _mixed(self, latents: Tensor, wav: np.ndarray, span: np.ndarray, resynthesise: bool) -> np.ndarray:
        decoded = self._decoded(latents, len(wav))
        if resynthesise:
            return decoded
        return crossfade(wav, decoded, np.repeat(span, self.hop)[: len(wav)], round(FADE * self.sample_rate))

    def _decoded(self, latents: Tensor, length: int) -> np.ndarray:
        return self.space.decode(latents, length)[0, 0].clamp(-1, 1).float().cpu().numpy()


def crossfade(wav: np.ndarray, decoded: np.ndarray, new: np.ndarray, fade: int) -> np.ndarray:
    """``decoded`` where ``new`` is true, else ``wav``, all ``[T]``; linear fades over ``fade`` samples on both
    sides."""
    share = new.astype(np.float32)
    ramp = np.arange(1, fade + 1, dtype=np.float32) / (fade + 1)
    for first, end in zip(*runs(new), strict=True):
        before, after = share[max(0, first - fade) : first], share[end : end + fade]
        np.maximum(before, ramp[fade - len(before) :], out=before)
        np.maximum(after, ramp[::-1][: len(after)], out=after)
    return (1 - share) * wav + share * decoded
