"""Convolution of images of integers of every level that this processor has, against torch."""

import pytest
import torch
from torch.nn import functional

from espnet_lite.kernels import lowbit_conv2d
from espnet_lite.kernels.activation_codes import ActivationCodes
from espnet_lite.kernels.lowbit_conv2d import ARGUMENTS, ImageCodes, LowBitConv2d
from espnet_lite.kernels.lowbit_linear import WEIGHTS

RULES = {
    "8 bits": ActivationCodes("lsq", 1.0, low=-128, high=127),
    "unsigned 8": ActivationCodes("lsq", 1.0, low=0, high=255),
    "2 bits": ActivationCodes("lsq", 1.0, low=-2, high=1),
    "sign": ActivationCodes("sign", 1.0, offset=3.0),
    "binary": ActivationCodes("binary", 1.0, offset=-3.0),
}
# height, width, channels in and out, kernel, stride
SHAPES = [
    (1, 1, 1, 1, (1, 1), (1, 1)),
    (7, 9, 1, 5, (3, 3), (2, 2)),
    (19, 12, 3, 33, (3, 2), (2, 1)),
    (8, 40, 64, 64, (3, 3), (2, 2)),
    (30, 5, 20, 130, (5, 1), (1, 3)),
]


@pytest.fixture
def function(of_level):
    """Return the C function of one level."""
    return of_level("lowbit_conv2d", ARGUMENTS)


def drawn(shape: tuple, *, weight_bits: int | float = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an image and weights with the largest and the smallest integer among them."""
    height, width, channels_in, channels, kernel, _ = shape
    generator = torch.Generator().manual_seed(height)
    x = 90 * torch.randn(2, height, width, channels_in, generator=generator)
    low = WEIGHTS[weight_bits][0]
    high = 1 if weight_bits < 2 else -low - 1
    size = (channels, channels_in, *kernel)
    weight = torch.randint(low, high + 1, size, generator=generator)
    if weight_bits == 1:
        weight = torch.where(weight < 0, -1, 1)
    weight.view(-1)[0], weight.view(-1)[-1] = low, high
    return x, weight


def convolved(codes: torch.Tensor, weight: torch.Tensor, stride: tuple[int, int]) -> torch.Tensor:
    image = codes.permute(0, 3, 1, 2).double()
    return functional.conv2d(image, weight.double(), stride=stride).permute(0, 2, 3, 1).float()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", list(WEIGHTS))
def test_integers_of_every_shape(function, shape, bits):
    x, weight = drawn(shape, weight_bits=bits)
    for rule in RULES.values():
        layer = LowBitConv2d(
            weight,
            weight_bits=bits,
            weight_scale=torch.tensor(1.0),
            bias=None,
            codes=rule,
            stride=shape[-1],
        )
        expected = convolved(rule(x)[0], weight, shape[-1])
        assert layer.fused(function, x).equal(expected)
        assert layer.reference(x).equal(expected)


@pytest.mark.parametrize("rule", RULES)
def test_codes_go_from_one_to_the_next(function, rule):
    shape = (21, 23, 2, 70, (3, 3), (2, 2))
    x, weight = drawn(shape)
    second = drawn((10, 11, 70, 24, (3, 3), (2, 2)))[1]
    # Powers of 2, so that no rounding of floats moves a code.
    first = LowBitConv2d(
        weight,
        weight_bits=8,
        weight_scale=torch.tensor(2.0**-10),
        bias=torch.arange(70) / 4,
        codes=RULES["8 bits"],
        stride=(2, 2),
        activation="relu",
        next_codes=RULES[rule],
    )
    other = LowBitConv2d(
        second,
        weight_bits=8,
        weight_scale=torch.tensor(1.0),
        bias=None,
        codes=RULES[rule],
        stride=(2, 2),
    )
    image = first.fused(function, x)
    between = convolved(RULES["8 bits"](x)[0], weight, (2, 2)) * 2.0**-10 + torch.arange(70) / 4
    codes, _ = RULES[rule](between.relu())
    assert (image.values.float() + RULES[rule].zero).equal(codes)
    assert image.sums.equal(image.values.sum(dim=3, dtype=torch.int32))
    expected = convolved(codes, second, (2, 2))
    assert other.fused(function, image).equal(expected)
    assert other.reference(first.reference(x)).equal(expected)


def test_scales_bias_and_activation(function):
    x, weight = drawn(SHAPES[2])
    generator = torch.Generator().manual_seed(1)
    scale, bias = torch.rand(2, 33, generator=generator)
    for activation, plain in (("swish", functional.silu), ("relu", functional.relu)):
        layer = LowBitConv2d(
            weight,
            weight_bits=8,
            weight_scale=scale * 1e-3,
            bias=bias,
            codes=ActivationCodes("lsq", 0.7, low=-128, high=127),
            stride=(2, 1),
            activation=activation,
        )
        codes, _ = layer.codes(x)
        expected = plain(convolved(codes, weight, (2, 1)) * (scale * 0.7e-3) + bias)
        torch.testing.assert_close(layer.fused(function, x), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(layer.reference(x), expected, atol=1e-5, rtol=1e-5)


def test_threads_change_nothing(function):
    x, weight = drawn(SHAPES[3])
    layer = LowBitConv2d(
        weight, weight_bits=8, weight_scale=torch.tensor(1.0), bias=None, codes=RULES["8 bits"]
    )
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(layer.fused(function, x))
    finally:
        torch.set_num_threads(before)
    assert found[0].equal(found[1]) and found[0].equal(found[2])


def test_an_image_under_the_kernel_has_no_output(function):
    x, weight = drawn(SHAPES[1])
    layer = LowBitConv2d(
        weight, weight_bits=8, weight_scale=torch.tensor(1.0), bias=None, codes=RULES["8 bits"]
    )
    assert layer.fused(function, x[:, :2]).shape == (2, 0, 7, 5)


def test_without_a_kernel_torch_computes_the_same(monkeypatch):
    x, weight = drawn(SHAPES[1])
    layer = LowBitConv2d(
        weight, weight_bits=8, weight_scale=torch.tensor(1.0), bias=None, codes=RULES["8 bits"]
    )
    fast = layer(x)
    monkeypatch.setattr(lowbit_conv2d, "kernel", lambda name, arguments: None)
    assert layer(x).equal(fast)


def test_bad_input(function):
    x, weight = drawn(SHAPES[1])
    given = {"weight_bits": 8, "weight_scale": torch.tensor(1.0), "bias": None}
    with pytest.raises(ValueError, match="codes of kind 'absmax', expected a scale that is given"):
        LowBitConv2d(weight, codes=ActivationCodes("absmax"), **given)
    with pytest.raises(ValueError, match="activation 'glu' of a convolution"):
        LowBitConv2d(weight, codes=RULES["8 bits"], activation="glu", **given)
    layer = LowBitConv2d(weight, codes=RULES["8 bits"], **given)
    for image, told in (
        (torch.zeros(1, 5, 5, 2), r"image \[1, 5, 5, 2\] of torch.float32, expected 1 channels"),
        (x.double(), "of torch.float64, expected 1 channels, torch.float32"),
        (
            ImageCodes(torch.zeros(1, 5, 5, 1, dtype=torch.int8), torch.zeros(1, 5, 4)),
            r"sums \[1, 5, 4\] of torch.float32, expected int32 of positions",
        ),
    ):
        with pytest.raises(ValueError, match=told):
            layer.fused(function, image)
