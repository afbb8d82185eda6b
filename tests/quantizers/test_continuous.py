"""Continuous bottlenecks, and the continuous latents of every quantizer."""

import math

import pytest
import torch
from torch import nn

from codec.quantizers.fsq import FSQ
from codec.quantizers.none import NoQuantizer
from codec.quantizers.rvq import RVQ
from codec.quantizers.sigma_vae import SigmaVAE
from codec.quantizers.split_rvq import SplitRVQ
from codec.quantizers.vae import VAE
from tests.helpers.parts import small_codec, tone_batch, unquantized

SMALL = dict(codebook_size=16, kmeans_iters=3)
DISCRETE = {
    "rvq": lambda: RVQ(8, 100, n_q=3, **SMALL),
    "rvq_mimi": lambda: RVQ(8, 100, n_q=3, codebook_dim=4, quantization_rate=0.5, **SMALL),
    "split_rvq": lambda: SplitRVQ(8, 100, n_q=3, codebook_dim=4, **SMALL),
    "fsq": lambda: FSQ(8, 100, levels=[4, 3, 3], n_q=2),
}
CONTINUOUS = {
    "none": lambda: NoQuantizer(8, 100),
    "vae": lambda: VAE(8, 100, channels=3),
    "sigma_vae": lambda: SigmaVAE(8, 100, channels=3),
}
ALL = DISCRETE | CONTINUOUS


def trained(name: str):
    """A codec whose quantizer has seen data; in eval mode."""
    codec = small_codec(ALL[name]())
    codec.train()(tone_batch(8, 400))
    return codec.eval()


@pytest.mark.parametrize("name", ALL)
def test_latents_before_quantization_decode_as_an_unquantized_sequence(name):
    codec, wav = trained(name), tone_batch(2, 250, seed=1)
    quantizer = codec.quantizer
    with torch.no_grad():
        z = codec.latents(wav)
        x = quantizer.to_latents(z, "pre")
        assert x.shape == (2, quantizer.latent_dim, z.shape[-1])
        torch.testing.assert_close(quantizer.from_latents(x, "pre"), unquantized(quantizer, z), atol=1e-6, rtol=1e-6)
        assert quantizer.to_latents(z).equal(x)  # the default kind
    for call in (quantizer.to_latents, quantizer.from_latents):
        with pytest.raises(ValueError, match="choose pre or post"):
            call(torch.zeros(1, 8, 4), "mid")
    with pytest.raises(ValueError, match=rf"are \[B, {quantizer.latent_dim}, F\]"):
        quantizer.from_latents(torch.zeros(1, 5, 4))


@pytest.mark.parametrize("name", DISCRETE)
def test_latents_after_quantization_decode_to_the_bit(name):
    codec, wav = trained(name), tone_batch(2, 250, seed=1)
    with torch.no_grad():
        out = codec(wav)
        x = codec.quantizer.to_latents(codec.latents(wav), "post")
        assert x.equal(out.quantized.z)
        assert codec.decode_latents(codec.quantizer.from_latents(x, "post"))[..., :250].equal(out.wav)
    with pytest.raises(ValueError, match=r"call codec.eval\(\) first"):
        codec.quantizer.train().to_latents(out.latents, "post")


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_bottlenecks_decode_their_latents_and_have_no_codes(name):
    codec, wav = trained(name), tone_batch(2, 250, seed=1)
    quantizer = codec.quantizer
    with torch.no_grad():
        out = codec(wav)
        x = quantizer.to_latents(out.latents)
        assert codec.decode_latents(quantizer.from_latents(x))[..., :250].equal(out.wav)
        assert codec(wav).wav.equal(out.wav)  # deterministic
    if name == "none":
        assert out.quantized.z.equal(out.latents)
    assert out.quantized.codes is None
    assert math.isnan(quantizer.bitrate())
    for call in (quantizer.encode, quantizer.decode):
        with pytest.raises(ValueError, match="no codes"):
            call(out.latents)
    with pytest.raises(ValueError, match="no codebooks"):
        quantizer(out.latents, 2)
    for call in (quantizer.to_latents, quantizer.from_latents):
        with pytest.raises(ValueError, match="kind pre only"):
            call(out.latents, "post")


def posterior(quantizer: VAE, z):
    mean, spread = quantizer.project_in(z).chunk(2, dim=1)
    return torch.distributions.Normal(mean, nn.functional.softplus(spread) + 1e-4)


def test_the_loss_of_a_vae_is_its_divergence_and_every_channel_is_logged():
    torch.manual_seed(0)
    quantizer = VAE(8, 100, channels=3, weight=0.5, free_bits=0.0).train()
    z = 2 * torch.randn(4, 8, 25)
    out = quantizer(z)
    kl = torch.distributions.kl_divergence(posterior(quantizer, z), torch.distributions.Normal(0.0, 1.0)).mean((0, 2))
    torch.testing.assert_close(out.loss, 0.5 * kl.sum())
    expected = {"kl": kl.sum().detach()} | {f"kl/{c + 1}": kl[c].detach() for c in range(3)}
    torch.testing.assert_close(out.metrics, expected)
    assert quantizer.eval()(z).metrics == {}


def test_channels_below_free_bits_have_no_gradient():
    torch.manual_seed(0)
    quantizer = VAE(8, 100, channels=3, weight=1.0, free_bits=0.5).train()
    with torch.no_grad():
        quantizer.project_in.weight[:3] *= torch.tensor([0.0, 3.0, 3.0])[:, None, None]
        quantizer.project_in.bias.zero_()
        quantizer.project_in.bias[3:] = math.log(math.e - 1)  # a standard deviation of 1: the mean makes the divergence
        quantizer.project_in.weight[3:] = 0
    out = quantizer(torch.randn(4, 8, 25))
    assert float(out.metrics["kl/1"]) < 0.01
    torch.testing.assert_close(out.loss.detach(), 0.5 + out.metrics["kl/2"] + out.metrics["kl/3"])
    out.loss.backward()
    moved = quantizer.project_in.weight.grad.abs().sum((1, 2)) > 0
    assert moved.tolist() == [False, True, True] * 2


def test_a_vae_samples_its_posterior_in_training_only():
    torch.manual_seed(0)
    quantizer = VAE(8, 100, channels=3).train()
    quantizer.project_out = nn.Identity()
    z = torch.randn(1, 8, 1)
    draws = quantizer(z.expand(4000, -1, -1)).z.detach()[..., 0]
    expected = posterior(quantizer, z)
    torch.testing.assert_close(draws.mean(0), expected.mean[0, :, 0].detach(), atol=0.06, rtol=0)
    torch.testing.assert_close(draws.std(0), expected.stddev[0, :, 0].detach(), atol=0.06, rtol=0)
    assert quantizer.eval()(z).z.equal(expected.mean)


def test_the_noise_of_a_sigma_vae_is_drawn_per_example_at_a_fixed_scale():
    torch.manual_seed(0)
    quantizer = SigmaVAE(8, 100, channels=16, std=0.25).train()
    quantizer.project_out = nn.Identity()
    z = torch.randn(2000, 8, 30)
    clean = quantizer.to_latents(z)
    torch.testing.assert_close(clean.square().mean(1), torch.ones(2000, 30), atol=1e-5, rtol=0)
    torch.testing.assert_close(quantizer.to_latents(100 * z)[:, :, 0].square().mean(1), torch.ones(2000))
    out = quantizer(z)
    stds = (out.z - clean).detach().flatten(1).std(1)  # one for each example
    expected = torch.distributions.HalfNormal(0.25)
    torch.testing.assert_close(stds.mean(), expected.mean, atol=0.01, rtol=0)
    torch.testing.assert_close(stds.std(), expected.stddev, atol=0.01, rtol=0)
    assert float(out.loss) == 0
    torch.testing.assert_close(sum(out.metrics.values()) / 16, torch.tensor(1.0))
    assert quantizer.eval()(z).z.equal(clean)
    assert quantizer(torch.zeros(1, 8, 2)).z.isfinite().all()
