"""Interface of an encoder."""

from torch import Tensor, nn

from codec.layers.streaming import Sequential, State


class Encoder(nn.Module):
    """Waveform ``[B, 1, T]``, T a multiple of ``hop_length`` -> latents ``[B, dim, T / hop_length]``.

    A causal encoder also has ``step(wav, state) -> (latents, state)`` (``codec/layers/streaming.py``).
    """

    dim: int  # channels D of the latents
    hop_length: int  # samples per latent frame
    lookahead: int | None = None  # samples after a frame on which its latent depends; None: unknown, or the whole clip
    context: int | None = None  # frames on either side on which a latent depends; None: unknown, or the whole clip

    def forward(self, wav: Tensor) -> Tensor:
        raise NotImplementedError


class SequentialEncoder(Encoder):
    """A causal encoder that is a sequence of layers, which a subclass appends to ``layers``."""

    lookahead = 0

    def __init__(self, dim: int, hop_length: int):
        super().__init__()
        self.dim, self.hop_length = dim, hop_length
        self.layers = Sequential()

    def forward(self, wav: Tensor) -> Tensor:
        return self.layers(wav)

    def step(self, wav: Tensor, state: State = None) -> tuple[Tensor, State]:
        """wav ``[B, 1, n * hop_length]`` -> latents ``[B, dim, n]``."""
        return self.layers.step(wav, state)
