"""Residual LSTM over the frames of a latent sequence (EnCodec, arXiv 2210.13438, section 3.1)."""

from torch import Tensor, nn

from codec.layers.streaming import State


class ResidualLSTM(nn.Module):
    """``[B, C, F] -> [B, C, F]``: x + LSTM(x), one direction."""

    def __init__(self, channels: int, layers: int = 2):
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x)[0]

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """The state is the LSTM's (hidden, cell), each ``[layers, B, C]``."""
        y, state = self.lstm(x.transpose(1, 2), state)  # [B, F, C]
        return x + y.transpose(1, 2), state
