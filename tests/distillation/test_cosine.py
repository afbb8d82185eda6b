"""Distillation: the loss, the choice of the latents, and the teacher outside the module tree."""

import pytest
import torch
from torch import nn

from codec.distillation.cosine import Distillation
from codec.distillation.teachers.base import Teacher
from codec.distillation.teachers.random import RandomTeacher
from codec.quantizers.none import NoQuantizer
from codec.quantizers.rvq import RVQ
from codec.quantizers.sigma_vae import SigmaVAE
from codec.quantizers.split_rvq import SplitRVQ
from codec.quantizers.vae import VAE
from codec.utils.errors import InputError
from tests.helpers.distillation import distilled
from tests.helpers.parts import tone_batch

RATE = 16_000


class Fixed(Teacher):
    """The same features ``[B, F', C]`` for any waveform."""

    def __init__(self, features: torch.Tensor):
        super().__init__(nn.Linear(2, 2), features.shape[-1], 50.0, "fixed")
        self.fixed = features

    def features(self, wav):
        return self.fixed


def made(dim: int = 8, sample_rate: int = RATE, frame_rate: float = 50.0, target: str = "semantic") -> Distillation:
    torch.manual_seed(0)
    return Distillation(RandomTeacher(16, 1), dim, sample_rate, frame_rate, target)


def test_the_loss_is_0_for_parallel_and_2_for_opposite_and_ignores_lengths():
    torch.manual_seed(0)
    target, wav = torch.randn(2, 50, 6), torch.zeros(2, 1, RATE)
    distillation = Distillation(Fixed(target), 6, RATE, 50.0)
    nn.init.eye_(distillation.projection.weight)
    nn.init.zeros_(distillation.projection.bias)
    lengths, latents = torch.rand(2, 1, 50) + 0.1, target.transpose(1, 2)
    half = torch.cat([latents[..., :25], -latents[..., 25:]], dim=-1)
    for x, loss in ((latents * lengths, 0), (-latents * lengths, 2), (half, 1)):  # the mean over frames
        assert distillation(x, wav).item() == pytest.approx(loss, abs=1e-6)
    assert 0.5 < distillation(torch.randn(2, 6, 50), wav) < 1.5


def test_the_gradient_reaches_latents_and_projection_only_and_lowers_the_loss():
    distillation = made(8, 24_000, 12.5)
    latents = nn.Parameter(torch.randn(2, 8, 13))
    wav = (0.1 * torch.randn(2, 1, 24_480)).requires_grad_()
    optimizer = torch.optim.Adam([latents, *distillation.parameters()], lr=0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = distillation(latents, wav)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad.abs().sum() > 0 for p in (latents, *distillation.parameters()))
    assert wav.grad is None
    assert all(p.grad is None for p in distillation.teacher.parameters())


def test_the_loss_is_fp32_inside_autocast():
    distillation = made()
    latents, wav = torch.randn(1, 8, 50).bfloat16(), torch.randn(1, 1, RATE)
    with torch.autocast("cpu", torch.bfloat16):
        inside = distillation(latents, wav)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, distillation(latents.float(), wav))


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="75 latent frames"):
        made()(torch.randn(1, 8, 75), torch.randn(1, 1, RATE))
    with pytest.raises(ValueError, match="valid: semantic, full"):
        made(target="acoustic")
    for quantizer, target, hint in (
        (VAE(8, 100, channels=6), "semantic", "or bottleneck"),
        (VAE(8, 100, channels=1), "split", "distill.target=bottleneck"),
    ):
        with pytest.raises(InputError, match=hint) as error:
            distilled(quantizer, made(8, 800, 100, target))
        assert "\n" not in str(error.value)


def test_the_teacher_is_outside_the_module_tree():
    distillation = made()
    names = {"projection.weight", "projection.bias"}
    assert set(distillation.state_dict()) == {name for name, _ in distillation.named_parameters()} == names
    assert not any(isinstance(module, Teacher) for module in distillation.modules())
    assert tuple(distillation.projection.weight.shape) == (16, 8)


def test_targets_of_a_quantizer_with_codebooks():
    latents = torch.zeros(1, 8, 5)
    quantizer = RVQ(8, 100, n_q=2, codebook_size=4, codebook_dim=3, kmeans_iters=2).train()
    out = quantizer(latents)
    assert made(target="full").select(latents, out, quantizer) is latents
    assert made(target="semantic").select(latents, out, quantizer) is out.semantic
    assert made(target="codebook").select(latents, out, quantizer) is out.first
    assert torch.equal(made(target="bottleneck").select(latents, None, quantizer), latents)


def test_mimis_student_is_the_first_codebook_in_the_space_of_its_codes():
    torch.manual_seed(0)
    quantizer = SplitRVQ(8, 100, n_q=3, codebook_size=4, codebook_dim=3, kmeans_iters=2).train()
    distillation = Distillation(RandomTeacher(16, 1), 8, 800, 100, "codebook", bias=False)
    task = distilled(quantizer, distillation)
    assert [tuple(p.shape) for p in task.distillation.parameters()] == [(16, 3)]
    z = torch.randn(2, 8, 5, requires_grad=True)
    quantizer(z)
    books = quantizer.semantic.codebooks.clone()
    out = quantizer(z)
    student = distillation.select(z, out, quantizer)
    torch.testing.assert_close(student, books[0][out.codes[:, 0]].transpose(1, 2))
    (gradient,) = torch.autograd.grad(student.sum(), z, retain_graph=True)  # straight through, to the input projection
    inwards = quantizer.semantic.project_in.weight[..., 0].sum(0)
    torch.testing.assert_close(gradient, inwards[None, :, None].expand(2, 8, 5))
    torch.testing.assert_close(out.semantic, quantizer.semantic.project_out(student))
    task.one_pass(tone_batch(2, 800))[0].backward()
    semantic = task.codec.quantizer.semantic
    assert semantic.project_in.weight.grad.any()
    assert not semantic.project_out.weight.grad.any()
    with pytest.raises(InputError, match="distill"):
        distilled(VAE(8, 100, channels=6), Distillation(RandomTeacher(16, 1), 8, 800, 100, "codebook"))


CONTINUOUS = {
    "none": lambda: NoQuantizer(8, 100),
    "vae": lambda: VAE(8, 100, channels=6),
    "sigma_vae": lambda: SigmaVAE(8, 100, channels=6),
}


@pytest.mark.parametrize("target", ["bottleneck", "split"])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_loss_acts_on_the_channels_of_a_continuous_bottleneck(name, target):
    task = distilled(CONTINUOUS[name](), made(8, 800, 100, target))
    quantizer = task.codec.quantizer
    channels = quantizer.latent_dim // (1 if target == "bottleneck" else 2)
    assert task.distillation.projection.in_features == channels
    latents = torch.randn(2, 8, 5)
    assert torch.equal(task.distillation.select(latents, None, quantizer), quantizer.to_latents(latents)[:, :channels])
    total, values = task.one_pass(tone_batch(2, 800))
    total.backward()
    assert 0 < float(values["distill"]) <= 2
    assert all(p.grad.abs().sum() > 0 for p in task.distillation.parameters())
    assert any(p.grad.abs().sum() > 0 for p in task.codec.encoder.parameters())
    assert all(not p.grad.any() for p in task.codec.decoder.parameters())
    if name != "none":
        gradient = quantizer.project_in.weight.grad[..., 0]
        assert gradient[:channels].abs().sum(1).all()
        assert name != "vae" or not gradient[channels:].any()  # the other half, and standard deviations
