"""L1 distance of waveforms (EnCodec's time-domain loss, arXiv 2210.13438, section 3.4)."""

import torch.nn.functional as F
from torch import Tensor, nn


class L1(nn.Module):
    """(target, estimate) `[B, 1, T]` -> mean absolute difference, fp32."""

    def forward(self, target: Tensor, estimate: Tensor) -> Tensor:
        return F.l1_loss(estimate.float(), target.float())
