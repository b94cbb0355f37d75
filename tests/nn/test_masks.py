"""Masks against loops over positions. True means keep."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_lite.nn.masks import causal_mask, key_mask, span_mask, valid_mask

LENGTHS = [3, 0, 5, 1]


def test_valid_mask_counts_positions_below_the_length():
    expected = [[position < length for position in range(5)] for length in LENGTHS]
    assert valid_mask(torch.tensor(LENGTHS), 5).tolist() == expected


def test_key_mask_is_the_valid_mask_for_every_head_and_query():
    mask = key_mask(torch.tensor(LENGTHS), 5)
    assert mask.shape == (4, 1, 1, 5)
    assert torch.equal(mask[:, 0, 0], valid_mask(torch.tensor(LENGTHS), 5))


def test_causal_mask_sees_itself_and_the_past():
    assert causal_mask(4).tolist() == [[key <= query for key in range(4)] for query in range(4)]
    assert causal_mask(0).shape == (0, 0)


def spans(lengths, size, *, probability, span, min_spans=2, seed=0):
    return span_mask(
        torch.tensor(lengths),
        size,
        probability=probability,
        span=span,
        min_spans=min_spans,
        generator=torch.Generator().manual_seed(seed),
    )


def slow_spans(length, *, probability, span, min_spans, generator):
    """One utterance the slow way: draw places without replacement, paint each span."""
    wanted = int(probability * length / span + generator.random())
    places = list(range(max(0, length - span + 1)))
    wanted = min(max(wanted, min_spans), len(places))
    painted = [False] * length
    for start in generator.choice(len(places), wanted, replace=False) if wanted else []:
        for frame in range(start, start + span):
            painted[frame] = True
    return painted


@pytest.mark.parametrize(("probability", "expected"), [(0.80, 0.56), (0.65, 0.49)])
def test_spans_cover_what_was_published(probability, expected):
    masked = spans([780] * 400, 780, probability=probability, span=10)
    assert masked.float().mean().item() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("length", "probability", "span"), [(195, 0.8, 5), (40, 0.7, 5), (9, 0.8, 5)]
)
def test_spans_have_the_statistics_of_a_slow_version(length, probability, span):
    options = {"probability": probability, "span": span, "min_spans": 2}
    rows = 4000
    fast = spans([length] * rows, length, **options).float().mean(dim=0)
    generator = np.random.default_rng(1)
    slow = np.mean(
        [slow_spans(length, **options, generator=generator) for _ in range(rows)], axis=0
    )
    # Standard error of a frame's rate: at most .5 / √4000 = .008; of the difference .011.
    assert np.abs(fast.numpy() - slow).max() < 0.05
    assert abs(fast.mean().item() - slow.mean()) < 0.01


@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    span=st.integers(1, 12),
    probability=st.floats(0.01, 1.0),
    min_spans=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_spans_are_whole_and_within_the_utterance(lengths, span, probability, min_spans, seed):
    size = max(lengths) + 2
    masked = spans(
        lengths, size, probability=probability, span=span, min_spans=min_spans, seed=seed
    )
    for row, length in zip(masked.tolist(), lengths, strict=True):
        assert not any(row[length:])
        runs = [len(run) for run in "".join("x" if m else " " for m in row).split()]
        assert all(run >= span for run in runs)
        assert bool(runs) == (length >= span)
        most = max(math.ceil(probability * length / span + 1), min_spans) * span
        assert sum(runs) <= most
