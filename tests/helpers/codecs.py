"""Small codecs in checkpoints, and the latents of a small corpus."""

import copy
from pathlib import Path

import soundfile
import torch

from codec.checkpoints.safe_instantiate import build
from codec.data.folder import FolderCorpus
from codec.data.work_units import cut
from codec.latents.export import LatentExtractor
from codec.latents.extract import extract
from codec.model import Codec
from tests.helpers.checkpoints import CONFIG
from tests.helpers.parts import tone_batch
from tests.helpers.signals import speechlike

RATE, HOP = 800, 8
QUANTIZERS = {
    "rvq": {"n_q": 3, "codebook_size": 16},
    "rvq_mimi": {"n_q": 3, "codebook_size": 16, "codebook_dim": 4, "quantization_rate": 0.5},
    "split_rvq": {"n_q": 3, "codebook_size": 16, "codebook_dim": 4},
    "fsq": {"levels": [4, 3, 3], "n_q": 2},
    "none": {},
    "vae": {"channels": 3},
    "sigma_vae": {"channels": 3},
}
CLASSES = {"rvq_mimi": "rvq.RVQ", "split_rvq": "split_rvq.SplitRVQ", "none": "none.NoQuantizer", "fsq": "fsq.FSQ"}
CLASSES |= {"rvq": "rvq.RVQ", "vae": "vae.VAE", "sigma_vae": "sigma_vae.SigmaVAE"}
KINDS = [(name, "pre") for name in QUANTIZERS] + [(name, "post") for name in ("rvq", "rvq_mimi", "split_rvq", "fsq")]


def made(name: str, seed: int = 0) -> tuple[Codec, dict]:
    """A codec whose quantizer has seen data, in eval mode, and its configuration."""
    config = copy.deepcopy(CONFIG)
    target = f"codec.quantizers.{CLASSES[name]}"
    config["codec"]["quantizer"] = {"_target_": target, "dim": 8, "frame_rate": 100, **QUANTIZERS[name]}
    torch.manual_seed(seed)
    codec = build(config["codec"])
    codec.train()(tone_batch(8, 400))
    return codec.eval(), config


def saved(path: Path, name: str, seed: int = 0) -> Codec:
    """The codec, written as a checkpoint."""
    codec, config = made(name, seed)
    state = {f"codec.{part}": value for part, value in codec.state_dict().items()}
    torch.save({"config": config, "state_dict": state, "global_step": 7}, path)
    return codec


def recordings(folder: Path) -> Path:
    """Twelve recordings of 1 s and more by four speakers, each with text and with a phone every 0.2 s."""
    folder.mkdir()
    lines = ["file,speaker,text,phones"]
    for i in range(12):
        soundfile.write(folder / f"{i:02d}.flac", speechlike(1.0 + 0.013 * i, RATE, i), RATE)
        phones = " ".join(f"p{k}@{0.2 * k:.4f}" for k in range(5))
        lines.append(f"{i:02d}.flac,s{i % 4},said {i},{phones}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def latents_of(codec: Codec, source: Path, folder: Path, kind: str = "pre", seconds: float = 2.0, part=(0, 1)) -> dict:
    """The index of the latents of a folder; the codec stays as it is."""
    units = cut(FolderCorpus(source, RATE), seconds)
    return extract(LatentExtractor(codec, kind), units, folder, part, report=lambda _: None)
