"""Every option of every group composes, builds, and trains two steps: a new file in conf/ is tested without an edit
here."""

from pathlib import Path

import pytest
import torch
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf

import train
from codec.checkpoints.safe_instantiate import STEP, check_targets
from codec.layers.conv import fold_weight_norm
from tests.helpers.parts import count
from tests.helpers.training import CONF, MIMI, SHORT, TINY, composed, narrow, only_fit, options, short

pytestmark = pytest.mark.usefixtures("_score_here")

# A teacher that needs no download and no long training of its own.
WAVLM = ["distill.teacher.bundle=tiny-base", "distill.teacher.layer=1"]
TEACHERS = {
    "wavlm": ["distill.teacher.bundle=base", "distill.teacher.layer=1", "distill.teacher.pretrained=false"],
    "random_wavlm": WAVLM,
    "phones": ["distill.teacher.steps=2", "distill.teacher.corpus.voices=4", "distill.teacher.corpus.utterances=1"],
    "shuffled": ["teacher@distill.teacher.teacher=random"],
}
GROUPS = ["encoder", "decoder", "quantizer", "distill", "loss", "trainer", "logger", "optim/schedule"]
REPORTED = ["quantizer", "trainer", "logger"]  # the others are over when the report begins


def with_phones(folder: Path, out: Path) -> Path:
    """A manifest of the recordings in a folder."""
    rows = [
        f"{path.name},s{n % 4},a@0.0 b@{0.05 * n:.2f} a@0.6" for n, path in enumerate(sorted(folder.glob("*.flac")))
    ]
    (out / "phones.csv").write_text("\n".join(["file,speaker,phones", *rows]) + "\n")
    return out / "phones.csv"


@pytest.mark.usefixtures("_tiny_wavlm", "_costs_nothing")
@pytest.mark.parametrize(("group", "option"), [(g, o) for g in GROUPS for o in options(g)])
def test_options_train_two_steps(group, option, speech_folder, tmp_path):
    size = [o for o in TINY if not (group == "quantizer" and o.startswith("quantizer"))]
    special = ["logger.wandb.offline=true"] if option == "wandb" else []
    special += TEACHERS.get(option, []) if group == "distill" else []
    special += [f"dataset.manifest={with_phones(speech_folder, tmp_path)}"] if option == "ctc" else []
    special += ["loss.reconstruction_until=1"] if option == "adversarial_only" else []
    cfg = short(speech_folder, tmp_path, *size, *special, "msd_width=4", **{"disc": "msd", group: option})
    if "kmeans_iters" in cfg.quantizer:
        cfg.quantizer.kmeans_iters = 2
    if group not in REPORTED:
        only_fit(cfg)
        return
    del cfg.callbacks.best, cfg.callbacks.last
    cfg.trainer.log_every_n_steps = 2  # no curves, which are drawn in a tenth of a second each
    train.train(cfg)
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert (tmp_path / "report.json").is_file()
    assert len(list((tmp_path / "audio").iterdir())) == 2


@pytest.mark.parametrize("disc", options("disc"))
def test_discriminator_sets_train_two_steps(disc, speech_folder, tmp_path):
    cfg = short(speech_folder, tmp_path, *TINY, *narrow(disc.split("+")), disc=disc)
    assert len(cfg.disc.members) == (0 if disc == "none" else disc.count("+") + 1)
    only_fit(cfg)


EXPERIMENTS = {str(p.relative_to(CONF / "experiment").with_suffix("")): p for p in CONF.glob("experiment/**/*.yaml")}
FLOWS = sorted(name for name, path in EXPERIMENTS.items() if "task=flow" in path.read_text())
STARTS = {  # numbers of long runs, brought within two steps
    "mimi_finetune": ["codec_start=1"],
    "mimi_table3/adversarial_only": ["loss.reconstruction_until=1"],
}


@pytest.mark.usefixtures("_tiny_wavlm")
@pytest.mark.parametrize("experiment", sorted({*EXPERIMENTS} - {*FLOWS}))
def test_experiments_train_two_steps(experiment, speech_folder, tmp_path):
    """Codecs of the size that is published (but for Mimi), on short crops and few of them, without downloads."""
    text = EXPERIMENTS[experiment].read_text()
    assert f"experiment={experiment}" in text, "an experiment is headed by its command"
    plain = composed(f"experiment={experiment}")
    mimi = "mimi" in plain.encoder._target_
    size = [*narrow(plain.disc.members), *([*MIMI, *STARTS.get(experiment, [])] if mimi else [])]
    if plain.distill and plain.distill.teacher._target_ == "codec.distillation.teachers.wavlm.WavLM":
        size += [*WAVLM, "distill.teacher.pretrained=false"]
    size = [word for word in size if not word.startswith("quantizer.") or "codebook_size" in plain.quantizer]
    size += ["quantizer.kmeans_iters=2"] if "kmeans_iters" in plain.quantizer else []
    data = ["dataset=folder", f"dataset.path={speech_folder}", "dataset.holdout=0.25", "batch_size=1"]
    if "codec_start=1" in size:
        size += [f"init_from={trained(tmp_path, experiment, *size)}"]
    cfg = composed(f"experiment={experiment}", "logger=csv", "trainer=cpu", *SHORT, *data, f"run_dir={tmp_path}", *size)
    only_fit(cfg)


@pytest.mark.parametrize("experiment", FLOWS)
def test_experiments_of_flow_models_compose(experiment):
    """They are trained in tests/flow, where there are latents."""
    assert f"experiment={experiment}" in EXPERIMENTS[experiment].read_text()
    cfg = composed("task=flow", f"experiment={experiment}", "codec_ckpt=a.ckpt")
    assert cfg.task._target_ == "codec.flow.run.build"
    assert cfg.max_steps % cfg.callbacks.keep_all.every_n_train_steps == 0


def trained(folder: Path, experiment: str, *size: str) -> Path:
    """A checkpoint of the experiment's codec, to begin with."""
    config = OmegaConf.to_container(composed(f"experiment={experiment}", f"run_dir={folder}", *size), resolve=True)
    codec = instantiate(config["codec"], _convert_="all")
    torch.manual_seed(0)
    codec.quantizer.train()(torch.randn(4, codec.quantizer.dim, 50))
    state = {f"codec.{name}": value for name, value in codec.state_dict().items()}
    torch.save({"state_dict": state, "config": config, "global_step": 0}, folder / "trained.ckpt")
    return folder / "trained.ckpt"


TABLE3 = {  # quantization rate, encoder's and decoder's transformer, teacher, split: arXiv 2410.00037, table 3
    "no_teacher": (0.5, True, True, False, False),
    "no_split": (0.5, True, True, True, False),
    "no_encoder_transformer": (0.5, False, True, True, True),
    "no_decoder_transformer": (0.5, True, False, True, True),
    "no_quantization_rate": (1.0, True, True, True, True),
    "full": (0.5, True, True, True, True),
}


@pytest.mark.parametrize("row", TABLE3)
def test_rows_of_mimis_table(row):
    cfg = composed(f"experiment=mimi_table3/{row}")
    split = cfg.quantizer._target_.endswith("SplitRVQ")
    transformers = cfg.encoder.transformer is not None, cfg.decoder.transformer is not None
    assert (cfg.quantizer.quantization_rate, *transformers, bool(cfg.distill), split) == TABLE3[row]
    assert cfg.quantizer.n_q == 8
    assert cfg.quantizer.codebook_size == 2048
    assert (cfg.segment, cfg.ema_decay, cfg.lr, cfg.optim.codec.weight_decay) == (12.0, 0.99, 8e-4, 0.05)
    assert cfg.optim.codec.decay == "transformers"


def test_mimi_has_the_published_parameters():
    """Counted upstream on the models built without weights; here with weight norm folded, as they are published."""
    cfg = composed("model=mimi_transformer")
    codec = fold_weight_norm(instantiate(cfg.codec, _convert_="all"))
    parts = {
        codec.encoder.seanet: 12_628_256,
        codec.encoder.transformer: 25_190_400,
        codec.encoder.downsample: 1_048_576,
        codec.quantizer: 524_288,
        codec.decoder.upsample: 2_048,
        codec.decoder.transformer: 25_190_400,
        codec.decoder.seanet: 14_724_641,
        codec: 79_308_609,
    }
    assert [count(part) for part in parts] == list(parts.values())
    with torch.no_grad():
        z = codec.encoder.transformer(codec.encoder.seanet(torch.zeros(1, 1, 9600)))
        latents = codec.encoder.downsample(z)
    assert (z.shape, latents.shape) == ((1, 512, 10), (1, 512, 5))
    assert codec.eval().encode(torch.zeros(1, 1, 9600)).shape == (1, 8, 5)
    small = instantiate(composed("model=mimi").codec, _convert_="all")
    assert small.encoder.transformer is None
    assert small.decoder.transformer is None


@pytest.mark.parametrize("model", options("model"))
def test_presets_build_at_full_size(model):
    cfg = composed(f"model={model}")
    codec = instantiate(cfg.codec, _convert_="all")
    assert cfg.name == model
    assert codec.sample_rate / codec.hop_length == cfg.frame_rate
    assert count(codec) > 100_000


@pytest.mark.parametrize("model", options("model"))
def test_any_quantizer_goes_with_any_preset(model):
    """A preset that sets a value inside the group would break `none`, which knows least; all others get its numbers."""
    others = [f"+quantizer@others.{name}={name}" for name in options("quantizer")]
    cfg = composed(f"model={model}", "quantizer=none", *others)
    assert len(cfg.others) == len(others)
    for quantizer in (cfg.quantizer, *cfg.others.values()):
        assert instantiate(quantizer, _convert_="all").dim == cfg.latent_dim


def test_canonical_call_has_the_parts_it_names():
    cfg = composed("model=soundstream", "disc=msd+mfd")
    assert set(cfg.disc.members) == {"msd", "mfd"}
    assert cfg.encoder._target_ == cfg.codec.encoder._target_ == "codec.encoders.seanet.SEANetEncoder"
    assert (cfg.sample_rate, cfg.frame_rate, cfg.latent_dim) == (24_000, 75, 256)


def test_saved_configuration_builds_own_classes_only():
    """What a checkpoint carries must pass the check that guards against strangers' checkpoints."""
    for dataset in options("dataset"):
        path = {"folder": "dataset.path=x", "shards": "dataset.path=x", "mix": "dataset.corpora.folder.path=x"}
        paths = [path[dataset]] if dataset in path else []
        names = ["dataset.name=x"] if dataset == "hf" else []
        cfg = composed(f"dataset={dataset}", *paths, *names)
        check_targets(OmegaConf.to_container(cfg.dataset, resolve=True))
        check_targets(OmegaConf.to_container(cfg.codec, resolve=True))
    for distill in options("distill"):
        cfg = composed(f"distill={distill}", *["distill.vocabulary=a"] * (distill == "ctc"))
        check_targets(OmegaConf.to_container(cfg.distill, resolve=True), STEP)
    for part in ("codec", "disc", "loss", "optim"):
        check_targets(OmegaConf.to_container(cfg[part], resolve=True), STEP)


def test_misspelt_options_list_what_is_valid():
    with pytest.raises(HydraException, match="msd\\+mfd"):
        composed("disc=msd+mdf")
    with pytest.raises(HydraException, match="Could not override 'chanels'"):
        composed("chanels=3")


def test_strides_that_do_not_fit_are_refused():
    cfg = composed("model=soundstream", "strides=[2,4,5,5]")
    with pytest.raises(Exception, match="set frame_rate=120, or change the strides"):
        instantiate(cfg.codec, _convert_="all")
