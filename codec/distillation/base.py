"""The contract of losses on a codec's latents, and the choice of the latents."""

from collections.abc import Sequence

from torch import Tensor, nn

from codec.quantizers.base import Quantizer
from codec.utils.errors import InputError

TARGETS = ("semantic", "full", "bottleneck", "split")
PhoneBatch = Sequence[Sequence[tuple[str, float]]]
"""(symbol, start in seconds) of the phones of each clip; see codec/data/base.py."""


class LatentLoss(nn.Module):
    """A loss on a linear projection of some of the latents.

    Args:
        dim: latent channels D. Where the target has others, :meth:`attach` changes the projection.
        out: channels of the projection's output.
        target: "semantic", the output of the first codebook alone, as in Mimi; "full", the D channels before
            quantization; "bottleneck", the C channels of which a latent generative model is made
            (``Quantizer.to_latents``: the mean of a VAE); "split", the first half of these, which leaves the other half
            free (``sigma_vae`` may scale all channels of a frame together, which links the halves).
        weight: of the loss in the training step.

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
        """The module to list as teacher among the parts of a run."""
        raise NotImplementedError

    def attach(self, quantizer: Quantizer) -> None:
        """Give the projection the input channels that this quantizer has for the target.

        Raises:
            InputError: if it has none.
        """
        if self.target == "semantic" and not quantizer.has_semantic:
            raise InputError(
                "distill.target=semantic needs the output of the first codebook alone, which this quantizer does not "
                "have: set distill.target=full for the latents before it, or bottleneck for the channels of a "
                "continuous one"
            )
        if self.target == "split" and quantizer.latent_dim < 2:
            raise InputError("distill.target=split has one channel to divide: set distill.target=bottleneck")
        channels = {"bottleneck": quantizer.latent_dim, "split": quantizer.latent_dim // 2}
        width = channels.get(self.target, quantizer.dim)
        if width != self.projection.in_features:
            self.projection = nn.Linear(width, self.projection.out_features)

    def select(self, latents: Tensor, semantic: Tensor | None, quantizer: Quantizer) -> Tensor:
        """The target's latents ``[B, channels, F]``.

        Args:
            latents: ``[B, D, F]`` before quantization.
            semantic: ``[B, D, F]``, the first codebook's output, where :meth:`attach` accepts that target.
        """
        if self.target in ("full", "semantic"):
            return latents if self.target == "full" else semantic
        channels = quantizer.to_latents(latents)
        return channels if self.target == "bottleneck" else channels[:, : channels.shape[1] // 2]

    def forward(self, latents: Tensor, wav: Tensor, phones: PhoneBatch | None = None) -> Tensor:
        """-> scalar.

        Args:
            latents: of :meth:`select`.
            wav: ``[B, 1, T]`` at the codec's sample rate, the input of the encoder.
            phones: of each clip, from its first sample; None if the corpus was not asked for them.
        """
        raise NotImplementedError
