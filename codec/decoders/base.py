"""Interface of a decoder."""

import torch
from torch import Tensor, nn

from codec.layers.streaming import Sequential, State, step, steps


class Decoder(nn.Module):
    """Latents ``[B, dim, F]`` -> waveform ``[B, 1, F * hop_length]``.

    A causal decoder also has ``step(latents, state) -> (wav, state)`` (``codec/layers/streaming.py``).
    """

    dim: int  # channels D of the latents
    hop_length: int  # samples per latent frame
    lookahead: int | None = None  # samples before a frame that depend on its latent; None: unknown, or the whole clip
    context: int | None = None  # frames on either side on which audio depends; None: unknown, or the whole clip

    def forward(self, latents: Tensor) -> Tensor:
        raise NotImplementedError


class SequentialDecoder(Decoder):
    """A causal decoder that is a sequence of layers, which a subclass appends to ``layers``; the last is in fp32."""

    lookahead = 0

    def __init__(self, dim: int, hop_length: int):
        super().__init__()
        self.dim, self.hop_length = dim, hop_length
        self.layers = Sequential()

    def forward(self, latents: Tensor) -> Tensor:
        *body, last = self.layers
        for layer in body:
            latents = layer(latents)
        # A bf16 waveform has a noise floor of -56 dB, by which discriminators would recognise outputs.
        with torch.autocast(latents.device.type, enabled=False):
            return last(latents.float())

    def step(self, latents: Tensor, state: State = None) -> tuple[Tensor, State]:
        """latents ``[B, dim, n]`` -> wav ``[B, 1, n * hop_length]``."""
        *body, last = self.layers
        states = state if state is not None else (None,) * len(self.layers)
        x, new = steps(body, latents, states[:-1])
        with torch.autocast(x.device.type, enabled=False):
            y, after = step(last, x.float(), states[-1])
        return y, (*new, after)

    def full_precision(self) -> list[nn.Module]:
        """Layers that stay in fp32 when the weights have a lower precision."""
        return [self.layers[-1]]
