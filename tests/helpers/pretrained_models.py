"""Narrow models of transformers with random weights, at the rates and with the codebooks of the published ones."""

from pathlib import Path

import torch
from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel, PreTrainedModel

from tests.helpers.mimi_models import SMALL, noise, random_mimi


def mimi() -> PreTrainedModel:
    """24 kHz, 12.5 Hz, 32 codebooks of 11 bits."""
    shape = {"sampling_rate": 24_000, "upsampling_ratios": [8, 6, 5, 4], "codebook_size": 2048, "num_quantizers": 32}
    return random_mimi(noise(1, 24_000, 0), **(SMALL | shape))


@torch.no_grad()
def encodec() -> PreTrainedModel:
    """24 kHz, 75 Hz, 32 codebooks of 10 bits."""
    torch.manual_seed(0)
    model = EncodecModel(EncodecConfig(num_filters=4, hidden_size=16)).eval()
    for layer in model.quantizer.layers:
        layer.codebook.embed.normal_(0, 0.1)
    return model


def dac(rate: int = 24_000, codebooks: int = 32) -> PreTrainedModel:
    """320 samples a frame, codebooks of 10 bits."""
    torch.manual_seed(0)
    ratios = [2, 4, 5, 8]
    shape = {"encoder_hidden_size": 4, "decoder_hidden_size": 32, "downsampling_ratios": ratios}
    model = DacModel(DacConfig(**shape, n_codebooks=codebooks, sampling_rate=rate)).eval()
    model.decoder.conv2.weight.data *= 100  # loud enough to be compared
    return model


PUBLISHED = {
    "kyutai/mimi": mimi,
    "facebook/encodec_24khz": encodec,
    "descript/dac_16khz": lambda: dac(16_000, 12),
    "descript/dac_24khz": dac,
}


def save(folder: Path) -> dict[str, Path]:
    """Write one for each published name into ``folder`` -> name -> its folder."""
    folders = {name: folder / name for name in PUBLISHED}
    for name, path in folders.items():
        PUBLISHED[name]().save_pretrained(path)
    return folders
