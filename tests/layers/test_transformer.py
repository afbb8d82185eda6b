"""The causal transformer: attention window, rotation, streaming."""

import copy

import pytest
import torch
from torch.utils import _pytree as pytree

from codec.layers.inference import RingTransformer
from codec.layers.transformer import Transformer, rotate
from tests.helpers.parts import count, streamed


def small(context: int = 6, layers: int = 2) -> Transformer:
    torch.manual_seed(0)
    return Transformer(16, layers=layers, heads=2, hidden=32, context=context, scale=0.5).eval()


def test_parameters_of_mimi():
    assert count(Transformer(512)) == 25_190_400
    assert torch.equal(Transformer(16, layers=1).layers[0].scale1.detach(), torch.full((16,), 0.01))
    with pytest.raises(ValueError, match="8 heads do not divide 24 channels into pairs"):
        Transformer(24)


def test_a_frame_attends_to_itself_and_the_window_before_it():
    """With one layer exactly `context` frames matter; no later one does."""
    model, x = small(layers=1), torch.randn(1, 16, 20)
    y = model(x)
    for at in (0, 7, 13):
        changed = x.clone()
        changed[..., at] += torch.randn(16)  # a constant would be removed by the norm
        moved = (model(changed) - y).abs().amax(1)[0] > 1e-6
        assert moved.nonzero()[:, 0].tolist() == list(range(at, min(20, at + 6)))


def test_attention_against_a_loop():
    """One layer, query by query, with rotation matrices of neighbouring channels."""
    model, x = small(layers=1), torch.randn(1, 16, 10)
    layer = model.layers[0]
    h = x[0].t()  # [F, C]
    q, k, v = layer.qkv(layer.norm1(h)).unflatten(-1, (3, 2, 8)).unbind(1)  # each [F, H, 8]

    def rotated(vector: torch.Tensor, position: int) -> torch.Tensor:
        out = []
        for pair in range(4):
            angle = torch.tensor(position * 10_000.0 ** (-2 * pair / 8))
            matrix = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
            out.append(matrix @ vector[2 * pair : 2 * pair + 2])
        return torch.cat(out)

    rows = []
    for i in range(10):
        window = range(max(0, i - 5), i + 1)
        heads = []
        for head in range(2):
            scores = torch.stack([rotated(q[i, head], i) @ rotated(k[j, head], j) for j in window]) / 8**0.5
            heads.append(sum(w * v[j, head] for w, j in zip(scores.softmax(0), window, strict=True)))
        rows.append(torch.cat(heads))
    h = h + layer.scale1 * layer.out(torch.stack(rows))
    h = h + layer.scale2 * layer.down(torch.nn.functional.gelu(layer.up(layer.norm2(h))))
    torch.testing.assert_close(model(x)[0].t(), h, atol=1e-5, rtol=0)


def test_rotation_depends_on_distance_only():
    model = small()
    q, k = torch.randn(2, 1, 1, 1, 2, 8)  # [B, F, 1, H, head_dim]

    def product(a: int, b: int) -> torch.Tensor:
        x, y = (rotate(one, model.rotation(torch.tensor([at]))) for one, at in ((q, a), (k, b)))
        return (x * y).sum(-1)

    torch.testing.assert_close(product(3, 1), product(103, 101), atol=1e-4, rtol=0)
    assert not torch.allclose(product(3, 1), product(3, 2), atol=1e-3)


@pytest.mark.parametrize("chunks", [[1] * 60, [60], [16, 17, 1, 26], [40, 2, 18], [3] * 20])
@torch.no_grad()
def test_streams_equal_offline_beyond_the_window(chunks):
    """In the ring: steps within its spare slots, beyond them, and longer than the ring, in any order."""
    model, x = small(), torch.randn(2, 16, 60)
    y = model(x)
    ring = RingTransformer(copy.deepcopy(model))
    assert ring.size == 21
    for layer in (model, ring):
        torch.testing.assert_close(streamed(layer, x, chunks), y, atol=1e-5, rtol=0)


def test_states_have_one_shape_and_zeros_start_a_stream():
    model, x = small(), torch.randn(1, 16, 9)
    y, first = model.step(x[..., :2])
    _, second = model.step(x[..., 2:], first)
    shapes = [[leaf.shape for leaf in pytree.tree_leaves(state)] for state in (first, second)]
    assert shapes[0] == shapes[1]
    torch.testing.assert_close(model.step(x[..., :2], pytree.tree_map(torch.zeros_like, first))[0], y)
