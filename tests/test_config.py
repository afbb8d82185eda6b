"""Every option of every group composes, builds and trains: a new file in conf/ is tested without an edit here."""

from pathlib import Path

import pytest
import torch
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf

import train
from codec.checkpoints.safe_instantiate import STEP, check_targets
from codec.layers.conv import fold_weight_norm
from codec.training.run import build
from tests.helpers.parts import count
from tests.helpers.training import CONF, MIMI, SHORT, SMALL_CODEC, composed, narrow, options

WAVLM = ["distill.teacher.bundle=tiny-base", "distill.teacher.layer=1"]
TEACHERS = {  # no download and no long training
    "wavlm": ["distill.teacher.bundle=base", "distill.teacher.layer=1", "distill.teacher.pretrained=false"],
    "random_wavlm": WAVLM,
    "phones": ["distill.teacher.steps=2", "distill.teacher.corpus.voices=4", "distill.teacher.corpus.utterances=1"],
    "shuffled": ["teacher@distill.teacher.teacher=random"],
}
GROUPS = ["disc", "encoder", "decoder", "quantizer", "distill", "loss", "trainer", "logger", "optim/schedule"]
ROWS = max(len(options(group)) for group in GROUPS)
SIZES = ["latent_dim=16", "transformer_layers=1", "transformer_heads=2", "transformer_hidden=32"]


@pytest.fixture(scope="module")
def speech_with_phones(speech_folder, tmp_path_factory) -> list[str]:
    """Overrides for recordings whose manifest has phones."""
    files = sorted(speech_folder.glob("*.flac"))
    rows = [f"{path.name},s{n % 4},a@0.0 b@{0.05 * n:.2f} a@0.6" for n, path in enumerate(files)]
    manifest = tmp_path_factory.mktemp("manifest") / "phones.csv"
    manifest.write_text("\n".join(["file,speaker,phones", *rows]) + "\n")
    return ["dataset=folder", f"dataset.path={speech_folder}", f"dataset.manifest={manifest}", "dataset.holdout=0.25"]


@pytest.mark.usefixtures("_tiny_wavlm", "_costs_nothing", "_score_here")
@pytest.mark.parametrize("row", range(ROWS))
def test_every_option_trains_two_steps_and_is_reported(row, speech_with_phones, tmp_path):
    """In row n the n-th option of each group, cyclically: so many trainings as the largest group has options."""
    chosen = {group: options(group)[row % len(options(group))] for group in GROUPS}
    cfg = composed(
        *[f"{group}={option}" for group, option in chosen.items()],
        *[*SHORT, *SMALL_CODEC, *SIZES, *narrow(chosen["disc"].split("+")), *TEACHERS.get(chosen["distill"], [])],
        *[*speech_with_phones, f"run_dir={tmp_path}", "trainer.accelerator=cpu", "trainer.log_every_n_steps=2"],
        *(["distill.target=full"] if chosen["distill"] != "none" else []),
        *(["loss.reconstruction_until=1"] if chosen["loss"] == "adversarial_only" else []),
        *(["logger.wandb.offline=true"] if chosen["logger"] == "wandb" else []),
    )
    members = 0 if chosen["disc"] == "none" else len(chosen["disc"].split("+"))
    assert len(cfg.disc.members) == members
    for name in {"kmeans_iters", "codebook_size"} & set(cfg.quantizer):
        cfg.quantizer[name] = 2 if name == "kmeans_iters" else 16
    for part in ("codec", "disc", "loss", "optim", "distill"):  # checkpoints of strangers build nothing else
        check_targets(OmegaConf.to_container(cfg[part], resolve=True), STEP)
    del cfg.callbacks.best
    loss = train.train(cfg)
    assert 0 < loss < float("inf")
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert (tmp_path / "report.json").is_file()


EXPERIMENTS = {str(p.relative_to(CONF / "experiment").with_suffix("")): p for p in CONF.glob("experiment/**/*.yaml")}
FLOWS = sorted(name for name, path in EXPERIMENTS.items() if "task=flow" in path.read_text())


@pytest.mark.usefixtures("_tiny_wavlm")
@pytest.mark.parametrize("experiment", sorted({*EXPERIMENTS} - {*FLOWS}))
def test_experiments_compute_gradients(experiment, speech_with_phones, tmp_path):
    """Narrow, on short crops, without downloads."""
    assert f"experiment={experiment}" in EXPERIMENTS[experiment].read_text(), "an experiment is headed by its command"
    plain = composed(f"experiment={experiment}")
    size = [*narrow(plain.disc.members), *MIMI, "quantizer.kmeans_iters=2", "batch_size=1"]
    size = [o for o in size if not o.startswith("quantizer.") or o[10:].partition("=")[0] in plain.quantizer]
    size = [o for o in size if "codebook_dim" not in o or "mimi" in plain.encoder._target_]
    if plain.distill and plain.distill.teacher._target_ == "codec.distillation.teachers.wavlm.WavLM":
        size += [*WAVLM, "distill.teacher.pretrained=false"]
    if plain.codec_start:
        size += ["codec_start=1", f"init_from={trained(tmp_path, experiment, *size)}"]
    if experiment.endswith("adversarial_only"):
        size += ["loss.reconstruction_until=1"]
    short = [o for o in SHORT if "max_steps" not in o]
    cfg = composed(f"experiment={experiment}", *short, *speech_with_phones, *size, f"run_dir={tmp_path}")
    task, data = build(cfg, None)
    task.codec_start = task.adversarial_start = 0
    batch = next(iter(data.train_dataloader()))
    total, values = task.train().one_pass(batch["wav"], batch.get("phones"))
    total.backward()
    assert all(bool(value.isfinite().all()) for value in values.values())
    assert all((p.grad is not None) == p.requires_grad for p in task.codec.parameters())


def trained(folder: Path, experiment: str, *size: str) -> Path:
    """A checkpoint of the experiment's codec."""
    config = OmegaConf.to_container(composed(f"experiment={experiment}", f"run_dir={folder}", *size), resolve=True)
    codec = instantiate(config["codec"], _convert_="all")
    codec.quantizer.train()(torch.randn(4, codec.quantizer.dim, 50))
    state = {f"codec.{name}": value for name, value in codec.state_dict().items()}
    torch.save({"state_dict": state, "config": config, "global_step": 0}, folder / "trained.ckpt")
    return folder / "trained.ckpt"


@pytest.mark.parametrize("experiment", FLOWS)
def test_experiments_of_flow_models_compose(experiment):
    """They are trained in tests/flow, where there are latents."""
    assert f"experiment={experiment}" in EXPERIMENTS[experiment].read_text()
    cfg = composed("task=flow", f"experiment={experiment}")
    assert cfg.task._target_ == "codec.flow.run.build"
    assert cfg.max_steps % cfg.callbacks.keep_all.every_n_train_steps == 0


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
    assert (cfg.quantizer.n_q, cfg.quantizer.codebook_size) == (8, 2048)
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


@pytest.mark.parametrize("model", options("model"))
def test_presets_build_at_full_size_and_go_with_any_quantizer(model):
    """A preset that sets a value inside the group would break `none`, which has the fewest options."""
    others = [f"+quantizer@others.{name}={name}" for name in options("quantizer")]
    cfg = composed(f"model={model}", *others)
    codec = instantiate(cfg.codec, _convert_="all")
    assert cfg.name == model
    assert codec.sample_rate / codec.hop_length == cfg.frame_rate
    assert count(codec) > 100_000
    assert model != "mimi" or (codec.encoder.transformer, codec.decoder.transformer) == (None, None)
    for quantizer in (composed(f"model={model}", "quantizer=none").quantizer, *cfg.others.values()):
        assert instantiate(quantizer, _convert_="all").dim == cfg.latent_dim


def test_canonical_call_has_the_parts_it_names():
    cfg = composed("model=soundstream", "disc=msd+mfd")
    assert set(cfg.disc.members) == {"msd", "mfd"}
    assert cfg.encoder._target_ == cfg.codec.encoder._target_ == "codec.encoders.seanet.SEANetEncoder"
    assert (cfg.sample_rate, cfg.frame_rate, cfg.latent_dim) == (24_000, 75, 256)


def test_saved_datasets_are_of_own_classes_only():
    extra = ["folder.path=x", "shards.path=x", "mix.corpora.folder.path=x", "hf.name=x"]
    cfg = composed(*(f"+dataset@all.{one}={one}" for one in options("dataset")), *(f"all.{one}" for one in extra))
    for dataset in OmegaConf.to_container(cfg.all, resolve=True).values():
        check_targets(dataset)


def test_misspelt_options_list_what_is_valid():
    with pytest.raises(HydraException, match="msd\\+mfd"):
        composed("disc=msd+mdf")
    with pytest.raises(HydraException, match="Could not override 'chanels'"):
        composed("chanels=3")


def test_strides_that_do_not_fit_are_refused():
    cfg = composed("model=soundstream", "strides=[2,4,5,5]")
    with pytest.raises(Exception, match="set frame_rate=120, or change the strides"):
        instantiate(cfg.codec, _convert_="all")
