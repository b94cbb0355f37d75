"""Sinusoidal positions against the formula of the paper."""

import math

import pytest
import torch

from espnet_lite.nn.positions import SinusoidalPositions, sinusoids


@pytest.mark.parametrize("dim", [8, 7])
def test_sinusoids_are_those_of_the_paper(dim):
    table = sinusoids(50, dim)
    assert table.shape == (50, dim)
    for position in (0, 1, 49):
        for column in range(dim):
            angle = position / 10000.0 ** (2 * (column // 2) / dim)
            expected = math.cos(angle) if column % 2 else math.sin(angle)
            assert float(table[position, column]) == pytest.approx(expected, abs=1e-5)


def test_positions_are_added_to_the_scaled_input():
    x = torch.randn(2, 6, 16)
    expected = x * 4.0 + sinusoids(6, 16)
    torch.testing.assert_close(SinusoidalPositions(16)(x), expected)


def test_start_continues_an_earlier_piece():
    positions, x = SinusoidalPositions(8).eval(), torch.randn(1, 9, 8)
    whole = positions(x)
    torch.testing.assert_close(positions(x[:, 4:], 4), whole[:, 4:])
    assert positions(x[:, :0]).shape == (1, 0, 8)
