"""Residual LSTM over latent frames (EnCodec, arXiv 2210.13438, section 3.1)."""

from torch import Tensor, nn

from codec.layers.streaming import State, StreamingLayer


class ResidualLSTM(StreamingLayer):
    """``[B, C, F] -> [B, C, F]``: x + LSTM(x), forward in time."""

    def __init__(self, channels: int, layers: int = 2):
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers, batch_first=True)

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """The state is (hidden, cell) of the LSTM, each ``[layers, B, C]``."""
        y, state = self.lstm(x.transpose(1, 2), state)  # [B, F, C]
        return x + y.transpose(1, 2), state
