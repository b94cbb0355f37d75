"""Depthwise convolution of integers of every level that this processor has, against torch."""

import pytest
import torch
from torch.nn import functional

from espnet_lite.errors import InputError
from espnet_lite.kernels import lowbit_depthwise
from espnet_lite.kernels.activation_codes import ActivationCodes
from espnet_lite.kernels.library import library
from espnet_lite.kernels.lowbit_depthwise import ARGUMENTS, LowBitDepthwise

RULES = {
    "8 bits": ActivationCodes("lsq", 1.0, low=-128, high=127),
    "unsigned 8": ActivationCodes("lsq", 1.0, low=0, high=255),
    "2 bits": ActivationCodes("lsq", 1.0, low=-2, high=1),
    "sign": ActivationCodes("sign", 1.0, offset=3.0),
    "binary": ActivationCodes("binary", 1.0, offset=-3.0),  # 0 has the code 1: padding must not
}


@pytest.fixture
def function(of_level):
    """Return the C function of one level."""
    return of_level("lowbit_depthwise", ARGUMENTS)


def by_loop(codes: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
    """Return the sums of a (time, channels) input, a frame and a tap at a time."""
    frames, (channels, taps) = len(codes), weight.shape
    out = torch.zeros(-(-frames // stride), channels, dtype=torch.float64)
    for i in range(len(out)):
        for tap in range(taps):
            frame = i * stride + tap - taps // 2
            if 0 <= frame < frames:
                out[i] += codes[frame].double() * weight[:, tap].double()
    return out.float()


@pytest.mark.parametrize(
    ("frames", "taps", "stride"), [(1, 1, 1), (2, 31, 1), (9, 5, 2), (40, 3, 1), (33, 7, 3)]
)
@pytest.mark.parametrize("channels", [1, 16, 35])
@pytest.mark.parametrize("rule", RULES)
def test_integers_of_every_shape(function, frames, taps, stride, channels, rule):
    generator = torch.Generator().manual_seed(frames)
    weight = torch.randint(-128, 128, (channels, taps), generator=generator)
    weight[0, 0] = -128
    x = 100 * torch.randn(2, frames, 2 * channels, generator=generator)[..., channels:]
    valid = torch.arange(frames) < torch.tensor([[frames], [(frames + 1) // 2]])
    layer = LowBitDepthwise(
        weight, weight_scale=torch.tensor(1.0), bias=None, codes=RULES[rule], stride=stride
    )
    for mask in (None, valid):
        codes, _ = RULES[rule](x)
        codes = codes if mask is None else codes * mask[..., None]
        expected = torch.stack([by_loop(each, weight, stride) for each in codes])
        assert layer.fused(function, x, mask).equal(expected)
        assert layer.reference(x, mask).equal(expected)


def test_the_largest_magnitudes_do_not_saturate(function):
    for rule in ("8 bits", "unsigned 8"):
        for low_or_high in (-1e9, 1e9):
            for value in (-128, 127):
                weight = torch.full((20, 31), value)
                layer = LowBitDepthwise(
                    weight, weight_scale=torch.tensor(1.0), bias=None, codes=RULES[rule]
                )
                x = torch.full((1, 40, 20), low_or_high)
                assert layer.fused(function, x).equal(layer.reference(x))


@pytest.mark.parametrize("activation", ["linear", "relu", "swish", "gelu"])
def test_scales_bias_and_activation(function, activation):
    torch.manual_seed(3)
    weight, scale = torch.randint(-8, 8, (24, 15)), 0.01 * torch.rand(24)
    codes, bias = ActivationCodes("lsq", 0.1, low=-128, high=127), torch.randn(24)
    layer = LowBitDepthwise(
        weight, weight_scale=scale, bias=bias, codes=codes, activation=activation
    )
    x = torch.randn(3, 50, 24)
    values = codes(x)[0].double() * 0.1
    y = functional.conv1d(
        values.mT, (weight * scale[:, None]).double()[:, None], bias.double(), padding=7, groups=24
    )
    expected = {**lowbit_depthwise.ACTIVATED}[activation](y.mT).float()
    torch.testing.assert_close(layer.fused(function, x), expected, atol=1e-5, rtol=1e-4)


def test_threads_change_nothing_and_torch_computes_the_same(function, monkeypatch):
    layer = LowBitDepthwise(
        torch.randint(-1, 2, (70, 9)), weight_scale=torch.rand(70), bias=None, codes=RULES["sign"]
    )
    x = torch.randn(2, 30, 70)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(layer.fused(function, x))
    finally:
        torch.set_num_threads(before)
    assert found[0].equal(found[1]) and found[0].equal(found[2])
    monkeypatch.setattr(lowbit_depthwise, "kernel", lambda name, arguments: None)
    torch.testing.assert_close(layer(x), found[0])
    assert layer.fused(function, x[:, :0]).shape == (2, 0, 70)


def test_bad_arguments():
    given = {"weight_scale": torch.tensor(1.0), "bias": None, "codes": RULES["sign"]}
    with pytest.raises(ValueError, match="kernel of 4 frames, expected an odd number"):
        LowBitDepthwise(torch.ones(3, 4), **given)
    with pytest.raises(ValueError, match="codes of kind 'absmax'"):
        LowBitDepthwise(torch.ones(3, 5), **{**given, "codes": ActivationCodes("absmax")})
    with pytest.raises(ValueError, match="a weight is none of 8 bits"):
        LowBitDepthwise(torch.full((3, 5), 128), **given)
    with pytest.raises(InputError, match="unknown activation 'glu'"):
        LowBitDepthwise(torch.ones(3, 5), **given, activation="glu")
    if library() is not None:
        with pytest.raises(ValueError, match=r"4 channels of torch.float32, expected 3 of float32"):
            LowBitDepthwise(torch.ones(3, 5), **given)(torch.randn(1, 2, 4))
