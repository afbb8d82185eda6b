"""Two ranks with half a batch each learn what one process learns from the whole batch."""

import pytest
import torch

from codec.quantizers import rvq, split_rvq
from codec.quantizers.rvq import RVQ
from codec.quantizers.split_rvq import SplitRVQ


def latents(step: int) -> torch.Tensor:
    return torch.randn(8, 4, 30, generator=torch.Generator().manual_seed(step))


def set_codebooks(quantizer: RVQ) -> None:
    quantizer.codebooks.copy_(torch.randn(quantizer.codebooks.shape, generator=torch.Generator().manual_seed(9)))
    quantizer.usage.fill_(1.0)
    quantizer.sums.copy_(quantizer.codebooks)
    quantizer.steps = 1


def learn(rank: int, parts: list[slice], check_every: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(rank)  # ranks differ in random numbers, but not in codebooks
    quantizer = RVQ(4, 50, n_q=3, codebook_size=16, dropout=0.0, check_every=check_every).train()
    if check_every == 0:  # compare the moving averages alone
        set_codebooks(quantizer)
    for step in range(12):
        quantizer(latents(step)[parts[rank]])
    return dict(quantizer.named_buffers())


@pytest.mark.parametrize("check_every", [0, 2], ids=["moving averages", "initialisation and restarts"])
def test_codebooks_agree(pair, check_every):
    first, second = pair(learn, [slice(4), slice(4, 8)], check_every)
    for name, value in first.items():
        assert torch.equal(value, second[name])
    if check_every == 0:
        for name, value in learn(0, [slice(None)], 0).items():
            torch.testing.assert_close(first[name], value, atol=1e-5, rtol=1e-5)


def commitment(rank: int, parts: list[slice], split: bool) -> torch.Tensor:
    """Its gradient ``[B, 4, 30]``, where the second half of the batch uses fewer codebooks than the first."""
    torch.manual_seed(0)
    options = dict(n_q=4, codebook_size=16, codebook_dim=4) if split else dict(n_q=3, codebook_size=16)
    quantizer = (SplitRVQ if split else RVQ)(4, 50, **options)
    for part in (quantizer.semantic, quantizer.acoustic) if split else (quantizer,):
        set_codebooks(part)
    used = torch.tensor([3, 3, 2, 3, 1, 1, 2, 1])[parts[rank]]
    z = latents(0)[parts[rank]].requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        masks = lambda batch, n_q, rate, device, choices=None: torch.arange(n_q)[:, None] < used  # noqa: E731
        for module in (rvq, split_rvq):
            patch.setattr(module, "dropout_mask", masks)
        return torch.autograd.grad(quantizer(z).loss, z)[0]


@pytest.mark.parametrize("split", [False, True], ids=["rvq", "split"])
def test_commitment_is_that_of_the_whole_batch_under_dropout(pair, split):
    """DDP takes the mean over ranks, so each one's gradient is twice that of the whole batch."""
    halves = pair(commitment, [slice(4), slice(4, 8)], split)
    torch.testing.assert_close(torch.cat(halves) / 2, commitment(0, [slice(8)], split))
