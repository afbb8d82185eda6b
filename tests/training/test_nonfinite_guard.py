"""Steps that are not finite leave nothing behind, are named, and too many of them end the run with what shows why."""

import copy
import logging
import math
import shutil
from typing import Any

import lightning
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from codec.checkpoints.lightning_plugin import AtomicCheckpointIO
from codec.checkpoints.load import CheckpointError
from codec.checkpoints.save import write
from codec.losses.balancer import Balancer
from codec.quantizers.rvq import RVQ
from codec.training.callbacks.ema import EMA
from codec.training.callbacks.gan_monitor import BalanceWatch
from codec.training.callbacks.nonfinite_guard import DivergenceGuard
from codec.training.replay import DivergenceError, load_batch, replay
from tests.helpers.checkpoints import same
from tests.helpers.parts import small_mimi, tone_batch
from tests.helpers.programs import call
from tests.helpers.training import SMALL_RUN, T, Tones, small_task

BAD = {"nan": float("nan"), "inf": float("inf"), "huge": 1e30}


class Broken(Tones):
    """Item n of some steps is not finite, or far too loud; every batch has 4 items, and the second is the bad one."""

    def __init__(self, steps, value=math.nan, batch=4, first=0):
        super().__init__()
        self.steps, self.value, self.batch, self.first = steps, value, batch, first

    def __getitem__(self, n):
        item = super().__getitem__(self.first + n)
        if n // self.batch in self.steps and n % self.batch == 1:
            item["wav"] = item["wav"].clone()
            item["wav"][0, 100] = self.value
        return item


def fit(task, steps, folder, data, *callbacks, **options):
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    options = quiet | dict(accelerator="cpu", max_steps=steps, log_every_n_steps=1, num_sanity_val_steps=0) | options
    trainer = lightning.Trainer(
        callbacks=list(callbacks), default_root_dir=folder, plugins=[AtomicCheckpointIO()], **options
    )
    trainer.fit(task, DataLoader(data, data.batch))
    return trainer


class Snapshots(lightning.Callback):
    """Everything that learns, its average too where there is one, before each step."""

    def __init__(self, ema=None):
        self.states, self.ema = [], ema

    def on_train_batch_start(self, trainer, task, *_):
        optimizer = [copy.deepcopy(value) for value in trainer.optimizers[0].state_dict()["state"].values()]
        average = {f"ema/{name}": v.clone() for name, v in self.ema.average.items()} if self.ema else {}
        self.states.append((copy.deepcopy(task.state_dict()) | average, optimizer))


@pytest.mark.parametrize("combine", [None, Balancer])
@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
def test_a_bad_clip_changes_nothing_and_is_named(value, combine, tmp_path, caplog):
    task, ema = small_task(combine() if combine else None), EMA(0.5)
    seen = Snapshots(ema)
    task.one_pass(tone_batch(4, T))  # codebooks exist
    data = Broken({1, 3}, value)
    with caplog.at_level(logging.WARNING, logger="codec.training.callbacks.nonfinite_guard"):
        trainer = fit(task, 5, tmp_path, data, ema, DivergenceGuard(tmp_path), seen)
    assert trainer.global_step == 5
    assert float(trainer.logged_metrics["guard/skipped"]) == 2
    messages = [
        record.getMessage() for record in caplog.records if record.name == "codec.training.callbacks.nonfinite_guard"
    ]
    assert [m.split(" as ")[0] for m in messages] == ["step 1 is skipped,", "step 3 is skipped,"]
    assert all(f"because of tone{n}" in m and f"tone{n - 1}" not in m for m, n in zip(messages, (5, 13), strict=True))
    for before, after, skipped in zip(seen.states, seen.states[1:], (False, True, False, True), strict=False):
        learned = {n for n, v in before[0].items() if torch.is_tensor(v) and not torch.equal(v, after[0][n])}
        moving = {n for n in learned if any(name in n for name in ("usage", "sums", "codebooks", "means"))}
        if skipped:
            assert not learned - moving
            assert same(before[1], after[1])
            assert value == BAD["huge"] or not {n for n in moving if "quantizer" in n}
        else:
            assert moving
            assert len(learned) > 20
        assert all(torch.isfinite(v).all() for v in after[0].values() if torch.is_tensor(v) and v.is_floating_point())


def test_a_bad_first_batch_waits_for_the_codebooks(tmp_path):
    for codec in (None, small_mimi()):
        task = small_task(members=())
        if codec is not None:
            task.codec = codec
        before = copy.deepcopy(task.codec.state_dict())
        fit(task, 1, tmp_path, Broken({0}), DivergenceGuard(tmp_path))
        assert same(before, task.codec.state_dict())
        fit(task, 2, tmp_path, Broken({0}), DivergenceGuard(tmp_path))
        books = {n: v for n, v in task.codec.state_dict().items() if "codebooks" in n}
        assert all(bool(v.isfinite().all()) and not torch.equal(v, before[n]) for n, v in books.items())


@pytest.mark.parametrize("name", ["mel", "l1"])
def test_a_loss_that_is_not_finite_is_enough(name, tmp_path, monkeypatch):
    """Its gradient may be finite, as here: an infinite constant."""
    task, seen = small_task(), Snapshots()
    term = type(task.losses.terms[name])
    forward = term.forward
    monkeypatch.setattr(term, "forward", lambda *a: forward(*a) + (math.inf if task.global_step == 1 else 0.0))
    trainer = fit(task, 3, tmp_path, Broken(set()), DivergenceGuard(tmp_path), seen)
    assert float(trainer.logged_metrics["guard/skipped"]) == 1
    weights = [{n: p for n, p in state.items() if n in dict(task.named_parameters())} for state, _ in seen.states]
    assert not same(weights[0], weights[1])
    assert same(weights[1], weights[2])


def test_accumulated_steps_are_skipped_as_a_whole(tmp_path, caplog):
    task, seen = small_task(), Snapshots()
    with caplog.at_level(logging.WARNING, logger="codec.training.callbacks.nonfinite_guard"):
        fit(task, 2, tmp_path, Broken({2}), DivergenceGuard(tmp_path), seen, accumulate_grad_batches=2)
    assert [m for m in caplog.messages if "because of tone9" in m]
    names = dict(task.named_parameters())
    before = {n: v for n, v in seen.states[2][0].items() if n in names}
    assert same(before, {n: v.detach() for n, v in names.items()})


def test_ranks_skip_alike(pair, tmp_path):
    """The first has a bad clip in its second step; the reduction of gradients tells the other."""
    first, second = pair(one_bad_rank, str(tmp_path))
    assert first["skipped"] == second["skipped"] == [False, True, False]
    assert first["spoilt"] == second["spoilt"] == [False, True, False]
    assert first["blamed"] == [False, True, False, False]
    assert second["blamed"] == [False] * 4
    for state, other in zip(first["states"], second["states"], strict=True):
        assert same(state, other)
    begun, once, still, moved = first["states"]
    moving = {name for name in once if not torch.equal(once[name], still[name])}
    assert all("combine.means" in name for name in moving), moving  # the balancer's, without what is not finite
    assert all(len([n for n in b if not torch.equal(a[n], b[n])]) > 20 for a, b in ((begun, once), (still, moved)))


def one_bad_rank(rank: int, folder: str) -> dict[str, Any]:
    """Three steps on other clips than the other rank's: all tensors before and after each, and what was skipped."""
    lightning.seed_everything(0, verbose=False)
    task, seen, blamed = small_task(Balancer()), Snapshots(), Blamed()
    task.one_pass(tone_batch(4, T))  # codebooks exist
    guard = DivergenceGuard(folder)
    data = Broken({1} if rank == 0 else set(), first=1000 * rank)
    fit(task, 3, folder, data, guard, seen, blamed, devices=2, strategy="ddp", use_distributed_sampler=False)
    states = [state for state, _ in seen.states] + [task.state_dict()]
    states = [{n: v.detach().clone() for n, v in state.items() if torch.is_tensor(v)} for state in states]
    return {"states": states, "skipped": blamed.skipped, "blamed": blamed.clips, "spoilt": blamed.spoilt}


class Blamed(lightning.Callback):
    """Which steps were skipped, in which all gradients were NaN, and which clips of the second batch were blamed."""

    def __init__(self):
        self.skipped, self.spoilt, self.clips = [], [], []

    def on_before_optimizer_step(self, trainer, task, *_):
        self.spoilt.append(all(bool(p.grad.isnan().all()) for p in task.parameters()))

    def on_train_batch_end(self, trainer, task, *_):
        self.skipped.append(bool(task.skipped))
        if trainer.global_step == 2:
            self.clips = task.suspects[0].tolist()  # the first level counts, whatever follows from it


def test_infinite_vectors_replace_no_code():
    quantizer = RVQ(4, 50, n_q=1, codebook_size=8, dropout=0.0, check_every=1).train()
    quantizer(torch.randn(2, 4, 20))
    quantizer.usage[:, 3:] = 0.0
    z = torch.randn(2, 4, 20)
    z[0, 2] = math.inf
    quantizer(z)
    assert all(bool(b.isfinite().all()) for b in quantizer.buffers())


def test_too_many_in_a_row_end_the_run_with_what_shows_why(tmp_path):
    task, guard = small_task(), DivergenceGuard(tmp_path, limit=3)
    write({"global_step": 2}, tmp_path / "checkpoints" / "last.ckpt")
    write({"global_step": 5}, tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(DivergenceError) as error:
        fit(task, 20, tmp_path, Broken({1, 4, 5, 6}), guard)
    message = str(error.value)
    assert "3 steps in a row to step 6" in message
    assert "tone25" in message
    assert f"last good checkpoint {tmp_path / 'checkpoints' / 'previous.ckpt'} (step 2)" in message
    assert "\n" not in message
    batch = load_batch(tmp_path / "diverged_step=6_rank=0.safetensors")
    assert batch.files == [f"tone{n}" for n in range(24, 28)]
    assert batch.suspects == ["tone25"]
    assert batch.step == 6
    assert bool(batch.tensors["wav"][1].isnan().any())
    saved = torch.load(tmp_path / "checkpoints" / "diverged.ckpt", weights_only=True)
    assert all(torch.isfinite(v).all() for v in saved["state_dict"].values() if torch.is_tensor(v))
    assert saved["global_step"] == 7


def test_a_full_disk_does_not_hide_why_a_run_ended(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("codec.training.replay.save_file", full)
    with pytest.raises(DivergenceError, match=r"to step 2 .*the batch could not be kept .*No space"):
        fit(small_task(), 20, tmp_path, Broken({1, 2}), DivergenceGuard(tmp_path, limit=2))


def test_the_program_ends_in_one_sentence_and_the_step_can_be_brought_back(speech_folder, tmp_path, monkeypatch):
    """A learning rate that blows up: no clip is to blame. What phones taught comes back, too."""
    monkeypatch.chdir(tmp_path)
    manifest = shutil.copytree(speech_folder, tmp_path / "speech") / "manifest.csv"
    head, *rows = manifest.read_text().split()
    manifest.write_text("\n".join([f"{head},phones", *(f"{row},a@0.1 b@0.9" for row in rows)]))
    run = tmp_path / "run"
    options = [*SMALL_RUN, "dataset=folder", f"dataset.path={manifest.parent}", "dataset.holdout=0.25", "disc=msd"]
    options += ["distill=ctc", "distill.target=full"]
    options += [
        "disc.members.msd.width=4",
        "adversarial_start=1",
        "max_steps=60",
        "val_every=50",
        "lr=1e30",
        "warmup=0",
    ]
    sentence = call("train.py", *options, f"run_dir={run}", "callbacks.nonfinite_guard.limit=2")
    assert sentence.startswith("error: 2 steps in a row")
    assert "begin again" in sentence
    (file,) = run.glob("diverged_step=*_rank=0.safetensors")
    for change in ({"loss": None}, {"adversarial_start": "x"}, {"disc": 3}, {"codec": {}}):
        stranger = tmp_path / "stranger"
        (stranger / "checkpoints").mkdir(parents=True, exist_ok=True)
        content = torch.load(run / "checkpoints" / "diverged.ckpt", weights_only=True)
        torch.save(content | {"config": content["config"] | change}, stranger / "checkpoints" / "diverged.ckpt")
        with pytest.raises(CheckpointError):
            replay(shutil.copy(file, stranger))
    batch = load_batch(file)
    assert len(batch.phones) == len(batch.files)
    assert any(batch.phones)
    task, values = replay(file)
    losses = [values[name] for name in (*task.losses.terms, "disc", "commitment")]
    gradients = [p.grad for p in task.parameters() if p.grad is not None]
    assert not all(bool(v.isfinite().all()) for v in (*losses, *gradients))


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is no batch of a run that diverged"):
        load_batch(tmp_path / "a.safetensors")
    facts = {"step": "1", "rank": "0", "files": '["a"]', "suspects": "[]", "phones": "null"}
    good = {"wav": torch.zeros(1, 1, 8), "random": torch.get_rng_state()}
    odd = [(good, {"files": "[" * 10**5}), (good, {"step": "x"}), (good, {"phones": "[]"}), ({"wav": good["wav"]}, {})]
    odd += [(good | {"wav": torch.zeros(8)}, {}), (good | {"random": torch.zeros(3)}, {})]
    for tensors, change in odd:
        save_file(tensors, tmp_path / "a.safetensors", facts | change)
        with pytest.raises(CheckpointError, match="is no batch of a run that diverged"):
            load_batch(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="1 or more"):
        DivergenceGuard(tmp_path, 0)


STATES = {  # values that last, the discriminators' loss while guessing -> what is said of them
    "healthy": ({"disc": 1.3, "norm/codec": 1.0, "norm/disc": 3.0, "quantizer/usage/1": 0.9}, 2.0, []),
    "no discriminators yet": ({"norm/codec": 1.0, "quantizer/usage/1": 0.9}, None, []),
    "won": ({"disc": 0.01}, 2.0, ["they tell everything apart", "lower optim.disc.lr"]),
    "lost": ({"disc": 2.0}, 2.0, ["they tell nothing apart", "higher optim.disc.lr"]),
    "uneven": ({"norm/codec": 1e7, "norm/disc": 1.0}, 2.0, ["the codec has been 10000000 times", "optim.codec.clip"]),
    "collapsed": (
        {"quantizer/usage/1": 0.9, "quantizer/usage/3": 0.01, "quantizer/usage/4": 0.02},
        None,
        ["codebook 3, 4", "1.0%, 2.0%", "quantizer.dead_below"],
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_what_lasts_is_warned_about_once_in_a_while(name, caplog):
    values, chance, said = STATES[name]
    watch = BalanceWatch(patience=4, every=100)
    for step in range(10, 210, 10):
        watch.judge(step, values, chance)
        assert len(caplog.messages) == (0 if not said or step < 40 else 1 if step < 140 else 2)
    for message in caplog.messages:
        assert all(text in message for text in said)
        assert "\n" not in message


def test_one_bad_moment_is_no_reason(caplog):
    watch = BalanceWatch(patience=4)
    for step in range(50):
        watch.judge(
            step, {"disc": 0.0 if step % 10 == 0 else 1.2, "quantizer/usage/1": 0.01 if step % 10 else 0.9}, 2.0
        )
    assert not [m for m in caplog.messages if "discriminators" in m]


def test_the_watch_sees_what_training_logs(tmp_path, caplog):
    watch = BalanceWatch(patience=2, usage=1.1)
    fit(small_task(), 3, tmp_path, Broken(set()), watch)
    assert watch.seen.keys() >= {"disc", "norm/codec", "norm/disc", "quantizer/usage/1"}
    assert [m for m in caplog.messages if "few codes of codebook 1, 2, 3" in m]
