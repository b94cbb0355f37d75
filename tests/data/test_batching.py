"""Batching: every utterance once, the budget kept, the same plan for the same seed."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_lite.data import batching
from espnet_lite.data.batching import draw_seed, epoch_generator, plan_batches

LENGTHS = st.lists(st.integers(1, 500), max_size=60)


def plan_plainly(
    lengths,
    *,
    batch_samples,
    max_batch_utterances,
    generator=None,
    short_first=False,
    max_samples=None,
) -> list[list[int]]:
    """Return the plan by lists: trainings of a seed must find the batches they always had."""
    jitter = 1.0 if generator is None else 1 + 0.05 * (2 * generator.random(len(lengths)) - 1)
    keys = np.asarray(lengths, dtype=np.float64) * jitter
    batches, longest = [], 0
    for position in sorted(range(len(lengths)), key=keys.__getitem__):
        if max_samples is not None and lengths[position] > max_samples:
            continue
        longest = max(longest, lengths[position])
        size = len(batches[-1]) if batches else 0
        if not batches or size == max_batch_utterances or longest * (size + 1) > batch_samples:
            batches.append([])
            longest = lengths[position]
        batches[-1].append(position)
    if short_first:
        return batches
    if generator is None:
        return batches[::-1]
    return [batches[i] for i in np.argsort(generator.random(len(batches)), kind="stable")]


@settings(deadline=None, max_examples=60)
@given(
    lengths=LENGTHS,
    budget=st.integers(1, 2000),
    most=st.none() | st.integers(1, 8),
    seed=st.none() | st.integers(0, 1000),
    short_first=st.booleans(),
    max_samples=st.none() | st.integers(1, 500),
)
def test_every_utterance_once_and_budget_kept(
    lengths, budget, most, seed, short_first, max_samples
):
    def planned(by) -> list[list[int]]:
        generator = None if seed is None else epoch_generator(seed, 3, 0)
        options = {"generator": generator, "short_first": short_first, "max_samples": max_samples}
        plan = by(lengths, batch_samples=budget, max_batch_utterances=most, **options)
        return [list(batch) for batch in plan]

    batches = planned(plan_batches)
    limit = 500 if max_samples is None else max_samples
    chosen = [i for i, length in enumerate(lengths) if length <= limit]
    assert sorted(i for batch in batches for i in batch) == chosen
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= budget
        assert most is None or len(batch) <= most
    assert batches == planned(plan_batches) == planned(plan_plainly)


def test_hand_worked_plan_without_shuffle():
    # Sorted: 10 20 30 | 40; 3 × 30 = 90 fits in 90, 4 × 40 does not. Longest batch first.
    assert plan_batches([40, 10, 30, 20], batch_samples=90).tolist() == [[0], [1, 3, 2]]


def test_an_utterance_over_the_budget_goes_alone():
    assert plan_batches([5, 500, 6], batch_samples=100).tolist() == [[1], [0, 2]]


def test_no_utterances_make_no_batches():
    assert plan_batches([], batch_samples=10).tolist() == []
    assert len(plan_batches([], batch_samples=10, generator=epoch_generator(0, 0, 0))) == 0


def test_a_plan_is_a_sequence():
    plan = plan_batches([40, 10, 30, 20], batch_samples=90)
    assert len(plan) == 2 and plan[-1].tolist() == [1, 3, 2]
    assert [batch.tolist() for batch in plan[:1]] == [[0]] and len(list(plan)) == 2
    with pytest.raises(IndexError):
        plan[2]


def test_long_plans_do_not_depend_on_how_many_lengths_are_looked_at(monkeypatch):
    lengths = np.random.default_rng(0).integers(1, 3000, 3000)
    options = {"batch_samples": 12000, "max_batch_utterances": 9}
    expected = plan_plainly(lengths.tolist(), **options)
    for at_a_time in (1, 7, 3000, 65536):
        monkeypatch.setattr(batching, "_LENGTHS_AT_A_TIME", at_a_time)
        assert plan_batches(lengths, **options).tolist() == expected


def test_shuffle_differs_by_epoch_and_pads_little():
    lengths = np.random.default_rng(0).integers(16000, 320000, 2000)
    plans = []
    for epoch in range(2):
        generator = epoch_generator(7, epoch, 0)
        plans.append(plan_batches(lengths, batch_samples=1600000, generator=generator).tolist())
    assert plans[0] != plans[1]
    members = [{frozenset(batch) for batch in plan} for plan in plans]
    assert len(members[0] & members[1]) < len(plans[0]) // 10  # not only the order changed
    for plan in plans:
        padded = sum(max(lengths[batch]) * len(batch) for batch in plan)
        assert padded / lengths.sum() < 1.08


def test_short_first_goes_from_short_to_long():
    lengths = np.random.default_rng(0).integers(1000, 100000, 500)
    plan = plan_batches(
        lengths, batch_samples=400000, generator=epoch_generator(0, 0, 0), short_first=True
    )
    means = [lengths[batch].mean() for batch in plan]
    assert means[0] < 10000 and means[-1] > 95000
    # Neighbours may swap by as much as the jitter moves a length.
    assert all(after > 0.93 * before for before, after in itertools.pairwise(means))


@pytest.mark.parametrize("other", [(1, 2, 4), (1, 3, 3), (2, 2, 3)])
def test_batch_seeds_differ_and_fit_a_torch_generator(other):
    assert draw_seed(1, 2, 3) == draw_seed(1, 2, 3)
    assert draw_seed(1, 2, 3) != draw_seed(*other)
    assert 0 <= draw_seed(1, 2, 3) < 2**63
