"""The base class of losses on a codec's latents, such as semantic distillation."""

from collections.abc import Sequence

from torch import Tensor, nn

from codec.quantizers.base import Quantized, Quantizer
from codec.utils.errors import InputError

TARGETS = ("semantic", "full", "bottleneck", "split", "codebook")
PhoneBatch = Sequence[Sequence[tuple[str, float]]]
"""(symbol, start in seconds from the clip's first sample) of the phones of each clip."""


class LatentLoss(nn.Module):
    """A loss on a linear projection of some of the latents.

    Args:
        dim: latent channels D; :meth:`attach` changes the projection for a target with other channels.
        out: output channels of the projection.
        target: "codebook", the output of the first codebook alone, in the space of its codes, as in Mimi; "semantic",
            the same after its projection to D channels; "full", the D channels before quantization; "bottleneck", the C
            channels of ``Quantizer.to_latents`` (the mean of a VAE), which a latent generative model learns; "split",
            the first half of these (``sigma_vae`` may scale all channels of a frame together, which links the halves).
        weight: of the loss in the training objective.
        bias: of the projection.
    """

    def __init__(self, dim: int, out: int, target: str, weight: float, bias: bool = True):
        super().__init__()
        if target not in TARGETS:
            raise ValueError(f"distillation target {target!r} is unknown; valid: {', '.join(TARGETS)}.")
        self.target, self.weight = target, weight
        self.projection = nn.Linear(dim, out, bias)

    @property
    def teacher(self) -> nn.Module:
        """The module that a run lists as its teacher."""
        raise NotImplementedError

    def attach(self, quantizer: Quantizer) -> None:
        """Fit the projection to the quantizer's channels of the target; raises InputError if it has none."""
        if self.target in ("codebook", "semantic") and not quantizer.has_semantic:
            raise InputError(
                f"distill.target={self.target} needs the output of the first codebook, which this quantizer does not "
                "have: set distill.target=full for the latents before it, or bottleneck for a continuous one's channels"
            )
        if self.target == "split" and quantizer.latent_dim < 2:
            raise InputError("distill.target=split has one channel to divide: set distill.target=bottleneck")
        channels = {"bottleneck": quantizer.latent_dim, "split": quantizer.latent_dim // 2}
        width = quantizer.codebook_dim if self.target == "codebook" else channels.get(self.target, quantizer.dim)
        if width != self.projection.in_features:
            self.projection = nn.Linear(width, self.projection.out_features, self.projection.bias is not None)

    def select(self, latents: Tensor, quantized: Quantized, quantizer: Quantizer) -> Tensor:
        """The target's latents ``[B, channels, F]``, from those before and after quantization."""
        if self.target in ("full", "semantic", "codebook"):
            return {"full": latents, "semantic": quantized.semantic, "codebook": quantized.first}[self.target]
        channels = quantizer.to_latents(latents)
        return channels if self.target == "bottleneck" else channels[:, : channels.shape[1] // 2]

    def forward(self, latents: Tensor, wav: Tensor, phones: PhoneBatch | None = None) -> Tensor:
        """The loss, a scalar, of latents ``[B, channels, F]`` of :meth:`select`.

        ``wav`` ``[B, 1, T]`` is the encoder's input; ``phones`` is None if the corpus gives none.
        """
        raise NotImplementedError
