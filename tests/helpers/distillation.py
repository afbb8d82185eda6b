"""A training task in which gradients come from distillation alone."""

import torch

from codec.discriminators.base import DiscriminatorSet
from codec.distillation.base import LatentLoss
from codec.losses.adversarial import FeatureMatching, Hinge
from codec.losses.balancer import Weighted
from codec.losses.base import Losses
from codec.losses.waveform import L1
from codec.quantizers.base import Quantizer
from codec.training.codec_task import CodecTask
from codec.training.optim import AdversarialOptimizer, ParameterGroup
from tests.helpers.parts import small_codec


def distilled(quantizer: Quantizer, distillation: LatentLoss) -> CodecTask:
    """A task with :func:`small_codec`, without discriminators, whose reconstruction loss has the weight 0."""
    torch.manual_seed(0)
    group = ParameterGroup(1e-3)
    weights = {"l1": 0.0, "adversarial": 1.0, "feature": 1.0}
    losses = Losses({"l1": L1()}, Hinge(), FeatureMatching(), weights, Weighted(), commitment=0.0)
    optimizer = AdversarialOptimizer(group, group)
    return CodecTask(small_codec(quantizer), DiscriminatorSet({}), losses, optimizer, distillation=distillation)
