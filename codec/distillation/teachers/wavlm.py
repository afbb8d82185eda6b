"""WavLM as the teacher (Chen et al., arXiv 2110.13900), through torchaudio.

The licence of the weights is unclear (MIT in torchaudio's documentation, CC BY-SA on the model's card): they are
downloaded when a run asks for them, and never redistributed.

We differ from ``bundle.get_model()`` in one point: the large model wants a waveform of mean 0 and variance 1, and
torchaudio normalises the whole batch as one, so that an example's features depend on its neighbours. Here each example
is normalised by itself, as in training WavLM.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn
from torchaudio.pipelines import WAVLM_BASE, WAVLM_BASE_PLUS, WAVLM_LARGE, Wav2Vec2Bundle

from codec.distillation.teachers.base import Teacher, seeded

BUNDLES = {"base": WAVLM_BASE, "base+": WAVLM_BASE_PLUS, "large": WAVLM_LARGE}
FRAME_RATE = 50.0  # Hz; 1 s gives 49 frames


class WavLM(Teacher):
    """Features of one of WavLM's transformer layers, or the mean of several.

    Args:
        bundle: "base" or "base+" (94 M parameters, 12 layers, C = 768), or "large" (316 M, 24 layers, C = 1024).
        layer: a number from 1, "last", "mean" (of all layers) or [first, last] (the mean of these and those between).
            Layers above the highest one wanted are not run. Mimi's paper uses large and does not state the layer; the
            one published comparison on latents distilled with a cosine (Semantic-VAE, speech synthesised from them)
            found a word error rate of 2.10 % for 23, 2.31 % for the mean of all and 2.62 % for the last.
        pretrained: False leaves the weights as ``seed`` draws them: the placebo of exactly this teacher.

    Raises:
        ValueError: if the bundle or the layer does not exist, or the weights cannot be had; says what to do.
    """

    def __init__(
        self,
        bundle: str = "large",
        layer: int | str | Sequence[int] = 23,
        pretrained: bool = True,
        seed: int = 0,
    ):
        if bundle not in BUNDLES:
            raise ValueError(f"WavLM bundle {bundle!r} is unknown; valid: {', '.join(BUNDLES)}.")
        chosen = BUNDLES[bundle]
        first, last = layer_range(layer, bundle, chosen._params["encoder_num_layers"])
        with seeded(seed):
            # The numbers of the architecture are public in the documentation, but in the code only here.
            network = load_pretrained(chosen) if pretrained else torchaudio.models.wavlm_model(**chosen._params)
        weights = "pretrained" if pretrained else f"seed{seed}"
        identity = f"wavlm-{bundle}-layer{first}-{last}-{weights}"
        super().__init__(network, chosen._params["encoder_embed_dim"], FRAME_RATE, identity, int(chosen.sample_rate))
        self.normalize, self.first, self.last = chosen._normalize_waveform, first, last

    def features(self, wav: Tensor) -> Tensor:
        if self.normalize:
            wav = F.layer_norm(wav, wav.shape[-1:])
        layers, _ = self.network.extract_features(wav, num_layers=self.last)
        return torch.stack(layers[self.first - 1 :]).mean(0)


def layer_range(layer: int | str | Sequence[int], bundle: str, count: int) -> tuple[int, int]:
    """``layer`` as the first and the last of a range from 1 to ``count``, both included."""
    match layer:
        case "last":
            first, last = count, count
        case "mean":
            first, last = 1, count
        case int():
            first, last = layer, layer
        case [int(), int()]:
            first, last = layer
        case _:
            first, last = 0, 0
    if not 1 <= first <= last <= count:
        raise ValueError(
            f"WavLM {bundle} has no layer {layer!r}: choose one from 1 to {count}, last, mean, or a range "
            f"[first, last] of these numbers."
        )
    return first, last


def load_pretrained(bundle: Wav2Vec2Bundle) -> nn.Module:
    """The bundle's network with its weights, which are downloaded where they are not there yet."""
    try:
        model = bundle.get_model(dl_kwargs={"weights_only": True})
    except Exception as error:  # no network, no permission, half a file: all end here
        path = Path(torch.hub.get_dir()) / "checkpoints" / bundle._path
        problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the weights of WavLM cannot be loaded ({problem[:200]}): fetch "
            f"https://download.pytorch.org/torchaudio/models/{bundle._path} and put it at {path}, or set "
            f"distill.teacher.pretrained=false or distill=phones for a teacher that needs no download."
        ) from error
    return getattr(model, "model", model)  # without torchaudio's normalisation of the batch
