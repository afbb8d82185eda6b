"""Codes of two computations that should be one, up to ties that rounding decides."""

import torch
from torch import Tensor, nn

from codec.quantizers.rvq import RVQ
from codec.quantizers.split_rvq import SplitRVQ


@torch.no_grad()
def assert_codes_equal(ours: Tensor, theirs: Tensor, codec: nn.Module, latents: Tensor, margin: float = 1e-4) -> None:
    """Codes ``[B, K, F]`` of two computations of the same latents ``[B, D, F]`` differ in ties only.

    Where they first differ in a frame, the squared distances from the residual to the two codes must be equal up to the
    share ``margin``; deeper levels then quantize another residual, and are not compared. Less than 2 % of all codes may
    be concerned.
    """
    assert ours.shape == theirs.shape
    quantizer, excluded = codec.quantizer, 0
    for part, levels in parts(quantizer):
        residual = part.project_in(latents).transpose(1, 2)  # [B, F, C]
        same = torch.ones_like(ours[:, 0], dtype=torch.bool)
        for k, level in enumerate(range(ours.shape[1])[levels]):
            book, a, b = part.codebooks[k], ours[:, level], theirs[:, level]
            to_a, to_b = ((residual - book[code]).square().sum(-1) for code in (a, b))
            ties = same & (a != b)
            gap = ((to_a - to_b).abs() / to_a.maximum(to_b))[ties]
            assert (gap < margin).all(), f"level {level}: {len(gap)} codes differ, by up to {gap.max():.2e} in distance"
            same &= ~ties
            excluded += int((~same).sum())
            residual = residual - book[a]
    assert excluded < 0.02 * ours.numel(), f"{excluded} of {ours.numel()} codes differ or follow one that does"


def parts(quantizer: nn.Module) -> list[tuple[RVQ, slice]]:
    """The residual quantizers and their levels among the codes."""
    if isinstance(quantizer, SplitRVQ):
        return [(quantizer.semantic, slice(0, 1)), (quantizer.acoustic, slice(1, None))]
    return [(quantizer, slice(None))]
