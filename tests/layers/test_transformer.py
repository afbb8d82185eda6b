"""The causal transformer: its window, its rotation, its stream."""

import pytest
import torch

from codec.layers.transformer import Transformer, rotate
from tests.helpers.parts import count


def small(context: int = 6, layers: int = 2) -> Transformer:
    torch.manual_seed(0)
    return Transformer(16, layers=layers, heads=2, hidden=32, context=context, scale=0.5).eval()


def test_parameters_of_mimi():
    assert count(Transformer(512)) == 25_190_400
    assert torch.equal(Transformer(512, layers=1).layers[0].scale1.detach(), torch.full((512,), 0.01))


def test_a_frame_sees_itself_and_the_window_before_it():
    """With one layer exactly `context` frames matter; nothing later ever does."""
    model, x = small(layers=1), torch.randn(1, 16, 20)
    y = model(x)
    for at in (0, 7, 13):
        changed = x.clone()
        changed[..., at] += torch.randn(16)  # a constant would not pass the norm
        moved = (model(changed) - y).abs().amax(1)[0] > 1e-6
        assert moved.nonzero()[:, 0].tolist() == list(range(at, min(20, at + 6)))


def test_attention_against_a_loop():
    """One layer written out query by query, with rotation matrices of neighbouring channels."""
    model, x = small(layers=1), torch.randn(1, 16, 10)
    layer = model.layers[0]
    h = x[0].t()  # [F, C]
    q, k, v = layer.qkv(layer.norm1(h)).unflatten(-1, (3, 2, 8)).unbind(1)  # each [F, H, 8]

    def turned(vector: torch.Tensor, position: int) -> torch.Tensor:
        out = []
        for pair in range(4):
            angle = torch.tensor(position * 10_000.0 ** (-2 * pair / 8))
            matrix = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
            out.append(matrix @ vector[2 * pair : 2 * pair + 2])
        return torch.cat(out)

    rows = []
    for i in range(10):
        seen = range(max(0, i - 5), i + 1)
        heads = []
        for head in range(2):
            scores = torch.stack([turned(q[i, head], i) @ turned(k[j, head], j) for j in seen]) / 8**0.5
            heads.append(sum(w * v[j, head] for w, j in zip(scores.softmax(0), seen, strict=True)))
        rows.append(torch.cat(heads))
    h = h + layer.scale1 * layer.out(torch.stack(rows))
    h = h + layer.scale2 * layer.down(torch.nn.functional.gelu(layer.up(layer.norm2(h))))
    torch.testing.assert_close(model(x)[0].t(), h, atol=1e-5, rtol=0)


def test_rotation_depends_on_distance_only():
    model = small()
    q, k = torch.randn(2, 1, 1, 1, 2, 8)  # [B, F, 1, H, head_dim]
    product = lambda a, b: (  # noqa: E731
        rotate(q, model.rotation(torch.tensor([a]))) * rotate(k, model.rotation(torch.tensor([b])))
    ).sum(-1)
    torch.testing.assert_close(product(3, 1), product(103, 101), atol=1e-4, rtol=0)
    assert not torch.allclose(product(3, 1), product(3, 2), atol=1e-3)


@pytest.mark.parametrize("chunks", [[1] * 20, [20], [3, 1, 9, 7], [7, 13]])
def test_stream_equals_offline_beyond_the_window(chunks):
    model, x = small(), torch.randn(2, 16, 20)
    state, out = None, []
    for piece in x.split(chunks, dim=-1):
        y, state = model.step(piece, state)
        out.append(y)
    torch.testing.assert_close(torch.cat(out, -1), model(x), atol=1e-5, rtol=0)


def test_state_has_one_shape_and_zeros_start_a_stream():
    model, x = small(), torch.randn(1, 16, 9)
    y, first = model.step(x[..., :2])
    _, second = model.step(x[..., 2:], first)
    zeros = []
    for a, b in zip(torch.utils._pytree.tree_leaves(first), torch.utils._pytree.tree_leaves(second), strict=True):
        assert a.shape == b.shape
        zeros.append(torch.zeros_like(a))
    state = torch.utils._pytree.tree_unflatten(zeros, torch.utils._pytree.tree_structure(first))
    torch.testing.assert_close(model.step(x[..., :2], state)[0], y)


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="8 heads do not divide 24 channels into pairs"):
        Transformer(24)
