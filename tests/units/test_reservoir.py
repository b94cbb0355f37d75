"""The reservoir: every frame stays with the same chance, whatever the blocks."""

import numpy as np
import pytest
import torch

from espnet_lite.errors import InputError
from espnet_lite.units.reservoir import Reservoir


def fill(sizes, *, capacity: int, seed: int) -> tuple[Reservoir, list[int]]:
    """Return the reservoir and the numbers of the frames in it: frame i is (i, -i)."""
    reservoir = Reservoir(capacity, dim=2, generator=torch.Generator().manual_seed(seed))
    start = 0
    for size in sizes:
        numbers = torch.arange(start, start + size, dtype=torch.float32)
        reservoir.add(torch.stack([numbers, -numbers], dim=1))
        start += size
    sample = reservoir.sample()
    assert torch.equal(sample[:, 0], -sample[:, 1])  # frames whole
    return reservoir, sample[:, 0].long().tolist()


@pytest.mark.parametrize("sizes", [[0], [3], [4, 3], [7, 0, 3], [10]])
def test_all_frames_while_there_is_room(sizes):
    reservoir, kept = fill(sizes, capacity=10, seed=0)
    assert kept == list(range(sum(sizes)))
    assert reservoir.seen == sum(sizes)


@pytest.mark.parametrize("sizes", [[50], [10, 40], [3, 17, 1, 29]])
def test_uniform(sizes):
    """Chi square over 50 frames: its mean is 49 · (1 - p) = 39 of draws without replacement."""
    runs, capacity = 500, 10
    counts = np.zeros(50)
    for seed in range(runs):
        reservoir, kept = fill(sizes, capacity=capacity, seed=seed)
        assert len(set(kept)) == capacity and reservoir.seen == 50
        counts[kept] += 1
    expected = runs * capacity / 50
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert 20 < chi_square < 65  # three standard deviations of sqrt(2 · 49) · 0.8 = 8


def test_pairs_are_independent():
    """Neighbours stay together as often as any two frames: 10 · 9 / (50 · 49)."""
    runs = 1000
    together = sum(
        {20, 21} <= set(fill([25, 25], capacity=10, seed=seed)[1]) for seed in range(runs)
    )
    assert together / runs == pytest.approx(90 / 2450, abs=0.018)  # three standard deviations


def test_blocks_larger_than_the_room():
    _, kept = fill([5, 1000], capacity=4, seed=1)
    assert len(set(kept)) == 4 and max(kept) > 100


def test_the_seed_decides():
    assert fill([40, 60], capacity=9, seed=5)[1] == fill([40, 60], capacity=9, seed=5)[1]
    assert fill([40, 60], capacity=9, seed=5)[1] != fill([40, 60], capacity=9, seed=6)[1]


def test_half_precision_is_widened():
    reservoir = Reservoir(3, dim=1, generator=torch.Generator())
    reservoir.add(torch.ones(2, 1, dtype=torch.bfloat16))
    assert reservoir.sample().dtype == torch.float32


def test_no_room():
    with pytest.raises(InputError, match="room for 0 frames of 39 dimensions"):
        Reservoir(0, dim=39, generator=torch.Generator())
