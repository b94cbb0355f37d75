"""Attention of integers of every level that this processor has, against the same in torch."""

import pytest
import torch

from espnet_lite.kernels import lowbit_attention
from espnet_lite.kernels.activation_codes import ActivationCodes
from espnet_lite.kernels.lowbit_attention import ARGUMENTS, LowBitAttention, RelativePositions

HEADS = 3
EIGHT = {
    "query": [ActivationCodes("absmax")] * HEADS,
    "key": [ActivationCodes("absmax")] * HEADS,
    "value": [ActivationCodes("lsq", 0.02 + 0.01 * h, low=-128, high=127) for h in range(HEADS)],
    "probabilities": [ActivationCodes("absmax")] * HEADS,
}
ONE = {
    "query": [ActivationCodes("sign", 0.6, offset=0.1)] * HEADS,
    "key": [ActivationCodes("sign", 0.7, offset=-0.1)] * HEADS,
    "value": [ActivationCodes("sign", 0.5 + 0.1 * h) for h in range(HEADS)],
    "probabilities": [ActivationCodes("binary", 0.03, offset=-0.02, sparse=True)] * HEADS,
}
FOUR = {
    "query": [ActivationCodes("lsq", 0.3, low=-8, high=7)] * HEADS,
    "key": [ActivationCodes("lsq", 0.3, low=-8, high=7)] * HEADS,
    "value": [ActivationCodes("lsq", 0.3, low=-8, high=7)] * HEADS,
    "probabilities": [ActivationCodes("lsq", 0.01, low=0, high=15)] * HEADS,
}
RULES = {"8 bits": EIGHT, "1 bit": ONE, "4 bits": FOUR}


@pytest.fixture
def function(of_level):
    """Return the C function of one level."""
    return of_level("lowbit_attention", ARGUMENTS)


def inputs(frames: int, *, head_dim: int = 16, batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(frames)
    shape = (batch, frames, HEADS, head_dim)  # frames before heads, as a Linear leaves them
    return [torch.randn(shape, generator=generator).transpose(1, 2) for _ in range(3)]


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare; a probability on the edge of two codes may fall on either side, so that a few values
    differ by one code's worth."""
    assert found.shape == expected.shape and found.isfinite().all()
    differ = (found - expected).abs() > 1e-4 + 1e-4 * expected.abs()
    assert differ.float().mean() < 0.05, differ.float().mean()
    torch.testing.assert_close(found, expected, atol=0.06, rtol=0.05)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize(
    ("frames", "window", "tokens"),
    [
        *((1, None, 0), (2, 1, 0), (17, None, 0), (70, None, 0), (97, 16, 0), (150, 5, 0)),
        *((65, 3, 2), (40, 0, 0), (33, 50, 40)),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_every_shape(function, rules, frames, window, tokens, masked):
    valid = torch.arange(frames) < torch.tensor([[frames], [max(1, 2 * frames // 3)]])
    attention = LowBitAttention(**RULES[rules], window=window, global_tokens=tokens)
    given = inputs(frames)
    found = attention.fused(function, *given, valid if masked else None)
    expected = attention.reference(*given, valid if masked else None)
    if masked:  # queries in the padding may see no key
        found, expected = (x * valid[:, None, :, None] for x in (found, expected))
    assert_same(found, expected)


@pytest.mark.parametrize("head_dim", [1, 5, 36, 64, 80])
def test_every_head_width(function, head_dim):
    for rules in RULES.values():
        attention = LowBitAttention(**rules)
        given = inputs(50, head_dim=head_dim)
        assert_same(attention.fused(function, *given), attention.reference(*given))


@pytest.mark.parametrize("frames", [1, 2, 31, 33, 96])
@pytest.mark.parametrize("rules", RULES)
def test_relative_positions(function, rules, frames):
    generator = torch.Generator().manual_seed(1)
    relative = RelativePositions(
        torch.randn(HEADS, 2 * frames - 1, 16, generator=generator),
        torch.randn(HEADS, 16, generator=generator),
        torch.randn(HEADS, 16, generator=generator),
    )
    more = dict.fromkeys(("position_query", "positions"), RULES[rules]["key"])
    attention = LowBitAttention(**RULES[rules], **more)
    given = inputs(frames)
    assert_same(
        attention.fused(function, *given, relative=relative),
        attention.reference(*given, relative=relative),
    )


def test_rotation_is_that_of_the_model(function):
    from espnet_lite.nn.attention import rotary_table, rotate

    query, key, value = inputs(60)
    table = rotary_table(60, 16)
    attention = LowBitAttention(**EIGHT, window=9)
    expected = attention.reference(rotate(query, table), rotate(key, table), value)
    assert_same(attention.fused(function, query, key, value, rotation=table), expected)
    assert_same(attention.reference(query, key, value, rotation=table), expected)


def test_scores_of_few_integers_are_exact(function):
    """Queries and keys of one code, equal scores: each probability is 1 / keys, and sums are seen."""
    rules = {name: [ActivationCodes("lsq", 1.0, low=-128, high=127)] * HEADS for name in EIGHT}
    rules["probabilities"] = [ActivationCodes("lsq", 1 / 64, low=0, high=3)] * HEADS
    attention = LowBitAttention(**rules)
    value = torch.randint(-128, 128, (1, HEADS, 64, 64)).float()
    zeros = torch.zeros_like(value)
    expected = (value.sum(dim=2, keepdim=True) / 64).expand_as(value)
    assert attention.fused(function, zeros, zeros, value).equal(expected)


def test_a_query_that_sees_no_key_gets_zeros(function):
    attention = LowBitAttention(**EIGHT, window=2)
    valid = torch.tensor([[True] * 9 + [False] * 41, [False] * 50])
    found = attention.fused(function, *inputs(50), valid)
    assert found[1].abs().max() == 0 and found[0, :, 11:].abs().max() == 0
    assert (found[0, :, :11].abs().amax(dim=-1) > 0).all()


def test_threads_change_nothing(function):
    attention, given = LowBitAttention(**EIGHT), inputs(130)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(attention.fused(function, *given))
    finally:
        torch.set_num_threads(before)
    assert found[0].equal(found[1]) and found[0].equal(found[2])


def test_without_a_kernel_torch_computes_the_same(monkeypatch):
    attention, given = LowBitAttention(**ONE), inputs(20)
    fast = attention(*given)
    monkeypatch.setattr(lowbit_attention, "kernel", lambda name, arguments: None)
    assert_same(attention(*given), fast)


def test_bad_rules():
    with pytest.raises(ValueError, match="values of kind 'absmax', expected a scale that is given"):
        LowBitAttention(**{**EIGHT, "value": EIGHT["query"]})
    with pytest.raises(ValueError, match="key: 2 rules for 3 heads"):
        LowBitAttention(**{**EIGHT, "key": EIGHT["key"][:2]})
    unsigned = [ActivationCodes("lsq", 0.1, low=0, high=255)] * HEADS
    with pytest.raises(ValueError, match="probabilities: unsigned codes of 8 bits"):
        LowBitAttention(**{**EIGHT, "probabilities": unsigned})


def test_bad_shapes_are_not_read(function):
    query, key, value = inputs(20)
    attention = LowBitAttention(**EIGHT)
    for arguments, told in (
        ((query, key[:, :, 1:], value), r"key \[2, 3, 19, 16\], expected \[2, 3, 20, 16\]"),
        ((query, key, value, torch.ones(2, 21) > 0), r"key_valid \[2, 21\], expected \[2, 20\]"),
        ((query, key, value, torch.ones(2, 20)), r"key_valid of torch.float32, expected bool"),
        ((query[:, 1:], key[:, 1:], value[:, 1:]), "2 heads, expected 3"),
        ((query.double(), key, value), "an input is not float32"),
    ):
        with pytest.raises(ValueError, match=told):
            attention.fused(function, *arguments)
    bias = torch.zeros(HEADS, 16)
    relative = RelativePositions(torch.zeros(HEADS, 38, 16), bias, bias)
    with pytest.raises(ValueError, match=r"positions \[3, 38, 16\], expected \[3, 39, 16\]"):
        attention.fused(function, query, key, value, relative=relative)
