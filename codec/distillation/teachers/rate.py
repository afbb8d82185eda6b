"""Resampling of feature sequences to another frame rate."""

import torch
import torch.nn.functional as F
from torch import Tensor


def to_frame_rate(features: Tensor, rate_from: float, rate_to: float, frames: int, repeat: bool = False) -> Tensor:
    """Resample features ``[B, F', C]`` at ``rate_from`` Hz to ``[B, frames, C]`` at ``rate_to`` Hz, non-causally.

    For an integer ratio r > 1, each output is the mean of the 2 r features around its centre (Mimi, from 50 to 12.5 Hz:
    kernel 8, stride 4); at the ends of fewer, or, with ``repeat``, of repetitions of the first and the last one (Mimi).
    Other ratios: linear interpolation. The last feature pads a short input.
    """
    ratio = rate_from / rate_to
    r = round(ratio)
    if r < 1 or abs(ratio - r) > 1e-6:
        at = ((torch.arange(frames, device=features.device) + 0.5) * ratio - 0.5).clamp(0, features.shape[1] - 1)
        below = at.floor().long()
        above = (below + 1).clamp(max=features.shape[1] - 1)
        return torch.lerp(features[:, below], features[:, above], (at - below)[:, None])
    missing = max(0, frames * r - features.shape[1])
    features = torch.cat([features, features[:, -1:].expand(-1, missing, -1)], dim=1)[:, : frames * r]
    if r == 1:
        return features
    if r % 2:  # the window of an odd r begins in the middle of a feature
        features, r = features.repeat_interleave(2, dim=1), 2 * r
    x = F.pad(features.transpose(1, 2), (r // 2, r // 2) if repeat else (0, 0), "replicate")
    x = F.avg_pool1d(x, 2 * r, r, padding=0 if repeat else r // 2, count_include_pad=False)
    return x.transpose(1, 2)
