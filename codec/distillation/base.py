"""What a codec's latents are taught beside how to be decoded: the contract, and which latents are meant."""

from collections.abc import Sequence

from torch import Tensor, nn

from codec.quantizers.base import Quantizer
from codec.utils.errors import InputError

TARGETS = ("semantic", "full", "bottleneck", "split")
Phones = Sequence[Sequence[tuple[str, float]]]
"""Of each clip (symbol, start in seconds); see codec/data/base.py."""


class LatentLoss(nn.Module):
    """A loss on one linear layer of some of the latents.

    Args:
        dim: channels D between encoder and decoder. Where the target has other channels, :meth:`attach` says how many.
        out: channels of what the layer gives.
        target: what is taught: "semantic", the output of the first codebook alone, as in Mimi; "full", the D channels
            before quantization; "bottleneck", the C channels that a latent generative model works on
            (``Quantizer.to_latents``: the mean of a VAE); "split", the first half of these, so that the other half is
            free for what the loss is not about (where ``sigma_vae`` scales the channels of a frame together, that scale
            is all that links the halves).
        weight: of the loss, for the training step.

    Raises:
        ValueError: if there is no such target.
    """

    def __init__(self, dim: int, out: int, target: str, weight: float):
        super().__init__()
        if target not in TARGETS:
            raise ValueError(f"distillation target {target!r} is unknown; valid: {', '.join(TARGETS)}.")
        self.target, self.weight = target, weight
        self.projection = nn.Linear(dim, out)

    @property
    def teacher(self) -> nn.Module:
        """What teaches, to be listed among the parts of a run."""
        raise NotImplementedError

    def attach(self, quantizer: Quantizer) -> None:
        """Make the layer as wide as what this quantizer has for the target.

        Raises:
            InputError: if it has no such thing.
        """
        if self.target == "semantic" and not quantizer.has_semantic:
            raise InputError(NO_FIRST)
        if self.target == "split" and quantizer.latent_dim < 2:
            raise InputError("distill.target=split has one channel to divide: set distill.target=bottleneck")
        wide = {"bottleneck": quantizer.latent_dim, "split": quantizer.latent_dim // 2}.get(self.target, quantizer.dim)
        if wide != self.projection.in_features:
            self.projection = nn.Linear(wide, self.projection.out_features)

    def select(self, latents: Tensor, first: Tensor | None, quantizer: Quantizer | None = None) -> Tensor:
        """The student ``[B, channels of the target, F]``.

        Args:
            latents: ``[B, D, F]`` before quantization.
            first: ``[B, D, F]``, the first codebook's output, where there is one.
            quantizer: leads to the bottleneck.

        Raises:
            ValueError: if the first codebook is wanted of a quantizer that has none of its own.
        """
        match self.target:
            case "full":
                return latents
            case "semantic" if first is None:
                raise ValueError(NO_FIRST)
            case "semantic":
                return first
        channels = quantizer.to_latents(latents)
        return channels if self.target == "bottleneck" else channels[:, : channels.shape[1] // 2]

    def forward(self, student: Tensor, wav: Tensor, phones: Phones | None = None) -> Tensor:
        """-> scalar.

        Args:
            student: of :meth:`select`.
            wav: ``[B, 1, T]`` at the codec's rate, which it was made of.
            phones: of each clip, from its first sample; None where nobody knows of any.
        """
        raise NotImplementedError


NO_FIRST = (
    "distill.target=semantic draws on the first codebook's output, and this quantizer has none of its own: set "
    "distill.target=full for the latents before it, or bottleneck for the channels of a continuous one"
)
