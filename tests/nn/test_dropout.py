"""Dropout: what share it zeroes, how it scales, where its random numbers come from."""

import pytest
import torch

from espnet_lite.nn.dropout import Dropout


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2, 0.25, 0.5, 0.9])
def test_zeroed_share_and_scale_keep_the_mean(rate):
    torch.manual_seed(1)
    count = 400_003
    dropped = Dropout(rate)(torch.ones(count))
    kept = dropped != 0
    scales = dropped[kept].unique()
    assert scales.numel() == 1
    scale = float(scales)
    assert scale == pytest.approx(1 / (1 - rate), rel=2**-8)  # rounded to bf16
    # The share belongs to the rounded scale: share kept × scale = 1 up to steps of 1/32768.
    sigma = (rate * (1 - rate) / count) ** 0.5
    assert float(kept.double().mean()) == pytest.approx(1 / scale, abs=5 * sigma + 1 / 32768)


def test_gradient_is_the_same_mask_and_scale():
    torch.manual_seed(3)
    x = torch.randn(7, 11, requires_grad=True)
    y = Dropout(0.4)(x)
    weights = torch.randn(7, 11)
    (gradient,) = torch.autograd.grad((y * weights).sum(), x)
    torch.testing.assert_close(gradient, (y / x).detach() * weights)
    assert 0 < int((gradient == 0).sum()) < 77


def test_evaluation_and_zero_probability_change_nothing():
    x = torch.randn(5)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    before = torch.get_rng_state()
    Dropout(0.5).eval()(x)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_state_of_torchs_generator_gives_the_same_mask_again():
    torch.manual_seed(4)
    state = torch.get_rng_state()
    x, dropout = torch.ones(3, 50), Dropout(0.5)
    first, second = dropout(x), dropout(x)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x), first) and torch.equal(dropout(x), second)
    assert not torch.equal(first, second)


def test_elements_are_dropped_independently_of_their_neighbours():
    torch.manual_seed(5)
    kept = (Dropout(0.5)(torch.ones(500, 1001)) != 0).double().flatten() - 0.5
    for distance in (1, 2, 3, 4, 8, 1001):
        correlation = float((kept[distance:] * kept[:-distance]).mean() / kept.square().mean())
        assert abs(correlation) < 5 / kept.numel() ** 0.5


def test_half_precision_and_empty_tensors_keep_their_kind():
    dropped = Dropout(0.5)(torch.ones(100, dtype=torch.bfloat16))
    assert dropped.dtype == torch.bfloat16 and set(dropped.tolist()) == {0.0, 2.0}
    assert Dropout(0.5)(torch.ones(0, 3)).shape == (0, 3)
