"""Sound from a flow model and its codec: spans of a recording filled in, a text spoken, words replaced."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.flow.editing import Edit, Phones, longest_known, span_frames
from codec.flow.load import load_with_config, statistics_of
from codec.flow.model import FlowModel
from codec.latents.latent_space import LatentSpace
from codec.utils.errors import InputError

FADE = 0.02  # seconds, from the recording to what is new and back
PROMPT = 3.0  # seconds of a voice that a model is given, at most: it was trained on no more (conf/task/flow.yaml)


@dataclass(frozen=True)
class Sampling:
    """How a model is sampled; see :meth:`codec.flow.model.FlowModel.inpaint`."""

    steps: int = 32
    guidance: float = 2.0
    sampler: str = "euler"
    seed: int = 0
    progress: Callable[[float], None] = lambda share: None


class Generator:
    """A flow model and the latents that it fills in. Waveforms are mono float32 ``[T]`` at ``sample_rate``.

    The same arguments give the same samples.

    Args:
        flow: the model.
        space: of its latents, on the model's device; its codec may be in its form for inference.
    """

    def __init__(self, flow: FlowModel, space: LatentSpace):
        self.flow, self.space = flow, space
        self.sample_rate, self.hop, self.frame_rate = space.sample_rate, space.codec.hop_length, space.frame_rate

    @classmethod
    def load(cls, flow: str | Path, ckpt: str | Path | None = None, device: str = "cpu", ema: bool = True):
        """From checkpoints.

        Args:
            flow: of the flow model.
            ckpt: of the codec; None: that which the flow model was trained with, where it was then.
            ema: the averaged weights of the flow model; a codec's always are.

        Raises:
            CheckpointError: if a checkpoint cannot be read, or is of something else.
            InputError: if no codec is found, or the model was trained on another's latents.
        """
        model, config = load_with_config(flow, ema)
        if ckpt is None:
            ckpt = config.get("codec")
            if not isinstance(ckpt, str) or not Path(ckpt).is_file():
                raise InputError(f"the codec of {flow} is not where it was: give its checkpoint, --codec-ckpt PATH")
        space = LatentSpace.load(ckpt, statistics_of(model), device=device)
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
        sampling: Sampling = Sampling(),
        resynthesise: bool = False,
    ) -> np.ndarray:
        """A recording ``[T]`` whose spans, in seconds, are filled in.

        Args:
            text, phones: what is said in all of it, afterwards.
            prompt: the voice, for models that hear one; None: the longest piece of the recording that stays.
            resynthesise: give all of it as the codec decodes it, not only what is new.

        Raises:
            InputError: if a span cannot be, or the model lacks something that it was trained to be told.
        """
        span = np.zeros(-(-len(wav) // self.hop), bool)
        for first, end in span_frames(spans, len(wav) / self.sample_rate, self.frame_rate):
            span[first:end] = True
        filled = self._fill(self.latents(wav), span, text, phones, prompt, sampling)
        return self._sound(filled, wav, span, resynthesise)

    def speak(
        self,
        seconds: float,
        *,
        text: str = "",
        phones: Phones = (),
        prompt: np.ndarray | None = None,
        before: np.ndarray | None = None,
        sampling: Sampling = Sampling(),
    ) -> np.ndarray:
        """So many seconds of speech, in the voice of a prompt where the model hears one.

        Args:
            before: speech ``[T]`` that is gone on from, in its voice, as in F5-TTS (arXiv 2410.06885, section 3.1): for
                models without prompts. Text and phones are of both, and what comes back is what is new.

        Raises:
            InputError: if they are shorter than a frame, or the model lacks something, or cannot be told what to say.
        """
        if not self.flow.condition.parts:
            raise InputError("this model was trained without text and phones, and cannot be told what to say")
        if seconds * self.frame_rate < 1:
            raise InputError(f"{seconds:g} s of speech are shorter than a latent frame: give {1 / self.frame_rate:g}")
        new = math.ceil(seconds * self.frame_rate)
        known = torch.zeros(1, self.space.dim, new, device=self.space.mean.device)
        if before is not None:
            self._check_prompt(before)
            known = torch.cat([self.latents(before), known], dim=-1)
        first = known.shape[-1] - new
        filled = self._fill(known, np.arange(first + new) >= first, text, phones, prompt, sampling)
        start, end = first * self.hop, first * self.hop + round(seconds * self.sample_rate)
        return self._decoded(filled, end)[start:]

    def edit(
        self,
        wav: np.ndarray,
        plan: Edit,
        *,
        prompt: np.ndarray | None = None,
        sampling: Sampling = Sampling(),
        resynthesise: bool = False,
    ) -> np.ndarray:
        """A recording in which words are replaced, as :func:`codec.flow.editing.plan_edit` says; arguments and errors
        are those of :meth:`inpaint`."""
        latents = self.latents(wav)
        gap = latents.new_zeros(1, latents.shape[1], plan.frames)
        latents = torch.cat([latents[..., : plan.first], gap, latents[..., plan.end :]], dim=-1)
        silence = np.zeros(plan.frames * self.hop, np.float32)
        wav = np.concatenate([wav[: plan.first * self.hop], silence, wav[plan.end * self.hop :]])
        span = np.zeros(latents.shape[-1], bool)
        span[plan.first : plan.first + plan.frames] = True
        filled = self._fill(latents, span, plan.text, plan.phones, prompt, sampling)
        return self._sound(filled, wav, span, resynthesise)

    def latents(self, wav: np.ndarray) -> Tensor:
        """``[T]`` -> normalised latents ``[1, C, F]``."""
        return self.space.encode(torch.from_numpy(wav)[None, None].to(self.space.mean.device))

    def _fill(
        self,
        known: Tensor,
        span: np.ndarray,
        text: str,
        phones: Phones,
        prompt: np.ndarray | None,
        sampling: Sampling,
    ) -> Tensor:
        """known ``[1, C, F]``, span ``[F]`` bool -> ``[1, C, F]``."""
        said = {"text": [text], "phones": [list(phones)]}
        given: dict[str, Any] = {part: said[part] for part in self.flow.condition.parts}
        if self.flow.condition.prompted:
            given["prompt"] = self._prompt(known, span, prompt)
        of_batch = torch.from_numpy(span)[None].to(known.device)
        return self.flow.inpaint(known, of_batch, given, **vars(sampling))

    def _prompt(self, known: Tensor, span: np.ndarray, prompt: np.ndarray | None) -> Tensor:
        """Latents ``[1, C, P]`` of a voice."""
        most = max(1, int(PROMPT * self.frame_rate))
        if prompt is None:
            first, end = longest_known(span, most)
            if first == end:
                raise InputError("this model was trained with prompts: give a recording of the voice, --prompt VOICE")
            return known[..., first:end]
        self._check_prompt(prompt)
        return self.latents(prompt[: most * self.hop])[..., : len(prompt) // self.hop]

    def _check_prompt(self, wav: np.ndarray) -> None:
        """Raises InputError for one without a frame."""
        if len(wav) < self.hop:
            raise InputError(f"the prompt is shorter than a latent frame, {1 / self.frame_rate:g} s: give some seconds")

    def _sound(self, filled: Tensor, wav: np.ndarray, span: np.ndarray, resynthesise: bool) -> np.ndarray:
        decoded = self._decoded(filled, len(wav))
        if resynthesise:
            return decoded
        new = np.repeat(span, self.hop)[: len(wav)]
        return mixed(wav, decoded, new, round(FADE * self.sample_rate))

    def _decoded(self, latents: Tensor, length: int) -> np.ndarray:
        if not bool(latents.isfinite().all()):
            raise InputError("the model gives latents that are not finite: has its training diverged?")
        return self.space.decode(latents, length)[0, 0].clamp(-1, 1).float().cpu().numpy()


def mixed(wav: np.ndarray, decoded: np.ndarray, new: np.ndarray, fade: int) -> np.ndarray:
    """``decoded`` where something is new, and ``wav`` elsewhere, all ``[T]``; in the ``fade`` samples beside what is
    new, ever less of it."""
    share = new.astype(np.float32)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], new, [False]]).astype(int)))
    ramp = np.arange(1, fade + 1, dtype=np.float32) / (fade + 1)
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        before, after = share[max(0, first - fade) : first], share[end : end + fade]
        np.maximum(before, ramp[fade - len(before) :], out=before)
        np.maximum(after, ramp[::-1][: len(after)], out=after)
    return (1 - share) * wav + share * decoded
