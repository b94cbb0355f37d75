"""The fused kernel of every level that this processor has against the same in torch, in float64."""

import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from espnet_lite.kernels.flops import FLOP_FORMULAS
from espnet_lite.kernels.local_attention import ARGUMENTS, fused, in_blocks
from espnet_lite.nn.local_attention import LocalAttention

OPERATOR = torch.ops.espnet_lite.local_attention


@pytest.fixture
def function(of_level):
    """Return the C function of one level."""
    return of_level("local_attention", ARGUMENTS)


def inputs(frames: int, *, batch=2, heads=3, head_dim=8, scale=1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(frames)
    return [
        scale * torch.randn(batch, heads, frames, head_dim, generator=generator) for _ in range(3)
    ]


def expected(query, key, value, valid, window, tokens) -> torch.Tensor:
    """Return softmax(QKᵀ/√d) V with a band as its mask, in float64; zeros where nothing is seen."""
    frames = query.size(2)
    position = torch.arange(frames)
    seen = (position[:, None] - position).abs() <= window
    seen = seen | (position[:, None] < tokens) | (position < tokens)
    seen = seen[None, None] & (True if valid is None else valid[:, None, None, :])
    scores = query.double() @ key.double().transpose(-1, -2) / query.size(-1) ** 0.5
    scores = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1).nan_to_num(0.0)
    return (scores @ value.double()).float()


CASES = [  # frames, window, global tokens
    *(
        (1, 0, 0),
        (1, 5, 3),
        (2, 1, 0),
        (15, 0, 0),
        (16, 16, 0),
        (17, 3, 1),
        (31, 40, 0),
        (33, 1, 40),
    ),
    *((64, 16, 0), (97, 16, 5), (150, 64, 0), (257, 30, 33), (300, 5, 0), (70, 69, 2)),
]


@pytest.mark.parametrize("head_dim", [1, 4, 5, 16, 20, 36, 40, 64, 80])
def test_every_head_width(function, head_dim):
    given = inputs(70, head_dim=head_dim)
    valid = torch.arange(70) < torch.tensor([[70], [41]])
    for window, tokens in ((9, 0), (9, 3)):
        torch.testing.assert_close(
            fused(function, *given, valid, window, tokens),
            expected(*given, valid, window, tokens),
            atol=2e-6,
            rtol=1e-5,
        )


@pytest.mark.parametrize(("frames", "window", "tokens"), CASES)
@pytest.mark.parametrize("masked", ["not", "at the end", "anywhere", "all of one"])
def test_every_shape(function, frames, window, tokens, masked):
    given = inputs(frames)
    valid = {
        "not": None,
        "at the end": torch.arange(frames) < torch.tensor([[frames], [(frames + 1) // 2]]),
        "anywhere": torch.rand(2, frames, generator=torch.Generator().manual_seed(1)) < 0.5,
        "all of one": torch.tensor([[True], [False]]).expand(2, frames),
    }[masked]
    torch.testing.assert_close(
        fused(function, *given, valid, window, tokens),
        expected(*given, valid, window, tokens),
        atol=2e-6,
        rtol=1e-5,
    )


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_strides_and_threads_and_nothing_is_written_beside(function, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    joined = torch.randn(2, 90, 4, 3 * 20, generator=torch.Generator().manual_seed(2))
    given = [x.transpose(1, 2) for x in joined.split(20, dim=-1)]
    before = joined.clone()
    plain = expected(*given, None, 7, 1)
    torch.testing.assert_close(fused(function, *given, None, 7, 1), plain, atol=2e-6, rtol=1e-5)
    scattered = [x.transpose(-1, -2).contiguous().transpose(-1, -2) for x in given]
    assert scattered[0].stride(-1) != 1
    torch.testing.assert_close(fused(function, *scattered, None, 7, 1), plain, atol=2e-6, rtol=1e-5)
    assert torch.equal(joined, before)
    out = fused(function, *given, None, 7, 1)
    assert out.transpose(1, 2).is_contiguous()  # flattened to (time, dim) without a copy


def test_large_scores_neither_overflow_nor_lose_the_largest(function):
    given = inputs(60, scale=30.0)
    torch.testing.assert_close(
        fused(function, *given, None, 8, 0), expected(*given, None, 8, 0), atol=1e-3, rtol=1e-4
    )
    query, key, value = inputs(60)
    peaked = fused(function, 1e4 * query, key, value, None, 8, 0)
    assert torch.isfinite(peaked).all() and peaked.abs().max() <= value.abs().max()


def test_what_is_not_seen_may_be_anything_finite(function):
    query, key, value = inputs(80)
    valid = torch.arange(80) < torch.tensor([[80], [50]])
    plain = fused(function, query, key, value, valid, 6, 2)
    loud = [x.masked_fill(~valid[:, None, :, None], 1e30) for x in (query, key, value)]
    changed = fused(function, *loud, valid, 6, 2)
    assert torch.equal(plain[0], changed[0]) and torch.equal(plain[1, :, :50], changed[1, :, :50])


def test_a_batch_is_its_utterances(function):
    given = inputs(123, batch=3)
    together = fused(function, *given, None, 10, 2)
    for row in range(3):
        alone = fused(function, *(x[row : row + 1] for x in given), None, 10, 2)
        assert torch.equal(alone[0], together[row])


def test_time_grows_with_the_frames_and_not_with_their_square(function, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)

    def seconds(frames: int) -> float:
        given = inputs(frames, batch=1, heads=1, head_dim=16)
        fastest = float("inf")
        for _ in range(7):
            started = time.thread_time()  # not what other programs take
            fused(function, *given, None, 8, 0)
            fastest = min(fastest, time.thread_time() - started)
        return fastest

    assert seconds(64000) < 128 * seconds(2000)  # 32 times the frames; their square is 1024


def test_the_operator_is_the_module_without_a_gradient():
    query, key, value = inputs(100)
    attention = LocalAttention(window=8, global_tokens=1)
    mask = (torch.arange(100) < torch.tensor([[100], [30]]))[:, None, None]
    mixed = attention(query, key, value, mask)
    trained = attention(*(x.clone().requires_grad_() for x in (query, key, value)), mask)
    torch.testing.assert_close(mixed[0], trained[0], atol=1e-6, rtol=1e-5)
    with torch.inference_mode():
        assert torch.equal(attention(query, key, value, mask), mixed)


def test_the_operator_takes_other_types_and_shapes_without_data():
    given = [x.double() for x in inputs(50)]
    plain = expected(*given, None, 4, 0)
    torch.testing.assert_close(OPERATOR(*given, None, 4, 0).float(), plain, atol=2e-6, rtol=1e-5)
    shape = OPERATOR(*(x.to("meta") for x in given), None, 4, 0).shape
    assert shape == (2, 3, 50, 8)


@pytest.mark.parametrize(("frames", "window", "tokens"), CASES)
def test_flops_count_the_pairs_that_see_each_other(frames, window, tokens):
    given = inputs(frames, head_dim=5)
    with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS) as counter:
        OPERATOR(*given, None, window, tokens)
    pairs = sum(
        abs(i - j) <= window or i < tokens or j < tokens
        for i in range(frames)
        for j in range(frames)
    )
    assert counter.get_total_flops() == 2 * (2 * 3) * 2 * 5 * pairs


def test_blocks_in_torch_are_the_same():
    given = inputs(300)
    torch.testing.assert_close(
        in_blocks(*given, None, window=20, global_tokens=3),
        expected(*given, None, 20, 3),
        atol=2e-6,
        rtol=1e-5,
    )


def test_no_memory_is_an_error():
    query, key, value = inputs(4)
    with pytest.raises(MemoryError, match="scores of local attention"):
        fused(lambda *given: 1, query, key, value, None, 1, 0)
