"""WavLM as the teacher (Chen et al., arXiv 2110.13900), through torchaudio.

Each example is normalised by itself (torchaudio's large model does so with a batch as a whole), as in WavLM's training.
The licence of the weights is unclear (torchaudio: MIT, the model's card: CC BY-SA): they are not redistributed.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn
from torchaudio.pipelines import WAVLM_BASE, WAVLM_BASE_PLUS, WAVLM_LARGE, Wav2Vec2Bundle

from codec.distillation.teachers.base import Teacher
from codec.utils.fitting import seeded

BUNDLES = {"base": WAVLM_BASE, "base+": WAVLM_BASE_PLUS, "large": WAVLM_LARGE}
FRAME_RATE = 50.0  # Hz; 1 s gives 49 frames


class WavLM(Teacher):
    """Features of one of WavLM's transformer layers, or the mean of several.

    Args:
        bundle: "base" or "base+" (94 M parameters, 12 layers, C = 768), or "large" (316 M, 24 layers, C = 1024).
        layer: "final", the network's output, in large after a last LayerNorm (Mimi: kyutai-labs/moshi @ e803d4d);
            before it, a number from 1, "last", "mean" (of all layers) or [first, last] (the mean of that range).
            Semantic-VAE reports a word error rate of synthesised speech of 2.10 % for 23, 2.31 % mean, 2.62 % last.
        pretrained: False for random weights from ``seed``, a placebo control.
        normalize: whether waveforms are normalised; None: as in WavLM's training (large: yes). Mimi: no.
    """

    def __init__(
        self,
        bundle: str = "large",
        layer: int | str | Sequence[int] = 23,
        pretrained: bool = True,
        seed: int = 0,
        normalize: bool | None = None,
    ):
        if bundle not in BUNDLES:
            raise ValueError(f"WavLM bundle {bundle!r} is unknown; valid: {', '.join(BUNDLES)}.")
        chosen = BUNDLES[bundle]
        sizes = chosen._params  # documented, but available only here
        first, last = (0, 0) if layer == "final" else layer_range(layer, bundle, sizes["encoder_num_layers"])
        with seeded(seed):
            network = load_pretrained(chosen) if pretrained else torchaudio.models.wavlm_model(**sizes)
        weights = "pretrained" if pretrained else f"seed{seed}"
        usual = chosen._normalize_waveform
        changed = "" if normalize in (None, usual) else f"-normalize{normalize}"
        identity = f"wavlm-{bundle}-layer{first}-{last}-{weights}{changed}"
        super().__init__(network, sizes["encoder_embed_dim"], FRAME_RATE, identity, int(chosen.sample_rate))
        self.first, self.last, self.normalize = first, last, usual if normalize is None else normalize

    def features(self, wav: Tensor) -> Tensor:
        if self.normalize:
            wav = F.layer_norm(wav, wav.shape[-1:])
        if not self.last:
            return self.network(wav)[0]
        layers, _ = self.network.extract_features(wav, num_layers=self.last)
        return torch.stack(layers[self.first - 1 :]).mean(0)


def layer_range(layer: int | str | Sequence[int], bundle: str, count: int) -> tuple[int, int]:
    """``layer`` as an inclusive range (first, last) within 1 to ``count``."""
    match {"last": count, "mean": [1, count]}.get(layer, layer) if isinstance(layer, str) else layer:
        case [int(first), int(last)] if 1 <= first <= last <= count:
            return first, last
        case int(number) if 1 <= number <= count:
            return number, number
    raise ValueError(
        f"WavLM {bundle} has no layer {layer!r}: choose one from 1 to {count}, last, mean, or a range [first, last] of "
        "these numbers, or final."
    )


def load_pretrained(bundle: Wav2Vec2Bundle) -> nn.Module:
    """The bundle's network with pretrained weights, downloaded on first use."""
    try:
        model = bundle.get_model(dl_kwargs={"weights_only": True})
    except Exception as error:  # network, permissions, an incomplete file
        path = Path(torch.hub.get_dir()) / "checkpoints" / bundle._path
        problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the weights of WavLM cannot be loaded ({problem[:200]}): fetch "
            f"https://download.pytorch.org/torchaudio/models/{bundle._path} and put it at {path}, or set "
            f"distill.teacher.pretrained=false or distill=phones for a teacher that needs no download."
        ) from error
    return getattr(model, "model", model)  # without torchaudio's normalisation of the batch
