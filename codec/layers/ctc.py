"""Connectionist temporal classification (Graves et al., ICML 2006); label 0 is the blank."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def ctc_loss(logits: Tensor, lengths: Tensor, targets: Sequence[Tensor]) -> Tensor:
    """CTC loss ``[B]`` of each example, in nats per label; 0 if its labels are too many for its frames.

    Logits are ``[B, F, 1 + labels]``, lengths ``[B]`` int64 in frames, targets ``[n]`` int64 labels from 1 on.
    """
    device = logits.device
    counts = torch.tensor([len(target) for target in targets], device=device)
    padded = pad_sequence(list(targets), batch_first=True).to(device)
    log_probabilities = logits.log_softmax(-1).transpose(0, 1)
    losses = F.ctc_loss(log_probabilities, padded, lengths, counts, reduction="none", zero_infinity=True)
    return losses / counts.clamp(min=1)


def greedy_labels(logits: Tensor) -> list[tuple[int, int, int]]:
    """logits ``[F, 1 + labels]`` -> (label, first frame, end) of each run of the best label, without blanks."""
    labels = logits.argmax(-1)
    runs, counts = labels.unique_consecutive(return_counts=True)
    ends = counts.cumsum(0)
    return [run for run in zip(runs.tolist(), (ends - counts).tolist(), ends.tolist(), strict=True) if run[0]]
