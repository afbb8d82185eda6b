"""Distillation: frame rates, the loss, and what stays outside the module tree."""

import pytest
import torch
from torch import nn

from codec.discriminators.base import DiscriminatorSet
from codec.distillation.cosine import Distillation, to_frame_rate
from codec.distillation.teachers.base import Teacher
from codec.distillation.teachers.random import RandomTeacher
from codec.losses.adversarial import FeatureMatching, Hinge
from codec.losses.balancer import Weighted
from codec.losses.base import Losses
from codec.losses.waveform import L1
from codec.quantizers.base import Quantizer
from codec.quantizers.none import NoQuantizer
from codec.quantizers.rvq import RVQ
from codec.quantizers.sigma_vae import SigmaVAE
from codec.quantizers.vae import VAE
from codec.training.codec_task import CodecTask
from codec.training.optim import AdversarialOptimizer, ParameterGroup
from codec.utils.errors import InputError
from tests.helpers.parts import small_codec, tone_batch

RATE = 16_000


class Given(Teacher):
    """Hands out prepared features ``[B, F', C]``."""

    def __init__(self, features: torch.Tensor, frame_rate: float = 50.0):
        super().__init__(nn.Linear(2, 2), features.shape[-1], frame_rate, "given")
        self.given = features

    def features(self, wav):
        return self.given


def features(batch: int, frames: int, channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, frames, channels, generator=torch.Generator().manual_seed(seed))


# Frame rates


def slow(x: torch.Tensor, r: int, frames: int) -> torch.Tensor:
    """Means over [centre - r, centre + r) in units of features, by time rather than by index; r may be odd."""
    held = [x[:, min(i, x.shape[1] - 1)] for i in range(frames * r)]
    out = []
    for n in range(frames):
        begin, end = (n + 0.5) * r - r, (n + 0.5) * r + r
        weights = [max(0.0, min(end, i + 1) - max(begin, i)) for i in range(len(held))]
        out.append(sum(w * value for w, value in zip(weights, held, strict=True)) / sum(weights))
    return torch.stack(out, dim=1)


@pytest.mark.parametrize("given", [39, 40, 41, 37])
@pytest.mark.parametrize(("r", "frames"), [(2, 20), (3, 13), (4, 10), (5, 8)])
def test_integer_ratios_average_two_periods_around_each_centre(r, frames, given):
    x = features(2, given, 3)
    found = to_frame_rate(x, 50.0, 50.0 / r, frames)
    assert found.shape == (2, frames, 3)
    torch.testing.assert_close(found, slow(x, r, frames))


def test_mimis_case_is_kernel_8_stride_4_centred():
    x = features(1, 49, 2)  # one second of WavLM
    found = to_frame_rate(x, 50.0, 12.5, 12)
    for n in range(1, 11):
        torch.testing.assert_close(found[:, n], x[:, 4 * n - 2 : 4 * n + 6].mean(1))
    torch.testing.assert_close(found[:, 0], x[:, :6].mean(1))


def test_averages_look_ahead():
    x = features(1, 40, 2)
    changed = x.clone()
    changed[:, 20:] += 1
    difference = (to_frame_rate(changed, 50.0, 12.5, 10) - to_frame_rate(x, 50.0, 12.5, 10)).abs().amax((0, 2))
    assert difference[4] > 0.1  # frame 4 is features 16 to 19
    assert difference[3] == 0


def test_equal_rates_copy_and_repeat_the_last():
    x = features(1, 49, 2)
    assert torch.equal(to_frame_rate(x, 50.0, 50.0, 49), x)
    assert torch.equal(to_frame_rate(x, 50.0, 50.0, 50), torch.cat([x, x[:, -1:]], dim=1))
    assert torch.equal(to_frame_rate(x, 50.0, 50.0, 48), x[:, :48])


@pytest.mark.parametrize(("rate", "frames"), [(75.0, 75), (40.0, 40), (86.13, 87), (100.0, 100), (21.5, 22)])
def test_other_ratios_interpolate_in_time(rate, frames):
    """Features that are linear in time stay so; beyond the ends they are held."""
    centres = (torch.arange(50) + 0.5) / 50.0
    found = to_frame_rate(centres[None, :, None], 50.0, rate, frames)[0, :, 0]
    torch.testing.assert_close(found, ((torch.arange(frames) + 0.5) / rate).clamp(centres[0], centres[-1]))


# The loss


def test_the_loss_is_0_for_parallel_and_2_for_opposite_and_sees_directions_only():
    target = features(2, 50, 6)
    distillation = Distillation(Given(target), 6, RATE, 50.0)
    nn.init.eye_(distillation.projection.weight)
    nn.init.zeros_(distillation.projection.bias)
    wav = torch.zeros(2, 1, RATE)
    lengths = torch.rand(2, 1, 50) + 0.1
    student = target.transpose(1, 2)
    assert distillation(student * lengths, wav).abs() < 1e-6
    assert (distillation(-student * lengths, wav) - 2).abs() < 1e-6
    assert 0.5 < distillation(features(2, 6, 50, seed=1), wav) < 1.5
    half = torch.cat([student[..., :25], -student[..., 25:]], dim=-1)
    assert (distillation(half, wav) - 1).abs() < 1e-6  # the mean over frames


def test_the_gradient_reaches_student_and_projection_only():
    teacher = RandomTeacher(16, 1)
    distillation = Distillation(teacher, 8, 24_000, 12.5)
    student = torch.randn(2, 8, 13, requires_grad=True)
    wav = torch.randn(2, 1, 24_480, requires_grad=True)
    distillation(student, wav).backward()
    assert student.grad.abs().sum() > 0
    assert wav.grad is None
    assert all(p.grad.abs().sum() > 0 for p in distillation.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_a_few_steps_bring_the_student_nearer():
    torch.manual_seed(0)
    wav = 0.1 * torch.randn(2, 1, RATE)
    distillation = Distillation(RandomTeacher(16, 1), 8, RATE, 12.5)
    student = nn.Parameter(torch.randn(2, 8, 13))
    optimizer = torch.optim.Adam([student, *distillation.parameters()], lr=0.05)
    before = distillation(student, wav).item()
    for _ in range(30):
        optimizer.zero_grad()
        distillation(student, wav).backward()
        optimizer.step()
    assert distillation(student, wav).item() < 0.5 * before


def test_the_loss_is_fp32_inside_autocast():
    distillation = Distillation(RandomTeacher(16, 1), 8, RATE, 50.0)
    student, wav = torch.randn(1, 8, 50).bfloat16(), torch.randn(1, 1, RATE)
    with torch.autocast("cpu", torch.bfloat16):
        inside = distillation(student, wav)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, distillation(student.float(), wav))


def test_a_student_at_another_frame_rate_is_refused():
    distillation = Distillation(RandomTeacher(16, 1), 8, RATE, 50.0)
    with pytest.raises(ValueError, match=r"75 latent frames for a waveform that has 50 at 50 Hz"):
        distillation(torch.randn(1, 8, 75), torch.randn(1, 1, RATE))


# Around it


def test_the_teacher_is_outside_the_module_tree():
    teacher = RandomTeacher(16, 1)
    distillation = Distillation(teacher, 8, RATE, 50.0)
    assert set(distillation.state_dict()) == {"projection.weight", "projection.bias"}
    assert {name for name, _ in distillation.named_parameters()} == {"projection.weight", "projection.bias"}
    hidden = {id(p) for p in teacher.parameters()} | {id(b) for b in teacher.buffers()}
    assert not hidden & {id(t) for t in (*distillation.parameters(), *distillation.buffers())}
    assert not any(isinstance(module, Teacher) for module in distillation.modules())
    assert tuple(distillation.projection.weight.shape) == (16, 8)


def test_the_target_picks_the_student():
    latents, first = torch.zeros(1, 8, 5), torch.ones(1, 8, 5)
    build = lambda target: Distillation(RandomTeacher(16, 1), 8, RATE, 50.0, target=target)  # noqa: E731
    assert build("full").select(latents, first) is latents
    assert build("full").select(latents, None) is latents
    assert build("semantic").select(latents, first) is first
    with pytest.raises(ValueError, match=r"set distill\.target=full") as caught:
        build("semantic").select(latents, None)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="valid: semantic, full"):
        build("acoustic")


# The channels of a bottleneck


CONTINUOUS = {
    "none": lambda: NoQuantizer(8, 100),
    "vae": lambda: VAE(8, 100, channels=6),
    "sigma_vae": lambda: SigmaVAE(8, 100, channels=6),
}


def taught(quantizer: Quantizer, target: str) -> CodecTask:
    """A task whose reconstruction losses are nothing: what has a gradient, has it from the teacher."""
    torch.manual_seed(0)
    side = ParameterGroup(1e-3)
    weights = {"l1": 0.0, "adversarial": 1.0, "feature": 1.0}
    losses = Losses({"l1": L1()}, Hinge(), FeatureMatching(), weights, Weighted(), commitment=0.0)
    distillation = Distillation(RandomTeacher(16, 1), 8, 800, 100, target)
    return CodecTask(
        small_codec(quantizer),
        DiscriminatorSet({}),
        losses,
        AdversarialOptimizer(side, side),
        distillation=distillation,
    )


@pytest.mark.parametrize("target", ["bottleneck", "split"])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_channels_that_a_latent_model_sees_are_taught(name, target):
    task = taught(CONTINUOUS[name](), target)
    quantizer = task.codec.quantizer
    channels = quantizer.latent_dim // (1 if target == "bottleneck" else 2)
    assert task.distillation.projection.in_features == channels
    latents = torch.randn(2, 8, 5)
    picked = task.distillation.select(latents, None, quantizer)
    assert torch.equal(picked, quantizer.to_latents(latents)[:, :channels])
    total, values = task.one_pass(tone_batch(2, 800))
    total.backward()
    assert 0 < float(values["distill"]) <= 2
    assert all(p.grad.abs().sum() > 0 for p in task.distillation.parameters())
    assert any(p.grad.abs().sum() > 0 for p in task.codec.encoder.parameters())
    assert all(not p.grad.any() for p in task.codec.decoder.parameters())
    if name != "none":
        assert quantizer.project_in.weight.grad[:channels].abs().sum(1).all()


def test_the_other_half_of_a_split_bottleneck_is_left_alone():
    task = taught(VAE(8, 100, channels=6), "split")
    task.one_pass(tone_batch(2, 800))[0].backward()
    gradient = task.codec.quantizer.project_in.weight.grad[..., 0]  # six means, six standard deviations
    assert gradient[:3].abs().sum(1).all()
    assert not gradient[3:].any()


def test_a_quantizer_with_codebooks_has_its_latents_as_a_bottleneck():
    task = taught(RVQ(8, 100, n_q=2, codebook_size=4), "bottleneck")
    latents = torch.randn(2, 8, 5)
    assert torch.equal(task.distillation.select(latents, None, task.codec.quantizer), latents)


def test_targets_that_a_quantizer_does_not_have_are_refused():
    for quantizer, target, sentence in (
        (VAE(8, 100, channels=6), "semantic", "or bottleneck for the channels of a continuous one"),
        (VAE(8, 100, channels=1), "split", "set distill.target=bottleneck"),
    ):
        with pytest.raises(InputError, match=sentence) as caught:
            taught(quantizer, target)
        assert "\n" not in str(caught.value)
