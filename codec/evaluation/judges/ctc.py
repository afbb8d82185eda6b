"""Connectionist temporal classification (Graves et al., ICML 2006); label 0 is the blank."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.evaluation.judges.phone_edits import Heard


def ctc_loss(logits: Tensor, lengths: Tensor, targets: Sequence[Tensor]) -> Tensor:
    """The mean over a batch of CTC per label, a scalar.

    Args:
        logits: ``[B, F, 1 + labels]``.
        lengths: ``[B]`` int64, frames of each.
        targets: ``[n]`` int64 of labels from 1 on, of each. One that is too long for its frames counts nothing.
    """
    sizes = torch.tensor([len(target) for target in targets])
    log_probabilities = logits.log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(log_probabilities, torch.cat(list(targets)), lengths, sizes, zero_infinity=True)


def transcript(logits: Tensor, symbols: Sequence[str], frame_rate: float) -> list[Heard]:
    """logits ``[F, 1 + labels]`` at ``frame_rate`` Hz -> the best label of each frame, repetitions and blanks taken
    out. Label i is ``symbols[i - 1]``; a phone's time is the middle of its frames."""
    runs: list[list[int]] = []  # [label, first frame, end]
    for frame, label in enumerate(logits.argmax(-1).tolist()):
        if runs and runs[-1][0] == label:
            runs[-1][2] = frame + 1
        else:
            runs.append([label, frame, frame + 1])
    return [Heard(symbols[label - 1], (first + end) / 2 / frame_rate) for label, first, end in runs if label]
