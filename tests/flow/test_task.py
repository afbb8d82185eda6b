"""Training of flow models: the loss, exact resuming, skipped steps, and ranks that equal one process."""

import copy

import lightning
import pytest
import torch

from codec.checkpoints.safe_instantiate import FLOW, CheckpointError, build
from codec.flow.load import load_flow, statistics_of
from codec.flow.task import FlowTask
from codec.training.callbacks.ema import EMA
from tests.helpers.checkpoints import same
from tests.helpers.flow_checkpoints import configuration
from tests.helpers.flow_parts import CONDITIONS, C, conditioning, example
from tests.helpers.flow_training import ALL, batch, fit, latent_data, one_pass, small_task


def test_the_loss_is_the_mean_over_the_span():
    """Neither context nor padding has an influence."""
    task, output, given = small_task(*ALL), torch.randn(2, C, 20), batch()
    task.flow.forward = lambda *_: output
    before = one_pass(task, given)[0]
    valid = torch.arange(20) < given["lengths"][:, None]
    inside = given["span"] & valid
    x0 = torch.randn(2, C, 20, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(before, (output - (given["latents"] - x0)).square().mean(1)[inside].mean())
    output = torch.where(inside[:, None], output, torch.randn(2, C, 20))
    assert torch.equal(before, one_pass(task, given)[0])
    assert torch.equal(before, one_pass(task, given | {"span": given["span"] | ~valid})[0])


def test_two_examples_are_learned_from_their_phones_alone():
    task = small_task("phones")
    optimizer = torch.optim.AdamW(task.parameters(), 1e-2)
    given, losses = batch() | {"span": torch.ones(2, 20, dtype=torch.bool)}, []
    for _ in range(60):
        loss = one_pass(task, given)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("name", [None, *CONDITIONS])
def test_every_parameter_has_a_gradient_in_every_step(name):
    """As plain DDP needs, also where no example has conditioning."""
    task = small_task(*([name] if name else []))
    for conditional in (True, False):
        task.zero_grad()
        one_pass(task, batch(), conditional, False)[0].backward()
        assert all(p.grad is not None for p in task.parameters())


def test_bf16_is_close_to_fp32():
    task, given = small_task(*ALL), batch()
    exact, dtypes = one_pass(task, given)[0], []
    task.flow.network.leave.register_forward_hook(lambda module, args, output: dtypes.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        loss = one_pass(task, given)[0]
    assert dtypes == [torch.bfloat16]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.03, atol=0)
    loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in task.parameters())


class SaveAt3(lightning.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            trainer.save_checkpoint(f"{trainer.default_root_dir}/3.ckpt")


def test_resuming_is_bit_exact(tmp_path):
    saved, losses = [], []
    for seed, start in ((0, None), (1, tmp_path / "3.ckpt")):
        lightning.seed_everything(seed, verbose=False)
        trainer = fit(small_task(*ALL, config={"max": 6}), 6, tmp_path, [EMA(0.5), SaveAt3()], ckpt_path=start)
        trainer.save_checkpoint(tmp_path / "6.ckpt")
        saved.append(torch.load(tmp_path / "6.ckpt", weights_only=True))
        losses.append(float(trainer.logged_metrics["val/loss"]))
    one, two = saved
    for part in ("state_dict", "ema", "optimizer_states", "lr_schedulers", "LatentData"):
        assert same(one[part], two[part]), part
    assert same(one["callbacks"]["RandomState"], two["callbacks"]["RandomState"])
    assert losses[0] == losses[1]


def test_validation_is_deterministic_and_of_averaged_weights(tmp_path):
    task, losses, data = small_task(*ALL), [], latent_data(condition=ALL)
    task.log_dict = lambda values, **_: losses.append(float(values["val/loss"]))
    for _ in range(2):
        torch.rand(5)
        for n, given in enumerate(data.val_dataloader()):
            with torch.no_grad():
                task.validation_step(given, n)
    assert losses[: len(losses) // 2] == losses[len(losses) // 2 :]
    averaged, seen = EMA(0.9), {}

    class Look(lightning.Callback):
        def on_validation_epoch_start(self, trainer, task):
            seen["validation"] = copy.deepcopy(task.flow.state_dict())

    task = small_task(*ALL)
    fit(task, 2, tmp_path, [averaged, Look()])
    assert not same(seen["validation"], task.flow.state_dict())
    assert all(torch.equal(v, seen["validation"][n]) for n, v in averaged.average.items())


def test_a_recording_with_nan_is_named_and_its_step_skipped(tmp_path, caplog):
    class Bad(lightning.Callback):
        def on_train_batch_start(self, trainer, task, batch, batch_idx):
            if trainer.global_step == 1:
                batch["latents"][1, 0, 3] = torch.nan
                self.before, self.file = copy.deepcopy(task.state_dict()), batch["file"][1]

        def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
            if trainer.global_step == 2:
                assert same(self.before, task.state_dict())

    bad = Bad()
    fit(small_task(*ALL), 2, tmp_path, [bad])
    assert bad.file in caplog.text


class Fixed(torch.nn.Module):
    """The loss of some of two examples whose spans have different lengths, with given noise."""

    def __init__(self, task: FlowTask):
        super().__init__()
        self.task = task

    def forward(self, own: list[int], conditional: bool = True) -> torch.Tensor:
        whole = batch()
        whole["span"][1, 8:] = False
        part = {k: v[own] if isinstance(v, torch.Tensor) else [v[n] for n in own] for k, v in whole.items()}
        x0 = torch.randn(whole["latents"].shape, generator=torch.Generator().manual_seed(3))[own]
        flags = torch.ones(len(own), dtype=torch.bool)
        return self.task.one_pass(part, x0, torch.tensor([0.3, 0.6])[own], flags & conditional, flags)[0]


def trained(rank: int | None) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The first gradient and the weights after two steps, the second of which has no conditioning: of both examples, or
    of one per rank."""
    task = small_task(*ALL)
    model, own = Fixed(task), [0, 1] if rank is None else [rank]
    model = model if rank is None else torch.nn.parallel.DistributedDataParallel(model)
    optimizer, gradient = torch.optim.AdamW(task.parameters(), 1e-2), {}
    for conditional in (True, False):
        optimizer.zero_grad()
        model(own, conditional).backward()
        gradient = gradient or {name: p.grad.clone() for name, p in task.named_parameters()}
        optimizer.step()
    return gradient, task.state_dict()


def test_two_ranks_have_the_gradient_of_one_process(pair):
    alone, (first, second) = trained(None), pair(trained)
    assert same(first[1], second[1])
    assert not same(first[1], small_task(*ALL).state_dict())
    for name, gradient in alone[0].items():
        torch.testing.assert_close(first[0][name], gradient, atol=1e-6, rtol=1e-4)
        assert torch.equal(first[0][name], second[0][name])


def test_a_model_is_loaded_from_its_checkpoint(tmp_path):
    config = configuration(("phones", "prompt"), "f" * 32, 0.4, channels=C)
    flow = build(config, FLOW).eval()
    flow.mean.copy_(torch.arange(C))
    state = {f"flow.{name}": value for name, value in flow.state_dict().items()}
    average = {name: p.detach() * 2 for name, p in flow.named_parameters()}
    content = {"config": {"flow": config}, "state_dict": state, "ema": average, "global_step": 3}
    known, span = example()
    expected = flow.inpaint(known, span, conditioning(), steps=2)
    torch.save(content, tmp_path / "a.ckpt")
    raw, averaged = load_flow(tmp_path / "a.ckpt", ema=False), load_flow(tmp_path / "a.ckpt")
    assert torch.equal(raw.inpaint(known, span, conditioning(), steps=2), expected)
    assert all(torch.equal(p, average[name]) for name, p in averaged.named_parameters())
    assert statistics_of(averaged).mean.tolist() == [0, 1, 2]
    assert not averaged.training
    others = [
        config | {"_target_": f"codec.flow.{name}"}
        for name in ("datamodule.LatentData", "text_conditioning.SlotEmbedding")
    ]
    for other in (*others, config["network"]):
        torch.save(content | {"config": {"flow": other}}, tmp_path / "b.ckpt")
        with pytest.raises(CheckpointError):
            load_flow(tmp_path / "b.ckpt")
