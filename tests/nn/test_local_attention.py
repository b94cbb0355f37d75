"""Attention within a window against attention over everything with a band as its mask."""

import pytest
import torch

from espnet_lite.kernels import local_attention as kernel
from espnet_lite.nn.attention import DotProductAttention
from espnet_lite.nn.local_attention import LocalAttention


def inputs(frames: int, *, batch=2, heads=3, head_dim=8, seed=0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, heads, frames, head_dim, generator=generator, requires_grad=True)
        for _ in range(3)
    ]


def band(frames: int, window: int, global_tokens: int) -> torch.Tensor:
    """Return who sees whom, one pair at a time."""
    return torch.tensor(
        [
            [abs(i - j) <= window or i < global_tokens or j < global_tokens for j in range(frames)]
            for i in range(frames)
        ]
    )


CASES = [  # frames, window, global tokens: multiples of the window and not, shorter ones, edges
    *((1, 0, 0), (1, 3, 0), (2, 1, 1), (5, 0, 0), (5, 0, 2), (7, 9, 0), (7, 3, 9)),
    *((64, 16, 0), (97, 16, 0), (97, 16, 3), (200, 20, 0), (201, 20, 1), (150, 1, 0), (150, 0, 4)),
]


@pytest.fixture(params=[False, True], ids=["as it chooses", "always in blocks"])
def always_in_blocks(request, monkeypatch):
    """Let short sequences go through small blocks too, which otherwise take all pairs."""
    if request.param:
        monkeypatch.setattr(kernel, "_SMALLEST_BLOCK", 1)
        monkeypatch.setattr(kernel, "_all_pairs_are_fewer", lambda **sizes: False)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("frames", "window", "global_tokens"), CASES)
def test_equals_full_attention_with_a_band(frames, window, global_tokens, padded, always_in_blocks):
    given = inputs(frames)
    lengths = torch.tensor([frames, max(1, frames * 2 // 3)])
    valid = torch.arange(frames) < lengths[:, None]
    mask = valid[:, None, None, :] if padded else None
    seen = band(frames, window, global_tokens)[None, None]
    seen = seen & mask if padded else seen
    ours = LocalAttention(window=window, global_tokens=global_tokens)(*given, mask)
    full = DotProductAttention()(*given, seen)
    # A padded query may see no key at all; what it gets means nothing, but is a number.
    assert torch.isfinite(ours).all()
    meant = (valid if padded else torch.ones_like(valid))[:, None, :, None]
    torch.testing.assert_close(ours * meant, full * meant, atol=1e-6, rtol=1e-5)
    weights = torch.randn(*ours.shape, generator=torch.Generator().manual_seed(9)) * meant
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), given),
        torch.autograd.grad((full * weights).sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_gradient_equals_finite_differences(monkeypatch):
    monkeypatch.setattr(kernel, "_SMALLEST_BLOCK", 1)
    monkeypatch.setattr(kernel, "_all_pairs_are_fewer", lambda **sizes: False)
    given = [x.detach().double().requires_grad_() for x in inputs(7, batch=1, heads=2, head_dim=2)]
    attention = LocalAttention(window=2, global_tokens=1)
    assert torch.autograd.gradcheck(attention, given)


@pytest.mark.parametrize("global_tokens", [0, 2])
def test_what_stands_in_padding_or_in_another_utterance_is_never_seen(global_tokens):
    query, key, value = (x.detach() for x in inputs(120))
    lengths = torch.tensor([120, 70])
    valid = torch.arange(120) < lengths[:, None]
    attention = LocalAttention(window=4, global_tokens=global_tokens)
    mixed = attention(query, key, value, valid[:, None, None])
    loud = [x.masked_fill(~valid[:, None, :, None], 1e3) for x in (query, key, value)]
    changed = attention(*loud, valid[:, None, None])
    alone = attention(*(x[1:, :, :70] for x in (query, key, value)))
    assert torch.equal(mixed[0], changed[0]) and torch.equal(mixed[1, :, :70], changed[1, :, :70])
    torch.testing.assert_close(mixed[1:, :, :70], alone, atol=1e-6, rtol=1e-5)
    loud[2][0] = torch.nan  # a sequence beside it that has gone wrong
    assert torch.isfinite(attention(*loud, valid[:, None, None])[1]).all()


def test_memory_grows_with_the_frames_and_not_with_their_square():
    attention = LocalAttention(window=16)
    sizes = {}
    for frames in (1000, 4000):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, saved=saved: saved.append(x.untyped_storage().nbytes()) or x, lambda x: x
        ):
            attention(*inputs(frames, batch=1))
        sizes[frames] = sum(saved)
    assert sizes[4000] < 4.1 * sizes[1000]


def test_bf16_autocast_trains_near_fp32():
    given = inputs(100)
    attention = LocalAttention(window=8, global_tokens=1)
    exact = attention(*given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = attention(*(x.bfloat16() for x in given))
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), exact, atol=0.03, rtol=0.03)
    mixed.float().square().sum().backward()
    assert all(torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0 for x in given)


def test_dropout_acts_on_the_probabilities_in_training():
    attention = LocalAttention(window=4, dropout=0.5)
    query, key, _ = inputs(80)
    ones = torch.ones_like(query)
    rows = attention(query, key, ones)[..., 0]
    assert float(rows.mean().detach()) == pytest.approx(1.0, abs=0.05)
    assert float(rows.std().detach()) > 0.1
    torch.testing.assert_close(attention.eval()(query, key, ones), ones)


@pytest.mark.parametrize("sizes", [{"window": -1}, {"window": 1, "global_tokens": -2}])
def test_negative_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match=r"-1|-2"):
        LocalAttention(**sizes)
