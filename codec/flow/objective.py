"""Training objectives of flow models, and the velocity along which samples are integrated.

The path is straight (flow matching, arXiv 2210.02747; rectified flow, arXiv 2209.03003), from noise x0 at t = 0 to data
x1 at t = 1: ``x_t = t x1 + (1 - t) x0``, with the velocity ``x1 - x0``.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers.precision import fp32
from codec.quantizers.base import Quantizer
from codec.quantizers.rvq import RVQ
from codec.utils.errors import InputError

TIMES = ("uniform", "logit_normal")
Losses = dict[str, Tensor]


class Objective(nn.Module):
    """Prediction target of a flow model: losses of the prediction in training, a velocity in sampling. ``time`` is the
    distribution of t in training: ``uniform``, or ``logit_normal`` (arXiv 2403.03206, section 3.1), which favours the
    middle."""

    weights: Mapping[str, float]  # of the losses, by name
    needs_codes = False  # whether errors() reads the codes of the latents

    def __init__(self, time: str = "logit_normal"):
        super().__init__()
        if time not in TIMES:
            raise ValueError(f"time is {time!r}; valid are {' and '.join(TIMES)}")
        self.time = time

    def times(self, u: Tensor) -> Tensor:
        """Uniform numbers ``[B]`` in [0, 1) -> t ``[B]`` in (0, 1)."""
        u = u.clamp(1e-4, 1 - 1e-4)
        return u if self.time == "uniform" else torch.special.ndtri(u).sigmoid()

    def set_codebooks(self, quantizer: Quantizer, kind: str, mean: Tensor, std: Tensor) -> None:
        """Set what the objective needs of the codec, before training; ``kind``, ``mean`` and ``std`` ``[C]`` are the
        latents'. Raises InputError if the codec does not fit."""

    def errors(self, output: Tensor, x1: Tensor, x0: Tensor, t: Tensor, codes: Tensor | None = None) -> Losses:
        """Losses by name, at each frame ``[B, F]``; output, x1, x0 ``[B, C, F]``, t ``[B]``, codes ``[B, K, F]``."""
        raise NotImplementedError

    def velocity(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Velocity dx/dt ``[B, C, F]`` at (x, t); t ``[B]`` < 1."""
        raise NotImplementedError


def on_path(x1: Tensor, x0: Tensor, t: Tensor) -> Tensor:
    """Points ``x_t`` ``[B, C, F]`` of the straight path, for t ``[B]``."""
    t = t[:, None, None]
    return t * x1 + (1 - t) * x0


class FlowMatching(Objective):
    """Flow matching: the network predicts the velocity, with a squared error."""

    weights = {"velocity": 1.0}  # noqa: RUF012

    def errors(self, output: Tensor, x1: Tensor, x0: Tensor, t: Tensor, codes: Tensor | None = None) -> Losses:
        return {"velocity": (output.float() - (x1 - x0)).square().mean(1)}

    def velocity(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return output


class NaturalSpeech2(Objective):
    """NaturalSpeech 2 (arXiv 2304.09116, section 3.2): the network predicts x1, with a cross entropy of its codes.

    For sums of quantized vectors (``kind`` post of an RVQ); ``codes`` is the weight of the cross entropy. The logits of
    a level are negative distances from its codebook to the residual: the prediction minus the true vectors of the
    previous levels. Unlike the paper: a straight path; no score loss, which is the data loss with another weight of t
    (see ``time``); codes are the codec's, since sums do not determine them.
    """

    needs_codes = True

    def __init__(self, codes: float = 0.1, time: str = "uniform"):
        super().__init__(time)
        self.weights = {"data": 1.0, "codes": codes}
        for name in ("books", "mean", "std"):  # they come from the codec, and are in no checkpoint of a flow model
            self.register_buffer(name, None, persistent=False)

    def set_codebooks(self, quantizer: Quantizer, kind: str, mean: Tensor, std: Tensor) -> None:
        if kind != "post" or not isinstance(quantizer, RVQ):
            raise InputError(
                f"flow_objective=ns2 is for sums of quantized vectors, and these are latents of kind {kind} of a "
                f"{type(quantizer).__name__}: use kind=post of a codec with quantizer=rvq, or "
                "flow_objective=flow_matching"
            )
        with torch.no_grad():
            projected = [quantizer.project_out(book.t()[None])[0].t() for book in quantizer.codebooks]
        self.books = torch.stack(projected).to(mean.device)  # [K, S, C]
        self.mean, self.std = mean[:, None].clone(), std[:, None].clone()

    @fp32
    def errors(self, output: Tensor, x1: Tensor, x0: Tensor, t: Tensor, codes: Tensor | None = None) -> Losses:
        if self.books is None or codes is None:
            raise ValueError("NaturalSpeech2 needs codebooks (call set_codebooks first) and the codes of the latents")
        data = (output - x1).square().mean(1)
        residual = (output * self.std + self.mean).transpose(1, 2).flatten(0, 1)  # [B * F, C]
        losses = []
        for book, targets in zip(self.books, codes.transpose(1, 2).flatten(0, 1).unbind(-1), strict=True):
            losses.append(F.cross_entropy(-torch.cdist(residual, book), targets, reduction="none"))
            residual = residual - F.embedding(targets, book)
        return {"data": data, "codes": torch.stack(losses).mean(0).unflatten(0, data.shape)}

    def velocity(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return (output - x) / (1 - t[:, None, None])
