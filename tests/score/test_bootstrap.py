"""Intervals by bootstrap against draws one by one and against known distributions."""

import numpy as np
import pytest

from espnet_lite.score import bootstrap
from espnet_lite.score.bootstrap import (
    drawn_sums,
    interval_of_speakers,
    paired_difference,
    rate_interval,
)

TOKENS = [100, 50, 200, 80]
FIRST = [30, 10, 90, 20]
SECOND = [25, 12, 70, 15]


def draws_one_by_one(draws: int, *, seed: int) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return random.integers(len(TOKENS), size=(draws, len(TOKENS)), dtype=np.int32).tolist()


def test_sums_of_draws_are_the_sums_of_what_was_drawn():
    whole = drawn_sums([FIRST, TOKENS], draws=100, seed=1)
    for sums, draw in zip(whole.T, draws_one_by_one(100, seed=1), strict=True):
        assert sums[0] == sum(FIRST[i] for i in draw)
        assert sums[1] == sum(TOKENS[i] for i in draw)


def test_a_draw_has_as_many_as_there_are_in_pieces_too(monkeypatch):
    monkeypatch.setattr(bootstrap, "_DRAWN_AT_ONCE", 1000)
    sums = drawn_sums(np.array([np.ones(300), np.arange(300)]), draws=2000, seed=1)
    assert (sums[0] == 300).all()
    assert sums[1].mean() / 300 == pytest.approx(149.5, rel=0.01)
    # the mean of n draws of 0..299 has a variance of (300² − 1) / 12 / n
    assert (sums[1] / 300).std() == pytest.approx((89999 / 12 / 300) ** 0.5, rel=0.1)


def test_rates_and_bounds_equal_draws_one_by_one():
    found = paired_difference(FIRST, SECOND, tokens=TOKENS, draws=500, seed=3)
    assert found.first.value == pytest.approx(100 * 150 / 430)
    assert found.difference.value == pytest.approx(100 * (150 - 122) / 430)
    rates, differences = [], []
    for draw in draws_one_by_one(500, seed=3):
        words = sum(TOKENS[i] for i in draw)
        rates.append(100 * sum(FIRST[i] for i in draw) / words)
        differences.append(100 * sum(FIRST[i] - SECOND[i] for i in draw) / words)
    low, high = np.quantile(differences, [0.025, 0.975])
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high))
    assert found.improbability == pytest.approx(np.mean([d <= 0 for d in differences]))
    assert found.p_value == min(1.0, 2 * found.improbability)
    alone = rate_interval(FIRST, TOKENS, draws=500, seed=3)
    assert (alone.low, alone.high) == pytest.approx(tuple(np.quantile(rates, [0.025, 0.975])))


def test_the_interval_of_a_binomial_rate_is_the_known_one():
    # 1,000 utterances of one word, 200 wrong: 20 % ± 1.96 · sqrt(0.2 · 0.8 / 1000) = ± 2.48 %
    found = rate_interval([1] * 200 + [0] * 800, [1] * 1000, draws=4000)
    assert found.value == 20.0
    assert (found.low, found.high) == pytest.approx((17.52, 22.48), abs=0.25)


def test_a_rate_over_nothing_has_no_interval_and_few_speakers_have_none():
    assert rate_interval([2, 0], [0, 0]) is None
    assert rate_interval([1], [2]) is None
    nine = {f"s{i}": (i, 10) for i in range(9)}
    assert interval_of_speakers(nine) is None
    ten = interval_of_speakers({**nine, "s9": (9, 10)})
    assert (ten["over"], ten["drawn"]) == ("speakers", 10)
    assert ten["low"] < 45 < ten["high"]


def test_equal_systems_do_not_differ():
    found = paired_difference(FIRST, FIRST, tokens=TOKENS)
    assert found.difference.value == found.difference.low == found.difference.high == 0
    assert found.improbability == 1.0
