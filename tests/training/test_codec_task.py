"""The one-pass GAN step against the usual two passes, and what Lightning makes of it."""

import copy
import sys

import lightning
import pandas
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from codec.distillation.cosine import Distillation
from codec.distillation.teachers.base import Teacher
from codec.losses.adversarial import Hinge, LeastSquares
from codec.losses.balancer import Balancer, Weighted
from codec.training.callbacks.ema import EMA
from codec.training.callbacks.progress import Progress, Throughput
from codec.training.callbacks.validation import ValidationReport
from codec.training.optim import AdversarialOptimizer, Cosine, Exponential, ParameterGroup
from tests.helpers.parts import small_mimi, tone_batch
from tests.helpers.training import T, Tones, composed, fit, loader, small_task


def gradients(module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


@pytest.mark.parametrize("adversarial", [Hinge, LeastSquares])
@pytest.mark.parametrize("combine", [Weighted, Balancer])
def test_one_pass_gives_the_gradients_of_two(adversarial, combine):
    """Discriminator pass: its loss on detached output. Generator pass: all losses through everything."""
    wav = tone_batch(4, T)
    task = small_task(combine(), adversarial())
    task.codec.quantizer.dropout = 0.0
    task.one_pass(wav)  # initialises the codebooks
    other = copy.deepcopy(task)

    total, _ = task.one_pass(wav)
    total.backward()

    out = other.codec(wav)
    disc_loss = other.losses.discriminator(other.discriminators(wav), other.discriminators(out.wav.detach()))
    disc_loss.backward()
    expected_disc = gradients(other.discriminators)
    other.zero_grad()
    losses = other.losses.reconstruction(wav, out.wav)
    losses |= other.losses.generator(other.discriminators(wav), other.discriminators(out.wav))
    if combine is Weighted:
        generator = sum(other.losses.weights[name] * loss for name, loss in losses.items())
        (generator + 0.7 * out.quantized.loss).backward()
    else:  # EnCodec: the balanced gradient at the output, then back through the codec
        estimate = out.wav.detach().requires_grad_()
        losses = other.losses.reconstruction(wav, estimate)
        losses |= other.losses.generator(other.discriminators(wav), other.discriminators(estimate))
        (0.7 * out.quantized.loss).backward(retain_graph=True)
        out.wav.backward(other.losses.gradient(losses, estimate))
    expected_codec = gradients(other.codec)

    for expected, module in ((expected_disc, task.discriminators), (expected_codec, task.codec)):
        found = gradients(module)
        assert len(found) == len(expected) == len(list(module.parameters()))
        scale = max(float(g.abs().max()) for g in expected)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6 * scale, rtol=1e-5)


def test_a_step_is_a_step(tmp_path):
    """max_steps counts batches once; accumulation uses more batches for each step."""
    for accumulated in (1, 2):
        trainer = fit(small_task(), 3, tmp_path, accumulate_grad_batches=accumulated)
        assert trainer.global_step == 3
        assert trainer.fit_loop.total_batch_idx + 1 == 3 * accumulated
    assert [g["name"] for g in trainer.optimizers[0].param_groups] == ["codec", "disc"]
    with pytest.raises(ValueError, match="set max_steps"):
        fit(small_task(), -1, tmp_path, max_epochs=1)


def same(state: dict, before: dict) -> bool:
    return all(torch.equal(v, before[k]) for k, v in state.items() if isinstance(v, torch.Tensor))


def adam_steps(trainer, module) -> set[int]:
    """Adam's count starts with the first real gradient, or its first steps would be far too long."""
    return {int(s["step"]) for p, s in trainer.optimizers[0].state.items() if p in set(module.parameters())}


def test_discriminators_wait_for_their_turn(tmp_path):
    task, seen = small_task(start=3), []
    before = copy.deepcopy(task.discriminators.state_dict())

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            logged = "train/adversarial" in trainer.logged_metrics
            seen.append((same(task.discriminators.state_dict(), before), logged))

    trainer = fit(task, 5, tmp_path, [Watch()])
    assert seen == [(True, False)] * 3 + [(False, True)] * 2
    assert adam_steps(trainer, task.discriminators) == {2}


def test_codec_waits_while_fresh_discriminators_and_projections_learn(tmp_path):
    """Fine-tuning: before its start nothing of the codec moves, codebooks and averages included; then Adam begins."""
    task, ema, seen = small_task(), EMA(decay=0.5), []
    task.one_pass(tone_batch(4, T))  # codebooks exist
    task.distillation, task.codec_start = Distillation(Projected(), 8, 800, 100), 3
    parts = (task.codec, task.discriminators, task.distillation.projection)
    before = [copy.deepcopy(part.state_dict()) for part in parts]

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            seen.append([same(part.state_dict(), state) for part, state in zip(parts, before, strict=True)])
            assert trainer.global_step != 3 or same(ema.average, before[0])

    trainer = fit(task, 5, tmp_path, [ema, Watch()])
    assert seen == [[True, False, False]] * 3 + [[False] * 3] * 2
    assert adam_steps(trainer, task.codec) == {2}


def test_clipping_is_per_side(tmp_path):
    task = small_task()
    task.optim = AdversarialOptimizer(ParameterGroup(1e-3, clip=0.01), ParameterGroup(1e-3, clip=None), Cosine())
    norms = {}

    class Watch(lightning.Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            if trainer.global_step == 1:
                for group in optimizer.param_groups:
                    norms[group["name"]] = float(torch.nn.utils.get_total_norm([p.grad for p in group["params"]]))

    trainer = fit(task, 2, tmp_path, [Watch()])
    assert norms["codec"] == pytest.approx(0.01, rel=1e-3)
    assert norms["disc"] > 0.011
    assert float(trainer.logged_metrics["train/grad_norm/codec"]) > 0.01


def test_bf16_keeps_its_islands(tmp_path):
    """Under bf16 the convolutions run in bf16; the waveform, the quantizer, spectra, losses and state stay fp32."""
    task, seen = small_task(), {}
    convolution, mel = task.codec.encoder.layers[0].conv, task.losses.terms["mel"]
    spectrum = task.discriminators.members["msstft"].scales[0].spectrogram
    for module in (convolution, mel, task.codec, spectrum):
        module.register_forward_hook(lambda module, inputs, out: seen.__setitem__(module, (inputs[0].dtype, out)))
    trainer = fit(task, 2, tmp_path, precision="bf16-mixed")
    assert seen[convolution][1].dtype == torch.bfloat16
    out = seen[task.codec][1]
    assert out.wav.dtype == out.quantized.z.dtype == out.quantized.loss.dtype == torch.float32
    assert seen[mel][0] == seen[mel][1].dtype == torch.float32
    assert seen[spectrum][1].dtype in (torch.complex64, torch.float32)
    assert all(b.dtype in (torch.float32, torch.int64) for b in task.codec.buffers())
    assert all(bool(v.isfinite()) for v in trainer.logged_metrics.values())


def test_logged_values_are_those_of_the_logged_step(tmp_path):
    """Lightning writes every n-th step: what it writes must have been computed in that step."""
    logged = {}
    for n in (1, 3):
        torch.manual_seed(0)
        logger = CSVLogger(tmp_path, None, f"csv{n}")
        fit(small_task(), 6, tmp_path, logger=logger, log_every_n_steps=n)
        logged[n] = pandas.read_csv(tmp_path / f"csv{n}" / "metrics.csv").dropna(subset="train/mel").set_index("step")
    assert sorted(logged[3].index) == [2, 5]
    assert logged[3]["train/mel"].equals(logged[1]["train/mel"][[2, 5]])


@pytest.mark.parametrize("schedule", [Cosine(10, 0.1), Exponential(0.5, 10, 10)])
def test_schedules(schedule):
    factors = [schedule(s, 100) for s in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] == pytest.approx(0.1 if isinstance(schedule, Cosine) else 0.5**9)


def test_ema_is_the_average_of_the_weights_and_is_used_for_validation(tmp_path):
    """A checkpoint that is saved during validation has both in their places."""
    task, ema, history, seen = small_task(members=()), EMA(decay=0.5), [], {}
    name = "encoder.layers.0.conv.bias"

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            history.append(task.codec.get_parameter(name).detach().clone())

        def on_validation_batch_end(self, trainer, *_):
            seen["validation"] = task.codec.get_parameter(name).detach().clone()
            seen["saved"] = copy.deepcopy(trainer._checkpoint_connector.dump_checkpoint())

    expected = task.codec.get_parameter(name).detach().clone()
    validation = dict(val=loader(1, 1), val_check_interval=4, check_val_every_n_epoch=None)
    trainer = fit(task, 4, tmp_path, [ema, Watch()], **validation)
    for step, value in enumerate(history, start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(ema.average[name], expected)
    torch.testing.assert_close(seen["validation"], expected)
    torch.testing.assert_close(task.codec.get_parameter(name).detach(), history[-1])  # swapped back
    after = trainer._checkpoint_connector.dump_checkpoint()
    for name, value in after["ema"].items():
        torch.testing.assert_close(seen["saved"]["ema"][name], value)
        torch.testing.assert_close(seen["saved"]["state_dict"][f"codec.{name}"], after["state_dict"][f"codec.{name}"])


def test_validation_scores_shows_and_counts(tmp_path):
    """16 kHz speech-like clips; PESQ refuses the silent one, which is counted and does not spoil the means."""

    class Clips(Tones):
        def __getitem__(self, n):
            item = super().__getitem__(n)
            return item | {"wav": item["wav"] * (n > 0)}

    task = small_task(members=())
    task.codec.sample_rate = 16_000
    callbacks = [ValidationReport(("pesq_wb", "stoi", "mel_distance"), shown=1), Throughput(), EMA()]
    loggers = [TensorBoardLogger(tmp_path, "tb")]
    val = DataLoader(Clips(3, 16_000), 1)
    trainer = fit(task, 2, tmp_path, callbacks, val, logger=loggers, val_check_interval=2, check_val_every_n_epoch=None)
    logged = trainer.logged_metrics
    assert 1.0 <= float(logged["val/pesq_wb"]) <= 4.65
    assert float(logged["val/failed"]) == 2  # PESQ and STOI of the silent clip
    assert float(logged["train/audio_s_per_s"]) > 0
    assert float(logged["val/loss/mel"]) > 0
    tags = EventAccumulator(str(next((tmp_path / "tb").rglob("events*")).parent)).Reload().Tags()
    assert {"tone0/decoded", "tone0/reference"} <= set(tags["audio"])
    assert "tone0/spectrogram" in tags["images"]
    with pytest.raises(ValueError, match="unknown metrics"):
        ValidationReport(("pesk",))


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_on_a_terminal_and_else_one_line_per_validation(terminal, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    options = {"val_check_interval": 1, "check_val_every_n_epoch": None, "enable_progress_bar": True}
    fit(small_task(members=()), 2, tmp_path, [Progress(1), Throughput()], loader(1, 1), **options)
    text = capsys.readouterr().out
    assert all(word in text for word in ("2/2", "mel=", "audio_s_per_s="))
    assert terminal or [line.split()[:2] for line in text.splitlines()] == [["step", "1/2"], ["step", "2/2"]]


class Projected(Teacher):
    """A teacher whose features are a fixed random projection of frames of 8 samples."""

    def __init__(self):
        super().__init__(torch.nn.Linear(8, 6), 6, 100, "projected", 800)

    def features(self, wav):
        return self.network(wav.unfold(-1, 8, 8))


@pytest.mark.parametrize("target", ["semantic", "full"])
def test_distillation_teaches_the_codec_and_leaves_no_teacher_behind(target, tmp_path):
    task = small_task(members=())
    task.distillation = Distillation(Projected(), 8, 800, 100, target, weight=2.0)
    wav = tone_batch(4, T)
    task.one_pass(wav)
    other = copy.deepcopy(task)
    other.distillation = None
    total, values = task.one_pass(wav)
    total.backward()
    other.one_pass(wav)[0].backward()
    assert 0 < float(values["distill"]) <= 2
    assert all(p.grad is not None for p in task.distillation.parameters())
    for part, equal in (("encoder", False), ("decoder", True)):  # nothing of it passes through the decoder
        ours, theirs = (torch.cat([g.flatten() for g in gradients(getattr(t.codec, part))]) for t in (task, other))
        assert torch.allclose(ours, theirs, atol=1e-6) == equal
    trainer = fit(task, 1, tmp_path, [EMA()], enable_checkpointing=True)
    checkpoint, projection = trainer._checkpoint_connector.dump_checkpoint(), "distillation.projection."
    distilled = {k for k in checkpoint["state_dict"] if "distil" in k}
    assert distilled == {f"{projection}weight", f"{projection}bias"}
    assert not any("distil" in k or "teacher" in k for k in checkpoint["ema"])
    groups = {g["name"]: g["params"] for g in trainer.optimizers[0].param_groups}
    assert groups.keys() == {"codec", "distillation"}  # without discriminators: an ordinary autoencoder
    assert any(p is task.distillation.projection.weight for p in groups["distillation"])


@pytest.mark.parametrize("combine", [Weighted, lambda: Balancer(reference_batch=8)])
def test_the_gradient_depends_neither_on_the_batch_size_nor_on_accumulation(combine, tmp_path):
    """Of balanced losses, commitment and distillation together, on repetitions of one clip."""
    found = {}
    for batch, accumulate in ((1, 1), (4, 1), (8, 1), (2, 2), (1, 4)):
        task = small_task(combine(), LeastSquares())
        task.distillation = Distillation(Projected(), 8, 800, 100)
        quantizer = task.codec.quantizer
        quantizer.check_every, quantizer.decay, quantizer.dropout, quantizer.steps = 0, 1.0, 0.0, 1
        quantizer.codebooks.copy_(torch.randn(quantizer.codebooks.shape, generator=torch.Generator().manual_seed(9)))
        quantizer.usage.fill_(1.0)
        quantizer.sums.copy_(quantizer.codebooks)
        for p in task.distillation.parameters():
            torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(3))
        seen = []

        class Watch(lightning.Callback):
            def on_before_optimizer_step(self, trainer, module, optimizer, seen=seen):
                seen.append(torch.cat([p.grad.flatten() for p in module.codec.parameters()]))

        repeated = DataLoader([Tones()[0]] * 64, batch)
        fit(task, 1, tmp_path, [Watch()], train=repeated, accumulate_grad_batches=accumulate)
        found[batch, accumulate] = seen[0]
    for gradient in found.values():  # one clip alone is rounded in another way, which turns signs in L1 losses
        assert (gradient - found[1, 1]).norm() < 0.01 * found[1, 1].norm()


def test_adversarial_only_after_a_warm_up(tmp_path):
    task = small_task()
    task.losses.reconstruction_until = 1
    taught, one_pass = [], task.one_pass
    task.one_pass = lambda *given: taught.append(one_pass(*given)) or taught[-1]
    fit(task, 2, tmp_path)
    names = [values.keys() & {"mel", "l1", "adversarial", "feature"} for _, values in taught]
    assert names == [{"mel", "l1", "adversarial", "feature"}, {"adversarial", "feature"}]
    task.zero_grad()
    one_pass(tone_batch(4, T))[0].backward()
    assert any(float(p.grad.abs().sum()) > 0 for p in task.codec.decoder.parameters())


def test_weight_decay_of_transformers_only():
    codec = small_mimi()
    side = ParameterGroup(1e-3, (0.5, 0.9), weight_decay=0.5, decay="transformers")
    models = {"codec": codec, "disc": torch.nn.Linear(2, 2)}
    optimizer, _ = AdversarialOptimizer(side, ParameterGroup(1e-4)).build(models, 10)
    assert [g["name"] for g in optimizer.param_groups] == ["codec", "codec/transformers", "disc"]
    everything = [p for g in optimizer.param_groups[:2] for p in g["params"]]
    assert len(everything) == len(set(map(id, everything))) == len(list(codec.parameters()))
    before = {name: p.detach().clone() for name, p in codec.named_parameters()}
    for p in codec.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in codec.named_parameters():
        shrunk = 1 - 1e-3 * 0.5 if "transformer" in name else 1.0
        torch.testing.assert_close(p.detach(), before[name] * shrunk)
    with pytest.raises(ValueError, match="transformers"):
        ParameterGroup(1e-3, decay="some")


def test_the_best_of_adversarial_training_is_the_newest():
    """The mel distance would choose the end of the warm-up, which has reconstruction losses."""
    chosen = {loss: composed(f"loss={loss}").callbacks.best for loss in ("balancer", "adversarial_only")}
    assert (chosen["balancer"].monitor, chosen["balancer"].mode) == ("val/mel_distance", "min")
    assert (chosen["adversarial_only"].monitor, chosen["adversarial_only"].mode) == ("step", "max")
    assert composed("experiment=mimi_table3/adversarial_only").callbacks.best.monitor == "step"
