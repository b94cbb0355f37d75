"""Attention against a loop over heads and queries, and against torch's own."""

import math

import pytest
import torch
from torch.nn import functional

from espnet_lite.nn.attention import (
    DotProductAttention,
    MultiHeadAttention,
    rotary_table,
    rotate,
)
from espnet_lite.nn.masks import causal_mask, key_mask


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_dot_product_equals_a_loop_over_queries():
    query, key, value = normal(2, 3, 4, 5), normal(2, 3, 6, 5, seed=1), normal(2, 3, 6, 5, seed=2)
    lengths = [6, 2]
    mixed = DotProductAttention()(query, key, value, key_mask(torch.tensor(lengths), 6))
    for batch in range(2):
        for head in range(3):
            for position in range(4):
                q = query[batch, head, position].double()
                scores = [
                    float(q @ key[batch, head, k].double()) / math.sqrt(5)
                    for k in range(lengths[batch])
                ]
                total = sum(math.exp(score) for score in scores)
                expected = sum(
                    math.exp(score) / total * value[batch, head, k].double()
                    for k, score in enumerate(scores)
                )
                torch.testing.assert_close(
                    mixed[batch, head, position].double(), expected, atol=1e-6, rtol=1e-5
                )


@pytest.mark.parametrize("masked", ["not", "keys", "causal"])
def test_dot_product_and_its_gradient_equal_torchs(masked):
    mask = {
        "not": None,
        "keys": key_mask(torch.tensor([4, 7]), 7),
        "causal": causal_mask(7)[None, None],
    }[masked]
    inputs = [normal(2, 3, 7, 8, seed=seed).requires_grad_() for seed in range(3)]
    ours = DotProductAttention()(*inputs, mask)
    theirs = functional.scaled_dot_product_attention(*inputs, mask)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    weights = normal(*ours.shape, seed=9)
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((theirs * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_query_without_any_key_stays_finite_and_its_gradient_too():
    query, key, value = (normal(1, 1, 2, 4, seed=seed).requires_grad_() for seed in range(3))
    mixed = DotProductAttention()(query, key, value, key_mask(torch.tensor([0]), 2))
    low, high = value[0, 0].amin(0), value[0, 0].amax(0)
    assert ((low <= mixed[0, 0]) & (mixed[0, 0] <= high)).all()  # a mix of the values
    mixed.sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in (query, key, value))


def test_multi_head_equals_torchs_module():
    torch.manual_seed(0)
    ours = MultiHeadAttention(12, heads=3)
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        parts = (ours.query, ours.key, ours.value)
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, source, lengths = normal(2, 4, 12), normal(2, 6, 12, seed=1), torch.tensor([6, 3])
    mask = key_mask(lengths, 6)
    expected, _ = theirs(x, source, source, key_padding_mask=~mask[:, 0, 0])
    torch.testing.assert_close(ours(x, source, mask), expected, atol=1e-6, rtol=1e-5)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="dim 10 is not a multiple of heads 3"):
        MultiHeadAttention(10, heads=3)


def test_rotation_turns_pairs_as_complex_numbers():
    x, rotation = normal(1, 2, 5, 8), rotary_table(5, 8)
    turned = rotate(x, rotation)
    for position in range(5):
        for pair in range(4):
            angle = position * 10000.0 ** (-2 * pair / 8)
            z = complex(x[0, 1, position, pair], x[0, 1, position, pair + 4])
            z *= complex(math.cos(angle), math.sin(angle))
            assert float(turned[0, 1, position, pair]) == pytest.approx(z.real, abs=1e-5)
            assert float(turned[0, 1, position, pair + 4]) == pytest.approx(z.imag, abs=1e-5)


def test_rotated_scores_depend_on_the_distance_only():
    query, key = normal(8), normal(8, seed=1)
    rotation = rotary_table(12, 8)
    queries = rotate(query.expand(1, 1, 12, 8), rotation)[0, 0]
    keys = rotate(key.expand(1, 1, 12, 8), rotation)[0, 0]
    scores = queries @ keys.T
    for distance in (-3, 0, 4):
        line = scores.diagonal(distance)
        torch.testing.assert_close(line, line[:1].expand_as(line), atol=1e-5, rtol=1e-5)
    assert float(scores[0, 0] - scores[0, 4]) != pytest.approx(0.0, abs=1e-3)
