"""Semantic distillation from a teacher's features by cosine distance (Mimi, arXiv 2410.00037, section 3.3)."""

import torch.nn.functional as F
from torch import Tensor

from codec.distillation.base import LatentLoss, PhoneBatch
from codec.distillation.teachers.base import Teacher
from codec.distillation.teachers.rate import to_frame_rate
from codec.layers.precision import fp32


class Distillation(LatentLoss):
    """1 - mean over frames of the cosine between projected latents and the teacher's features.

    Only latents are projected: a projection of the features could make the target collapse.

    Args:
        teacher: outside the module tree, so that it is in no checkpoint, EMA, optimizer or DDP bucket.
        sample_rate, frame_rate: the codec's, in Hz.
        dim, target, weight, bias: see :class:`LatentLoss`; Semantic-VAE's weight is 1. repeat: :func:`to_frame_rate`.
    """

    def __init__(
        self,
        teacher: Teacher,
        dim: int,
        sample_rate: int,
        frame_rate: float,
        target: str = "semantic",
        weight: float = 1.0,
        bias: bool = True,
        repeat: bool = False,
    ):
        super().__init__(dim, teacher.dim, target, weight, bias)
        self._teacher = (teacher,)  # a tuple hides it from nn.Module
        self.sample_rate, self.frame_rate, self.repeat = sample_rate, frame_rate, repeat

    @property
    def teacher(self) -> Teacher:
        return self._teacher[0]

    @fp32
    def forward(self, latents: Tensor, wav: Tensor, phones: PhoneBatch | None = None) -> Tensor:
        """latents ``[B, channels, F]`` and wav ``[B, 1, T]`` of the same duration -> scalar in [0, 2]."""
        expected = wav.shape[-1] / self.sample_rate * self.frame_rate
        if abs(latents.shape[-1] - expected) > 1:
            raise ValueError(
                f"{latents.shape[-1]} latent frames for a waveform that has {expected:g} at {self.frame_rate:g} Hz: "
                "give the distillation the codec's own sample_rate and frame_rate."
            )
        features = self.teacher.to(wav.device)(wav, self.sample_rate)
        target = to_frame_rate(features, self.teacher.frame_rate, self.frame_rate, latents.shape[-1], self.repeat)
        return 1 - F.cosine_similarity(self.projection(latents.transpose(1, 2)), target, dim=-1).mean()
