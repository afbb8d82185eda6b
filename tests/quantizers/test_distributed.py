"""Two processes with half a batch each learn what one process learns from the whole batch."""

import pytest
import torch

from codec.quantizers import rvq, split_rvq
from codec.quantizers.rvq import RVQ
from codec.quantizers.split_rvq import SplitRVQ

STEPS = 12


def latents(step: int) -> torch.Tensor:
    return torch.randn(8, 4, 30, generator=torch.Generator().manual_seed(step))


def learn(quantizer: RVQ, part: slice, steps: int = STEPS) -> dict[str, torch.Tensor]:
    for step in range(steps):
        quantizer(latents(step)[part])
    return {name: buffer.clone() for name, buffer in quantizer.named_buffers()}


def process(rank: int, check_every: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(rank)  # processes disagree on random numbers, and must not on codebooks
    quantizer = RVQ(4, 50, n_q=3, codebook_size=16, dropout=0.0, check_every=check_every).train()
    if check_every == 0:  # start from equal, given codebooks: only the moving averages are compared
        give(quantizer)
    return learn(quantizer, slice(4 * rank, 4 * rank + 4))


def give(quantizer: RVQ) -> None:
    quantizer.codebooks.copy_(torch.randn(quantizer.codebooks.shape, generator=torch.Generator().manual_seed(9)))
    quantizer.usage.fill_(1.0)
    quantizer.sums.copy_(quantizer.codebooks)
    quantizer.steps = 1


def test_moving_averages_equal_one_process_with_the_whole_batch(pair):
    ranks = pair(process, 0)
    alone = RVQ(4, 50, n_q=3, codebook_size=16, dropout=0.0, check_every=0).train()
    give(alone)
    expected = learn(alone, slice(None))
    for name, value in expected.items():
        assert torch.equal(ranks[0][name], ranks[1][name])
        torch.testing.assert_close(ranks[0][name], value, atol=1e-5, rtol=1e-5)


def test_initialisation_and_restarts_agree(pair):
    ranks = pair(process, 2)
    for name, value in ranks[0].items():
        assert torch.equal(value, ranks[1][name])
    assert ranks[0]["codebooks"].abs().max() > 0


def commitment(rank: int, parts: list[slice], split: bool) -> torch.Tensor:
    """Its gradient ``[B, 4, 30]``, where the second half of the batch uses fewer codebooks than the first."""
    torch.manual_seed(0)
    quantizer = (
        SplitRVQ(4, 50, n_q=4, codebook_size=16, codebook_dim=4) if split else RVQ(4, 50, n_q=3, codebook_size=16)
    )
    for part in (quantizer.semantic, quantizer.acoustic) if split else (quantizer,):
        give(part)
    used = torch.tensor([3, 3, 2, 3, 1, 1, 2, 1])[parts[rank]]
    z = latents(0)[parts[rank]].requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        masks = lambda batch, n_q, share, device: torch.arange(n_q)[:, None] < used  # noqa: E731
        for module in (rvq, split_rvq):
            patch.setattr(module, "dropout_mask", masks)
        return torch.autograd.grad(quantizer(z).loss, z)[0]


@pytest.mark.parametrize("split", [False, True], ids=["rvq", "split"])
def test_commitment_is_that_of_the_whole_batch_however_the_dropout_falls(pair, split):
    """ddp takes the mean over processes, so each one's is twice what it is in the whole batch."""
    halves = pair(commitment, [slice(4), slice(4, 8)], split)
    torch.testing.assert_close(torch.cat(halves) / 2, commitment(0, [slice(8)], split))
