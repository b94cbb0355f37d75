"""The rules by which activations become integers, against hand-worked values."""

import math

import pytest
import torch

from espnet_lite.errors import InputError
from espnet_lite.kernels.activation_codes import ActivationCodes


def codes_of(rule: ActivationCodes, *values: float) -> list[float]:
    codes, _ = rule(torch.tensor([values]))
    return codes[0].tolist()


def test_absmax_rounds_half_to_even_and_scales_each_row():
    x = torch.tensor([[127.0, 0.5, 1.5, -2.5, -127.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    codes, scale = ActivationCodes("absmax")(x)
    assert codes.tolist() == [[127, 0, 2, -2, -127], [0, 0, 0, 0, 0]]
    assert scale.flatten().tolist() == [1.0, 1.0]


def test_lsq_clips_to_its_codes():
    signed = ActivationCodes("lsq", 0.5, low=-8, high=7)
    assert codes_of(signed, -9.0, -4.0, -0.25, 0.75, 3.4, 99.0) == [-8, -8, 0, 2, 7, 7]
    unsigned = ActivationCodes("lsq", 2.0, low=0, high=255)
    assert codes_of(unsigned, -1.0, 1.0, 3.0, 509.0, 511.0) == [0, 0, 2, 254, 255]
    assert (signed.zero, unsigned.zero) == (0, 128)


def test_sign_of_zero_is_plus_one():
    rule = ActivationCodes("sign", 0.3, offset=0.25)
    assert codes_of(rule, 0.25, 0.24999, -1.0, 2.0) == [1, -1, -1, 1]


def test_binary_rounds_a_half_to_zero():
    rule = ActivationCodes("binary", 0.5, offset=1.0)
    assert codes_of(rule, -9.0, 1.0, 1.25, 1.2500001, 1.5, 9.0) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("scale", [1e-30, 1e-5, 0.1, 0.5, 1 / 3, 7.0, 1e20])
@pytest.mark.parametrize("offset", [0.0, -0.3, 0.1, 5.0, -1e10])
def test_the_threshold_of_binary_is_the_formula(scale, offset):
    """From the smallest number with the code 1 on, all have it, and the one before has not."""
    rule = ActivationCodes("binary", scale, offset=offset)
    threshold = torch.tensor(rule.struct().threshold)
    below = torch.nextafter(threshold, torch.tensor(-math.inf))
    assert codes_of(rule, threshold.item(), below.item()) == [1, 0]


def test_planes_are_bits_that_can_be_counted():
    def lsq(low: int, high: int) -> int:
        return ActivationCodes("lsq", low=low, high=high).planes

    assert (lsq(-2, 1), lsq(0, 3), lsq(-8, 7)) == (2, 2, 0)
    assert ActivationCodes("sign").planes == ActivationCodes("binary").planes == 1
    assert ActivationCodes("absmax").planes == 0


def test_bad_rules():
    with pytest.raises(InputError, match=r"unknown kind of codes 'signs' .did you mean 'sign'"):
        ActivationCodes("signs")
    for scale in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="expected numbers, scale > 0"):
            ActivationCodes("lsq", scale)
    with pytest.raises(ValueError, match=r"codes -128 … 200 are not of 8 bits"):
        ActivationCodes("lsq", low=-128, high=200)
