"""Steps that are not finite change nothing and are named; too many in a row end the run with what reproduces them."""

import copy
import logging
import math
import shutil
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from codec.checkpoints.lightning_plugin import AtomicCheckpointIO
from codec.checkpoints.load import CheckpointError
from codec.checkpoints.save import write
from codec.losses.balancer import Balancer
from codec.quantizers.rvq import RVQ
from codec.training.callbacks.ema import EMA
from codec.training.callbacks.nonfinite_guard import NonfiniteGuard, Step, _clips
from codec.training.replay import load_batch, replay
from codec.utils.errors import UserError
from tests.helpers.checkpoints import same
from tests.helpers.parts import small_mimi, tone_batch
from tests.helpers.programs import call
from tests.helpers.training import SMALL_RUN, T, Tones, fit, small_task

HUGE = 1e30


class Broken(Tones):
    """Tones of which the second of each batch of 4 has one bad sample, in some steps."""

    def __init__(self, *steps: int, value: float = math.nan, first: int = 0):
        super().__init__()
        self.steps, self.value, self.first = steps, value, first

    def __getitem__(self, n):
        item = super().__getitem__(self.first + n)
        if n // 4 in self.steps and n % 4 == 1:
            item["wav"][0, 100] = self.value
        return item


def guarded(task, steps, folder, data, *callbacks, **options):
    return fit(task, steps, folder, callbacks, train=DataLoader(data, 4), plugins=[AtomicCheckpointIO()], **options)


class Snapshots(lightning.Callback):
    """Everything that learns, and its average, before each step; whether it was skipped."""

    def __init__(self, ema=None):
        self.states, self.skipped, self.ema = [], [], ema

    def on_train_batch_end(self, trainer, task, *_):
        self.skipped.append(bool(task.skipped))

    def on_train_batch_start(self, trainer, task, *_):
        optimizer = [copy.deepcopy(value) for value in trainer.optimizers[0].state_dict()["state"].values()]
        average = {f"ema/{name}": v.clone() for name, v in self.ema.average.items()} if self.ema else {}
        self.states.append((copy.deepcopy(task.state_dict()) | average, optimizer))


@pytest.mark.parametrize(("value", "combine"), [(math.nan, None), (math.inf, Balancer()), (HUGE, Balancer())])
def test_a_bad_clip_changes_nothing_and_is_named(value, combine, tmp_path, caplog):
    task, ema = small_task(combine), EMA(0.5)
    seen = Snapshots(ema)
    task.one_pass(tone_batch(4, T))  # initialises the codebooks
    with caplog.at_level(logging.WARNING, logger="codec.training.callbacks.nonfinite_guard"):
        trainer = guarded(task, 5, tmp_path, Broken(1, 3, value=value), ema, NonfiniteGuard(tmp_path), seen)
    assert (trainer.global_step, float(trainer.logged_metrics["guard/skipped"])) == (5, 2)
    messages = [record.getMessage() for record in caplog.records if record.name.endswith("nonfinite_guard")]
    for message, step, clip in zip(messages, (1, 3), (5, 13), strict=True):
        assert f"step {step} " in message
        assert message.endswith(f": tone{clip}")
    for before, after, skipped in zip(seen.states, seen.states[1:], (False, True, False, True), strict=False):
        changed = {n for n, v in before[0].items() if torch.is_tensor(v) and not torch.equal(v, after[0][n])}
        statistics = {n for n in changed if any(name in n for name in ("usage", "sums", "codebooks", "means"))}
        if skipped:
            assert not changed - statistics
            assert same(before[1], after[1])
            assert value == HUGE or not {n for n in statistics if "quantizer" in n}
        else:
            assert len(changed) > 20
        assert all(torch.isfinite(v).all() for v in after[0].values() if torch.is_tensor(v) and v.is_floating_point())


@pytest.mark.parametrize(
    ("masks", "named"),
    [  # of two accumulated batches: rows are recordings, reconstructions, gradients; columns clips
        ([[[0, 1], [1, 1], [1, 1]], [[0, 0], [0, 0], [1, 0]]], "not finite: b"),  # its gradient spoils the other batch
        ([[[0, 0], [0, 0], [0, 0]], [[0, 0], [0, 0], [1, 0]]], "not finite: c"),  # of a finite reconstruction
        ([[[0, 0], [1, 1], [1, 1]], [[0, 0], [1, 1], [1, 1]]], "clips: a, b, c, d"),  # the weights, not a clip
    ],
)
def test_the_first_cause_is_named(masks, named):
    files = (["a", "b"], ["c", "d"])
    batches = [(SimpleNamespace(files=f), torch.tensor(m, dtype=torch.bool)) for f, m in zip(files, masks, strict=True)]
    assert _clips(Step(1, batches, torch.tensor(True))) == named


@pytest.mark.parametrize("codec", [None, small_mimi()], ids=["rvq", "split"])
def test_codebooks_are_initialised_by_the_first_good_batch(codec, tmp_path):
    task = small_task(members=())
    task.codec = codec or task.codec
    before = copy.deepcopy(task.codec.state_dict())
    seen = Snapshots()
    guarded(task, 2, tmp_path, Broken(0), NonfiniteGuard(tmp_path), seen)
    after_first = {n.removeprefix("codec."): v for n, v in seen.states[1][0].items() if n.startswith("codec.")}
    assert same(before, after_first)
    books = {n: v for n, v in task.codec.state_dict().items() if "codebooks" in n}
    assert all(bool(v.isfinite().all()) and not torch.equal(v, before[n]) for n, v in books.items())


def learned(task, state) -> dict[str, torch.Tensor]:
    return {name: state[name].detach() for name, _ in task.named_parameters()}


def test_an_infinite_loss_with_a_finite_gradient_skips_the_step(tmp_path, monkeypatch):
    task, seen = small_task(), Snapshots()
    term = type(task.losses.terms["l1"])
    forward = term.forward
    monkeypatch.setattr(term, "forward", lambda *a: forward(*a) + (math.inf if task.global_step == 1 else 0.0))
    trainer = guarded(task, 3, tmp_path, Broken(), NonfiniteGuard(tmp_path), seen)
    assert float(trainer.logged_metrics["guard/skipped"]) == 1
    first, second, third = (learned(task, state) for state, _ in seen.states)
    assert not same(first, second)
    assert same(second, third)


def test_accumulated_steps_are_skipped_as_a_whole(tmp_path, caplog):
    task, seen = small_task(), Snapshots()
    guarded(task, 2, tmp_path, Broken(2), NonfiniteGuard(tmp_path), seen, accumulate_grad_batches=2)
    assert [m for m in caplog.messages if m.startswith("step 1 ") and m.endswith(": tone9")]
    assert same(learned(task, seen.states[2][0]), learned(task, task.state_dict()))


def test_all_ranks_skip_a_step_that_is_bad_on_one(pair, tmp_path):
    first, second = pair(one_bad_rank, str(tmp_path))
    assert first["skipped"] == second["skipped"] == [False, True, False]
    for state, other in zip(first["states"], second["states"], strict=True):
        assert same(state, other)
    start, once, skipped, last = first["states"]
    changed = {name for name in once if not torch.equal(once[name], skipped[name])}
    assert all("combine.means" in name for name in changed), changed  # the balancer's, without what is not finite
    assert all(len([n for n in b if not torch.equal(a[n], b[n])]) > 20 for a, b in ((start, once), (skipped, last)))


def one_bad_rank(rank: int, folder: str) -> dict[str, Any]:
    """Three steps on other clips than the other rank's, one of which is bad on rank 0."""
    lightning.seed_everything(0, verbose=False)
    task, seen = small_task(Balancer()), Snapshots()
    task.one_pass(tone_batch(4, T))  # initialises the codebooks
    data = Broken(*([1] if rank == 0 else []), first=1000 * rank)
    options = {"devices": 2, "strategy": "ddp", "use_distributed_sampler": False}
    guarded(task, 3, folder, data, NonfiniteGuard(folder), seen, **options)
    states = [state for state, _ in seen.states] + [task.state_dict()]
    states = [{n: v.detach().clone() for n, v in state.items() if torch.is_tensor(v)} for state in states]
    return {"states": states, "skipped": seen.skipped}


def test_infinite_latents_replace_no_code():
    quantizer = RVQ(4, 50, n_q=1, codebook_size=8, dropout=0.0, check_every=1).train()
    z = torch.randn(2, 4, 20)
    quantizer(z)
    quantizer.usage[:, 3:] = 0.0
    z[0, 2] = math.inf
    quantizer(z)
    assert all(bool(b.isfinite().all()) for b in quantizer.buffers())


def test_too_many_in_a_row_end_the_run(tmp_path, monkeypatch):
    """The last good checkpoint is named; the batch and the weights before its step are saved, if there is room."""
    for step in (2, 5):
        write({"global_step": step}, tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match=r"^3 steps in a row to step 6 .*tone25.*$") as error:
        guarded(small_task(), 20, tmp_path, Broken(1, 4, 5, 6), NonfiniteGuard(tmp_path, limit=3))
    assert f"{tmp_path / 'checkpoints' / 'previous.ckpt'} (step 2)" in str(error.value)
    batch = load_batch(tmp_path / "diverged_step=6_rank=0.safetensors")
    assert (batch.files, batch.step) == ([f"tone{n}" for n in range(24, 28)], 6)
    assert bool(batch.tensors["wav"][1].isnan().any())
    saved = torch.load(tmp_path / "checkpoints" / "diverged.ckpt", weights_only=True)
    assert all(torch.isfinite(v).all() for v in saved["state_dict"].values() if torch.is_tensor(v))
    assert saved["global_step"] == 7

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("codec.training.replay.save_file", full)
    with pytest.raises(UserError, match=r"to step 2 .*No space"):
        guarded(small_task(), 20, tmp_path, Broken(1, 2), NonfiniteGuard(tmp_path, limit=2))
    with pytest.raises(ValueError, match="1 or more"):
        NonfiniteGuard(tmp_path, 0)


def test_the_program_ends_in_one_sentence_and_the_step_is_repeated(speech_folder, tmp_path, monkeypatch):
    """A learning rate that blows up. The phones of the batch are saved, too."""
    monkeypatch.chdir(tmp_path)
    manifest = shutil.copytree(speech_folder, tmp_path / "speech") / "manifest.csv"
    head, *rows = manifest.read_text().split()
    manifest.write_text("\n".join([f"{head},phones", *(f"{row},a@0.1 b@0.9" for row in rows)]))
    run = tmp_path / "run"
    options = [*SMALL_RUN, "dataset=folder", f"dataset.path={manifest.parent}", "dataset.holdout=0.25", "disc=msd"]
    options += ["distill=ctc", "distill.target=full", "disc.members.msd.width=4", "adversarial_start=1"]
    options += ["max_steps=30", "val_every=30", "lr=1e30", "warmup=0", "callbacks.nonfinite_guard.limit=2"]
    sentence = call("train.py", *options, f"run_dir={run}")
    assert sentence.startswith("error: 2 steps in a row")
    (file,) = run.glob("diverged_step=*_rank=0.safetensors")
    batch = load_batch(file)
    assert len(batch.phones) == len(batch.files)
    assert any(batch.phones)
    task, values = replay(file)
    losses = [values[name] for name in (*task.losses.terms, "disc", "commitment")]
    gradients = [p.grad for p in task.parameters() if p.grad is not None]
    assert not all(bool(v.isfinite().all()) for v in (*losses, *gradients))

    stranger = tmp_path / "stranger" / "checkpoints" / "diverged.ckpt"
    stranger.parent.mkdir(parents=True)
    content = torch.load(run / "checkpoints" / "diverged.ckpt", weights_only=True)
    for change in ({"loss": None}, {"adversarial_start": "x"}, {"disc": 3}, {"codec": {}}):
        torch.save(content | {"config": content["config"] | change}, stranger)
        with pytest.raises(CheckpointError):
            replay(shutil.copy(file, tmp_path / "stranger"))
