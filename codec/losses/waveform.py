"""L1 distance of waveforms (EnCodec's time-domain loss, arXiv 2210.13438, section 3.4)."""

import torch.nn.functional as F
from torch import Tensor, nn


class L1(nn.Module):
    """Mean absolute difference of waveforms in fp32: (target, estimate) ``[B, 1, T]`` -> scalar."""

    def forward(self, target: Tensor, estimate: Tensor) -> Tensor:
        return F.l1_loss(estimate.float(), target.float())
