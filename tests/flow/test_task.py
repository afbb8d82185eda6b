"""Training: what the loss sees, that it goes down, that it goes on exactly, and that ranks stay equal."""

import copy

import lightning
import pytest
import torch

from codec.checkpoints.safe_instantiate import CheckpointError
from codec.flow.conditioning import Conditions
from codec.flow.datamodule import LatentData
from codec.flow.load import load_flow, statistics_of
from codec.flow.masking import Spans
from codec.flow.task import FlowTask
from codec.training.callbacks.ema import EMA
from codec.training.callbacks.nonfinite_guard import NonfiniteGuard
from codec.training.callbacks.progress import Progress, Throughput
from codec.training.callbacks.rng_state import RandomState
from codec.training.optim import Cosine, ParameterGroup, SingleOptimizer
from tests.helpers.checkpoints import same
from tests.helpers.flow_parts import CONDITIONS, C, example, small_flow, told
from tests.helpers.latent_corpora import Corpus

ALL = ("aligned_phones", "phones", "prompt", "prompt_attention")


def small_task(*names: str, lr: float = 1e-3, **options) -> FlowTask:
    return FlowTask(
        small_flow(*names), SingleOptimizer(ParameterGroup(lr, (0.9, 0.99), 0.01, 1.0), Cosine()), **options
    )


def batch(seed: int = 0) -> dict:
    latents, span = example(seed=seed)
    return {"latents": latents, "span": span, "lengths": torch.tensor([20, 17]), "file": ["a", "b"]} | told(seed=seed)


def one_pass(task: FlowTask, batch: dict, keep=True, seen=True) -> tuple[torch.Tensor, dict]:
    generator, flags = torch.Generator().manual_seed(3), torch.ones(2, dtype=torch.bool)
    x0 = torch.randn(batch["latents"].shape, generator=generator)
    return task.one_pass(batch, x0, torch.tensor([0.3, 0.6]), flags & keep, flags & seen)


def test_the_loss_is_that_of_the_span():
    """What the network says elsewhere, and what stands in the padding, has no part in it."""
    task, said = small_task(*ALL), torch.randn(2, C, 20)
    given = batch()
    task.flow.forward = lambda *_: said
    before = one_pass(task, given)[0]
    inside = given["span"] & (torch.arange(20) < given["lengths"][:, None])
    said = torch.where(inside[:, None], said, torch.randn(2, C, 20))
    assert torch.equal(before, one_pass(task, given)[0])
    padded = given | {"span": given["span"] | (torch.arange(20) >= given["lengths"][:, None])}
    assert torch.equal(before, one_pass(task, padded)[0])
    x0 = torch.randn(2, C, 20, generator=torch.Generator().manual_seed(3))
    errors = (said - (given["latents"] - x0)).square().mean(1)[inside]
    torch.testing.assert_close(before, errors.mean())


def test_a_tiny_batch_is_learned_by_heart(tmp_path):
    """The network is told who is to be said, and sees nothing of it."""
    task = small_task("phones", lr=3e-3)
    optimizer = torch.optim.AdamW(task.parameters(), 5e-3)
    given = batch() | {"span": torch.ones(2, 20, dtype=torch.bool)}
    losses = []
    for _ in range(250):
        loss = one_pass(task, given)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("name", [None, *CONDITIONS])
def test_every_parameter_has_a_gradient_in_every_step(name):
    """Plain ddp waits for each of them, also where nobody is told anything."""
    task = small_task(*([name] if name else []))
    for keep in (True, False):
        task.zero_grad()
        one_pass(task, batch(), keep, False)[0].backward()
        missing = [n for n, p in task.named_parameters() if p.grad is None]
        assert not missing


def test_bf16_changes_little():
    task, given = small_task(*ALL), batch()
    exact, output = one_pass(task, given)[0], []
    task.flow.network.leave.register_forward_hook(lambda *seen: output.append(seen[2].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        loss = one_pass(task, given)[0]
    assert output == [torch.bfloat16]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.03, atol=0)
    loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in task.parameters())


def data(**options) -> LatentData:
    spans = Spans(seconds=(0.03, 0.15), every=0.25)
    return LatentData(Corpus(), small_flow(*ALL).condition, spans, 0.3, (0.05, 0.1), 2, 0, **options)


def fit(task: FlowTask, steps: int, folder=None, callbacks=(), ckpt_path=None, **options) -> lightning.Trainer:
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    options = quiet | dict(accelerator="cpu", log_every_n_steps=1, num_sanity_val_steps=0) | options
    options |= dict(check_val_every_n_epoch=None, use_distributed_sampler=False)
    options = dict(val_check_interval=2) | options
    callbacks = [RandomState(), NonfiniteGuard(str(folder)), Throughput(), *(callbacks or [EMA(0.5)])]
    trainer = lightning.Trainer(max_steps=steps, callbacks=callbacks, default_root_dir=folder, **options)
    trainer.fit(task, data(), ckpt_path=ckpt_path, weights_only=True)
    return trainer


def test_a_run_that_goes_on_ends_as_the_one_that_nobody_stopped(tmp_path):
    lightning.seed_everything(0, verbose=False)
    whole = fit(small_task(*ALL, config={"max": 6}), 6, tmp_path)
    whole.save_checkpoint(tmp_path / "whole.ckpt")
    lightning.seed_everything(0, verbose=False)
    schedule = {"config": {"max": 6}}

    class Stop(lightning.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 3:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    fit(small_task(*ALL, **schedule), 6, tmp_path, [EMA(0.5), Stop()])
    lightning.seed_everything(1, verbose=False)
    second = fit(small_task(*ALL, **schedule), 6, tmp_path, ckpt_path=tmp_path / "half.ckpt")
    second.save_checkpoint(tmp_path / "again.ckpt")
    one, two = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("whole", "again"))
    for part in ("state_dict", "ema", "optimizer_states", "lr_schedulers", "LatentData"):
        assert same(one[part], two[part]), part
    assert same(one["callbacks"]["RandomState"], two["callbacks"]["RandomState"])
    assert float(whole.logged_metrics["val/loss"]) == float(second.logged_metrics["val/loss"])


def test_validation_is_on_averaged_weights_and_changes_with_them_alone(tmp_path):
    task, losses = small_task(*ALL), []
    source = data()
    source.setup("fit")
    task.log_dict = lambda values, **_: losses.append(float(values["val/loss"]))
    for _ in range(2):
        torch.rand(5)
        for n, given in enumerate(source.val_dataloader()):
            with torch.no_grad():
                task.validation_step(given, n)
    assert losses[: len(losses) // 2] == losses[len(losses) // 2 :]
    averaged, seen = EMA(0.9), {}

    class Look(lightning.Callback):
        def on_validation_epoch_start(self, trainer, task):
            seen["validation"] = copy.deepcopy(task.flow.state_dict())

        def on_train_batch_end(self, trainer, task, *_):
            seen["training"] = copy.deepcopy(task.flow.state_dict())

    fit(small_task(*ALL), 2, tmp_path, [averaged, Look()])
    assert not same(seen["validation"], seen["training"])
    assert all(torch.equal(v, seen["validation"][n]) for n, v in averaged.average.items())


def test_a_bad_recording_is_named_and_changes_nothing(tmp_path, caplog):
    class Bad(lightning.Callback):
        def on_train_batch_start(self, trainer, task, batch, batch_idx):
            if trainer.global_step == 1:
                batch["latents"][1, 0, 3] = torch.nan
                self.before, self.file = copy.deepcopy(task.state_dict()), batch["file"][1]

        def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
            if trainer.global_step == 2:
                assert same(self.before, task.state_dict())

    bad = Bad()
    fit(small_task(*ALL), 3, tmp_path, [bad, Progress(1)], enable_progress_bar=True)
    assert f"not finite: {bad.file}\n" in caplog.text


def ranks(rank: int) -> dict[str, torch.Tensor]:
    """Three steps of plain DistributedDataParallel, each with a batch of its own."""
    task = small_task(*ALL)
    model = torch.nn.parallel.DistributedDataParallel(Passes(task))
    optimizer = torch.optim.AdamW(task.parameters(), 1e-2)
    for step in range(3):
        torch.manual_seed(10 * step + rank)
        optimizer.zero_grad()
        model(batch(seed=10 * step + rank), step).backward()
        optimizer.step()
    return task.state_dict()


class Passes(torch.nn.Module):
    def __init__(self, task: FlowTask):
        super().__init__()
        self.task = task

    def forward(self, batch: dict, step: int) -> torch.Tensor:
        return one_pass(self.task, batch, keep=step != 1)[0]  # in one step nobody is told anything


def test_ranks_stay_equal(pair):
    first, second = pair(ranks)
    assert same(first, second)
    assert not same(first, small_task(*ALL).state_dict())


def described(task: FlowTask) -> dict:
    """The configuration of the model of `small_task("phones", "prompt")`."""
    sizes = {"frame_rate": 100.0, "width": 16, "hidden": 8}
    part = "codec.flow."
    phones = {"_target_": f"{part}text.Phones", "vocabulary": "a b c", **sizes, "blocks": 2}
    prompt = {"_target_": f"{part}prompt.PromptVector", "channels": C, "width": 16, "hidden": 8, "blocks": 2}
    members = {"phones": phones, "prompt": prompt}
    network = {"_target_": f"{part}dit.DiT", "channels": C, "width": 16, "layers": 2, "heads": 2, "hidden": 32}
    return {
        "_target_": f"{part}model.FlowModel",
        "network": network,
        "condition": {"_target_": f"{part}condition.Conditions", "members": members, "width": 16},
        "objective": {"_target_": f"{part}objective.FlowMatching"},
        **{"sample_rate": 800, "hop_length": 8, "fingerprint": "f" * 32, "kind": "pre", "max_seconds": 0.4},
    }


class Fixed(Passes):
    """A pass on given examples of two, with given noise."""

    def forward(self, own: list[int]) -> torch.Tensor:
        whole = batch()
        whole["span"][1, 8:] = False
        part = {k: v[own] if isinstance(v, torch.Tensor) else [v[n] for n in own] for k, v in whole.items()}
        x0 = torch.randn(whole["latents"].shape, generator=torch.Generator().manual_seed(3))[own]
        flags = torch.ones(len(own), dtype=torch.bool)
        return self.task.one_pass(part, x0, torch.tensor([0.3, 0.6])[own], flags, flags)[0]


def gradients(rank: int | None) -> dict[str, torch.Tensor]:
    """Of both examples, or of one in each process."""
    task = small_task(*ALL)
    model, own = Fixed(task), [0, 1]
    if rank is not None:
        model, own = torch.nn.parallel.DistributedDataParallel(model), [rank]
    model(own).backward()
    return {name: p.grad for name, p in task.named_parameters()}


def test_ranks_have_the_gradient_of_the_whole_batch(pair):
    """Their spans are of different lengths."""
    alone, (first, second) = gradients(None), pair(gradients)
    for name, gradient in alone.items():
        torch.testing.assert_close(first[name], gradient, atol=1e-6, rtol=1e-4)
        assert torch.equal(first[name], second[name])


def test_a_checkpoint_brings_the_model_back(tmp_path):
    task = small_task("phones", "prompt")
    task.flow.mean.copy_(torch.arange(C))
    state = {f"flow.{name}": value for name, value in task.flow.state_dict().items()}
    average = {name: p.detach() * 2 for name, p in task.flow.named_parameters()}
    content = {"config": {"flow": described(task)}, "state_dict": state, "ema": average, "global_step": 3}
    torch.save(content, tmp_path / "a.ckpt")
    raw, flow = load_flow(tmp_path / "a.ckpt", ema=False), load_flow(tmp_path / "a.ckpt")
    known, span = example()
    assert torch.equal(raw.inpaint(known, span, told(), steps=2), task.flow.inpaint(known, span, told(), steps=2))
    assert all(torch.equal(p, average[name]) for name, p in flow.named_parameters())
    assert statistics_of(flow).mean.tolist() == [0, 1, 2]
    assert not flow.training
    for change, sentence in (
        ({"_target_": "codec.flow.datamodule.LatentData"}, "not a class of this package"),
        ({"_target_": "codec.flow.text_conditioning.Slots"}, "refused|cannot be built|unexpected"),
    ):
        torch.save(content | {"config": {"flow": described(task) | change}}, tmp_path / "b.ckpt")
        with pytest.raises(Exception, match=sentence):
            load_flow(tmp_path / "b.ckpt")
    torch.save(content | {"config": {"flow": described(task)["network"]}}, tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError):
        load_flow(tmp_path / "b.ckpt")


def test_shares_that_are_none_are_refused():
    with pytest.raises(ValueError, match="together 1 at most"):
        small_task(drop=0.8, drop_context=0.3)
    assert Conditions({}, 4).refusal({}, 3) == ""
