"""Framing of the STFT encoder and the inverse-STFT decoder, which mirror each other."""

MOST = 2**16  # samples of a window: a stranger's configuration cannot ask for more


def stft_sizes(hop_length: int, split: int, overlap: int) -> tuple[int, int]:
    """-> (hop, n_fft) in samples: ``split`` STFT frames per latent frame, ``overlap`` windows over each sample."""
    if overlap * hop_length > split * MOST:
        raise ValueError(f"a window of {overlap * hop_length // split} samples is longer than {MOST}")
    if hop_length % split or overlap % 2:
        raise ValueError(f"split={split} must divide the hop of {hop_length} samples, and overlap={overlap} be even")
    return hop_length // split, overlap * (hop_length // split)
