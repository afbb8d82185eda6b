"""Mimis of transformers with random weights that leave nothing dormant."""

import torch
from torch import Tensor
from transformers import MimiConfig, MimiModel

SMALL = dict(
    sampling_rate=2400,
    num_filters=4,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=16,
    intermediate_size=64,
    sliding_window=10,
    upsampling_ratios=[4, 3, 2, 2],
    codebook_size=32,
    codebook_dim=16,
    vector_quantization_hidden_dimension=16,
    upsample_groups=32,
    num_quantizers=6,
)
HOP = 96  # of the small one: its frame rate is 25 Hz


def noise(batch: int, samples: int, seed: int) -> Tensor:
    """``[B, 1, T]``."""
    return 0.3 * torch.randn(batch, 1, samples, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def random_mimi(wav: Tensor, seed: int = 0, **config) -> MimiModel:
    """Attention and LayerScale strong enough to be seen in the output, and codebooks around the latents of ``wav``."""
    torch.manual_seed(seed)
    model = MimiModel(MimiConfig(**config)).eval()
    for name, p in model.named_parameters():
        if "layer_scale" in name:
            p.uniform_(0.1, 0.5)
        elif "layernorm" in name:
            p.add_(0.3 * torch.randn_like(p))
        elif "self_attn" in name or "mlp" in name:
            p.normal_(0, 1.5 / p.shape[1] ** 0.5)
    latents = model.encoder(wav).latents
    quantizer = model.quantizer
    for part in (quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer):
        residual = latents if part.input_proj is None else part.input_proj(latents)
        residual = residual.transpose(1, 2).flatten(0, 1)  # [N, C]
        for layer in part.layers:
            book = layer.codebook
            picks = residual[torch.randint(len(residual), (len(book.embed_sum),))]
            # Each level leaves nine tenths, so that all 32 stay well above the rounding of the first.
            codes = 0.1 * (picks + residual.std() * torch.randn_like(picks))
            book.cluster_usage.uniform_(0.2, 5)
            book.embed_sum.copy_(codes * book.cluster_usage[:, None])
            residual = residual - book.decode(book.encode(residual))
    return model
