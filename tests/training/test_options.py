"""Options of Lightning that users try: they work, or end in one sentence; advice in a message works when followed."""

import re

import lightning
import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

import train
from codec.cli.app import user_error_of
from codec.training.run import build
from codec.training.setup import trainer_options
from tests.helpers.training import composed, short

ADVICE = re.compile(r"(?:set|choose|use|write|log without it,) ([\w.]+=[\w.\-+]+)")


@pytest.mark.parametrize(
    "overrides",
    [
        ["logger.csv=null", "+trainer.limit_val_batches=0", "+trainer.profiler=simple", "callbacks.best=null"],
        ["+trainer.deterministic=warn", "+trainer.detect_anomaly=true", "callbacks.rng_state=null"],
    ],
    ids=" ".join,
)
def test_they_work(speech_folder, tmp_path, overrides):
    trainer, _ = train.fit(short(speech_folder, tmp_path, *overrides))
    assert trainer.global_step == 2


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("trainer.precision=bf16-true", "bf16-mixed"),
        ("trainer.precision=64-true", "32-true"),
        ("+trainer.overfit_batches=1", "overfit"),
        ("val_every=0", "val_every=0"),
        ("trainer.log_every_n_steps=0", "log_every_n_steps=0"),
        ("trainer.accelerator=abacus", "abacus"),
        ("trainer.devices=0", "devices=0"),
        ("+trainer.enable_checkpointing=false", "enable_checkpointing"),
        ("+trainer.nonsense=1", "nonsense"),
        ("+trainer.strategy=fsdp", "fsdp"),
    ],
)
def test_they_are_refused_in_one_sentence(tmp_path, override, word):
    cfg = composed("logger=csv", "trainer=cpu", f"run_dir={tmp_path}", override)
    with pytest.raises(Exception) as caught:
        instantiate(cfg.trainer, _convert_="all", **trainer_options(cfg))
    sentence = str(user_error_of(caught.value))
    assert word in sentence
    assert "\n" not in sentence
    assert len(sentence) <= 500


@pytest.mark.parametrize(
    "overrides",
    [
        ["sample_rate=44100", "segment=0.1"],
        ["sample_rate=11025"],
        ["strides=[3,5,7]", "hop_length=105", "encoder=seanet", "decoder=seanet"],
        ["distill=random", "distill.target=split", "quantizer=vae", "quantizer.channels=1"],
        ["data.workers=4", "batch_size=4096"],
    ],
    ids=" ".join,
)
def test_advice_can_be_followed(speech_folder, tmp_path, overrides, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: OmegaConf.create({"free": 64 * 10**6}))

    def built(*more: str) -> None:
        _, data = build(short(speech_folder, tmp_path, *overrides, *more), None)
        data.train_dataloader()

    with pytest.raises(Exception) as caught:
        built()
    sentence = str(user_error_of(caught.value))
    advice = ADVICE.search(sentence)
    assert advice, sentence
    built(advice[1].rstrip("."))


def test_a_loader_that_sends_nothing_and_a_missing_part_are_sentences():
    timed_out = RuntimeError("DataLoader timed out after 3600 seconds")
    assert "data.workers=0" in str(user_error_of(timed_out))
    assert user_error_of(RuntimeError("a bug")) is None
    assert user_error_of(InstantiationException("a bug")) is None
    with pytest.raises(lightning.fabric.utilities.exceptions.MisconfigurationException) as caught:
        lightning.Trainer(devices=0, accelerator="cpu", logger=False)
    assert "devices=0" in str(user_error_of(caught.value))
