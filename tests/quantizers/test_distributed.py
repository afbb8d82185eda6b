"""Two processes with half a batch each learn the codebooks that one process learns from the whole batch."""

import torch

from codec.quantizers.rvq import RVQ
from tests.ranks import together

STEPS = 12


def latents(step: int) -> torch.Tensor:
    return torch.randn(8, 4, 30, generator=torch.Generator().manual_seed(step))


def learn(quantizer: RVQ, part: slice, steps: int = STEPS) -> dict[str, torch.Tensor]:
    for step in range(steps):
        quantizer(latents(step)[part])
    return {name: buffer.clone() for name, buffer in quantizer.named_buffers()}


def process(rank: int, check_every: int, folder: str) -> None:
    torch.manual_seed(rank)  # processes disagree on random numbers, and must not on codebooks
    quantizer = RVQ(4, 50, n_q=3, codebook_size=16, dropout=0.0, check_every=check_every).train()
    if check_every == 0:  # start from equal, given codebooks: only the moving averages are compared
        give(quantizer)
    torch.save(learn(quantizer, slice(4 * rank, 4 * rank + 4)), f"{folder}/{rank}.pt")


def give(quantizer: RVQ) -> None:
    quantizer.codebooks.copy_(torch.randn(quantizer.codebooks.shape, generator=torch.Generator().manual_seed(9)))
    quantizer.usage.fill_(1.0)
    quantizer.sums.copy_(quantizer.codebooks)
    quantizer.steps = 1


def two_processes(check_every: int, folder) -> list[dict[str, torch.Tensor]]:
    together(process, folder, check_every, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_moving_averages_equal_one_process_with_the_whole_batch(tmp_path):
    ranks = two_processes(0, tmp_path)
    alone = RVQ(4, 50, n_q=3, codebook_size=16, dropout=0.0, check_every=0).train()
    give(alone)
    expected = learn(alone, slice(None))
    for name, value in expected.items():
        assert torch.equal(ranks[0][name], ranks[1][name])
        torch.testing.assert_close(ranks[0][name], value, atol=1e-5, rtol=1e-5)


def test_initialisation_and_restarts_agree(tmp_path):
    ranks = two_processes(2, tmp_path)
    for name, value in ranks[0].items():
        assert torch.equal(value, ranks[1][name])
    assert ranks[0]["codebooks"].abs().max() > 0
