"""Features at another frame rate."""

import torch
import torch.nn.functional as F
from torch import Tensor


def to_frame_rate(features: Tensor, rate_from: float, rate_to: float, frames: int) -> Tensor:
    """Features ``[B, F', C]`` at ``rate_from`` Hz -> ``[B, frames, C]`` at ``rate_to`` Hz, non-causal.

    With an integer ratio r > 1 each output is the mean of the 2 r features around its centre (Mimi, from 50 to 12.5 Hz:
    kernel 8, stride 4), at the ends of those that are there. Otherwise it is interpolated at its centre between two
    features. The last feature is repeated where some are missing at the end.
    """
    r = rate_from / rate_to
    whole = round(r)
    if whole < 1 or abs(r - whole) > 1e-6:
        at = ((torch.arange(frames, device=features.device) + 0.5) * r - 0.5).clamp(0, features.shape[1] - 1)
        below = at.floor().long()
        above = (below + 1).clamp(max=features.shape[1] - 1)
        return torch.lerp(features[:, below], features[:, above], (at - below)[:, None])
    missing = max(0, frames * whole - features.shape[1])
    features = torch.cat([features, features[:, -1:].expand(-1, missing, -1)], dim=1)[:, : frames * whole]
    if whole == 1:
        return features
    if whole % 2:  # r / 2 features on either side: with halves of features, r is even
        features, whole = features.repeat_interleave(2, dim=1), 2 * whole
    x = F.avg_pool1d(features.transpose(1, 2), 2 * whole, whole, padding=whole // 2, count_include_pad=False)
    return x.transpose(1, 2)
