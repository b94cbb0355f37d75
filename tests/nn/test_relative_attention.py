"""Attention with relative positions against loops over queries, keys and distances."""

import math

import pytest
import torch

from espnet_lite.nn import relative_attention
from espnet_lite.nn.masks import key_mask
from espnet_lite.nn.positions import relative_sinusoids
from espnet_lite.nn.relative_attention import RelativeAttention, RelativeDotProduct, shifted


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def by_loops(content_query, position_query, key, value, positions, lengths) -> torch.Tensor:
    """Return the mixed values of valid queries, an element at a time."""
    batch, heads, time, head_dim = key.shape
    mixed = torch.zeros_like(value)
    for b in range(batch):
        for h in range(heads):
            for i in range(time):
                weights = []
                for j in range(lengths[b]):
                    distance = i - j
                    place = time - 1 - distance  # the table begins with the distance time − 1
                    score = content_query[b, h, i] @ key[b, h, j]
                    score = score + position_query[b, h, i] @ positions[h, place]
                    weights.append(math.exp(score / math.sqrt(head_dim)))
                for j, weight in enumerate(weights):
                    mixed[b, h, i] += weight / sum(weights) * value[b, h, j]
    return mixed


@pytest.mark.parametrize("time", [1, 2, 5, 7, 9])
@pytest.mark.parametrize("block", [None, 1, 3, 4])
def test_dot_product_equals_loops(time, block, monkeypatch):
    """In one piece, as in training, and by blocks of queries, the last of which may be one query."""
    if block is not None:
        monkeypatch.setattr(relative_attention, "BLOCK", block)
    inputs = [normal(2, 3, time, 4, seed=seed) for seed in range(4)]
    positions = normal(3, 2 * time - 1, 4, seed=9)
    lengths = [time, max(1, time // 2)]
    expected = by_loops(*inputs, positions, lengths)
    with torch.set_grad_enabled(block is None):
        mask = key_mask(torch.tensor(lengths), time)
        dot_product = RelativeDotProduct().eval()
        mixed = dot_product(*inputs, positions, mask)
        unmasked = dot_product(*inputs, positions)
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(unmasked, by_loops(*inputs, positions, [time, time]))


def test_dot_product_by_blocks_has_dropout_in_training_only():
    inputs, positions = [normal(1, 2, 7, 4, seed=seed) for seed in range(4)], normal(2, 13, 4)
    dropping = RelativeDotProduct(dropout=0.5)
    with torch.no_grad():
        dropped = dropping(*inputs, positions)
        kept = dropping.eval()(*inputs, positions)
    assert not torch.equal(dropped, kept)
    torch.testing.assert_close(kept, RelativeDotProduct()(*inputs, positions))


def test_dot_product_by_blocks_takes_a_mask_of_each_query(monkeypatch):
    inputs, positions = [normal(1, 2, 7, 4, seed=seed) for seed in range(4)], normal(2, 13, 4)
    mask = torch.rand(1, 1, 7, 7, generator=torch.Generator().manual_seed(0)) < 0.7
    whole = RelativeDotProduct()(*inputs, positions, mask)
    monkeypatch.setattr(relative_attention, "BLOCK", 3)
    with torch.no_grad():
        blocks = RelativeDotProduct().eval()(*inputs, positions, mask)
    torch.testing.assert_close(blocks, whole)


def test_gradients_are_those_of_differences():
    inputs = [normal(1, 2, 3, 4, seed=seed).requires_grad_() for seed in range(4)]
    positions = normal(2, 5, 4, seed=9).requires_grad_()
    mask = key_mask(torch.tensor([2]), 3)
    assert torch.autograd.gradcheck(RelativeDotProduct(), (*inputs, positions, mask))


def test_a_query_without_any_key_stays_finite():
    inputs = [normal(1, 1, 3, 4, seed=seed).requires_grad_() for seed in range(4)]
    mixed = RelativeDotProduct()(*inputs, normal(1, 5, 4), key_mask(torch.tensor([0]), 3))
    mixed.sum().backward()
    assert torch.isfinite(mixed).all()
    assert all(torch.isfinite(x.grad).all() for x in inputs)


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 4), (2, 1), (2, 2), (3, 5), (5, 3)])
def test_shift_picks_the_distance_of_query_and_key(queries, keys):
    distances = queries + keys - 1
    scores = torch.arange(2.0 * queries * distances).view(2, queries, distances)
    picked = shifted(scores)
    assert picked.shape == (2, queries, keys)
    assert picked.untyped_storage().data_ptr() == scores.untyped_storage().data_ptr()  # no copy
    for i in range(queries):
        for j in range(keys):
            assert torch.equal(picked[:, i, j], scores[:, i, queries - 1 - i + j])


def test_relative_sinusoids_are_those_of_each_distance():
    table = relative_sinusoids(4, 6)
    assert table.shape == (7, 6)
    for row, distance in enumerate(range(3, -4, -1)):
        for column in range(6):
            angle = distance * 10000.0 ** (-(column - column % 2) / 6)
            expected = math.cos(angle) if column % 2 else math.sin(angle)
            assert float(table[row, column]) == pytest.approx(expected, abs=1e-6)
    assert relative_sinusoids(1, 6).tolist() == [[0, 1, 0, 1, 0, 1]]


def test_scores_depend_on_the_distance_alone():
    """The same frames later in the sequence read the same from frames as far away."""
    torch.manual_seed(0)
    attention = RelativeAttention(8, heads=2)
    x = torch.randn(1, 5, 8)
    padded = torch.cat([torch.randn(1, 3, 8), x], dim=1)
    visible = torch.tensor([False] * 3 + [True] * 5)[None, None, None]
    with torch.no_grad():
        alone = attention(x, relative_sinusoids(5, 8))
        later = attention(padded, relative_sinusoids(8, 8), visible)[:, 3:]
    torch.testing.assert_close(later, alone, atol=1e-6, rtol=1e-5)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="dim 10 is not a multiple of heads 3"):
        RelativeAttention(10, heads=3)
