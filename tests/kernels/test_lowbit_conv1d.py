"""Convolutions of integers of every level that this processor has, against torch."""

import pytest
import torch
from torch.nn import functional

from espnet_lite.errors import InputError
from espnet_lite.kernels import lowbit_conv1d
from espnet_lite.kernels.activation_codes import ActivationCodes
from espnet_lite.kernels.library import library
from espnet_lite.kernels.lowbit_conv1d import ARGUMENTS, LowBitConv1d
from espnet_lite.kernels.lowbit_linear import ACTIVATED

RULES = {
    "8 bits": ActivationCodes("lsq", 1.0, low=-128, high=127),
    "unsigned 8": ActivationCodes("lsq", 1.0, low=0, high=255),
    "2 bits": ActivationCodes("lsq", 1.0, low=-2, high=1),
    "sign": ActivationCodes("sign", 1.0, offset=3.0),
    "binary": ActivationCodes("binary", 1.0, offset=-3.0),  # 0 has the code 1: padding must not
}
# frames, channels, outputs, kernel, stride, padding, groups
SHAPES = [
    (1, 1, 1, 1, 1, 0, 1),
    (3, 2, 5, 3, 2, 0, 1),
    (70, 64, 40, 3, 2, 0, 1),  # whole depths: codes that were given are read where they are
    (311, 10, 17, 2, 2, 0, 1),
    (200, 1, 33, 10, 5, 0, 1),
    (150, 24, 24, 16, 1, 8, 4),  # an even kernel with padding gives one frame less
    (9, 6, 6, 5, 1, 2, 2),
    (40, 32, 16, 7, 3, 3, 1),
    (300, 128, 70, 2, 2, 0, 1),
]


@pytest.fixture
def function(of_level):
    """Return the C function of one level."""
    return of_level("lowbit_conv1d", ARGUMENTS)


def drawn(outputs: int, channels: int, kernel: int) -> torch.Tensor:
    """Return random weights, among them the smallest and the largest."""
    generator = torch.Generator().manual_seed(outputs)
    weight = torch.randint(-128, 128, (outputs, channels, kernel), generator=generator)
    weight.view(-1)[0], weight.view(-1)[-1] = -128, 127
    return weight


def some(*sizes: int) -> torch.Tensor:
    """Return numbers that take all codes."""
    generator = torch.Generator().manual_seed(sizes[1])
    return 60 * torch.randn(sizes, generator=generator)


def by_torch(codes, weight, stride: int, padding: int, groups: int, frames: int) -> torch.Tensor:
    """Return the sums of torch's own convolution, channels last."""
    sums = functional.conv1d(
        codes.double().mT, weight.double(), stride=stride, padding=padding, groups=groups
    )
    return sums[:, :, :frames].mT.float()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rule", RULES)
def test_integers_of_every_shape(function, shape, rule):
    frames, channels, outputs, kernel, stride, padding, groups = shape
    weight = drawn(outputs, channels // groups, kernel)
    layer = LowBitConv1d(
        weight,
        weight_scale=torch.tensor(1.0),
        bias=None,
        codes=RULES[rule],
        stride=stride,
        padding=padding,
        groups=groups,
    )
    x = some(2, frames, channels)
    codes, _ = RULES[rule](x)
    found = layer.fused(function, x)
    expected = by_torch(codes, weight, stride, padding, groups, found.size(1))
    assert found.equal(expected)
    assert layer.reference(x).equal(expected)
    if padding:
        assert found.size(1) == (frames - 1) // stride + 1


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[5:] == (0, 1)])
@pytest.mark.parametrize("rule", ["8 bits", "unsigned 8", "sign"])
def test_codes_that_a_layer_before_has_given(function, shape, rule):
    """Also at the end of their memory: a sanitizer sees what is read beyond."""
    frames, channels, outputs, kernel, stride, *_ = shape
    layer = LowBitConv1d(
        drawn(outputs, channels, kernel),
        weight_scale=torch.tensor(1.0),
        bias=None,
        codes=RULES[rule],
        stride=stride,
    )
    x = some(1, frames, channels)
    given = (RULES[rule](x)[0] - RULES[rule].zero).to(torch.int8)
    assert layer.fused(function, given).equal(layer.fused(function, x))
    assert layer.reference(given).equal(layer.reference(x))


@pytest.mark.parametrize("gives", [None, *RULES])
@pytest.mark.parametrize("activation", ["linear", "relu", "swish", "gelu"])
def test_what_is_fused_behind(function, activation, gives):
    torch.manual_seed(3)
    weight, scale = drawn(52, 7, 3), 1e-3 * torch.rand(52) + 1e-3
    bias, rule = torch.randn(52), RULES["8 bits"]
    codes = ActivationCodes("lsq", 0.5, low=-128, high=127)
    rule = None if gives is None else RULES[gives]
    layer = LowBitConv1d(
        weight,
        weight_scale=scale,
        bias=bias,
        codes=codes,
        stride=2,
        activation=activation,
        gives=rule,
    )
    x = some(2, 91, 7)
    sums = by_torch(codes(x)[0], weight, 2, 0, 1, 45)
    expected = ACTIVATED[activation](sums * (scale * 0.5) + bias)
    for found in (layer.fused(function, x), layer.reference(x)):
        if rule is None:
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
            continue
        wanted = rule(expected)[0] - rule.zero
        assert found.dtype == torch.int8
        # A number at the edge of two codes may get the other one.
        differ = found.float() != wanted
        assert differ.float().mean() < 0.001
        step = 2 if gives == "sign" else 1
        assert ((found.float() - wanted).abs() <= step).all()


def test_the_largest_magnitudes_do_not_saturate(function):
    for rule in ("8 bits", "unsigned 8"):
        for low_or_high in (-1e9, 1e9):
            for value in (-128, 127):
                layer = LowBitConv1d(
                    torch.full((20, 64, 3), value),
                    weight_scale=torch.tensor(1.0),
                    bias=None,
                    codes=RULES[rule],
                    stride=1,
                )
                x = torch.full((1, 140, 64), low_or_high)
                assert layer.fused(function, x).equal(layer.reference(x))


def test_threads_change_nothing_and_torch_computes_the_same(function, monkeypatch):
    given = {"weight_scale": torch.rand(48), "bias": torch.randn(48), "codes": RULES["8 bits"]}
    layers = [
        LowBitConv1d(drawn(48, 3, 16), **given, stride=1, padding=8, groups=16),
        LowBitConv1d(drawn(48, 48, 3), **given, stride=2, activation="gelu"),
    ]
    x = some(2, 500, 48)
    before = torch.get_num_threads()
    for layer in layers:
        try:
            found = []
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                found.append(layer.fused(function, x))
        finally:
            torch.set_num_threads(before)
        assert found[0].equal(found[1]) and found[0].equal(found[2])
        with monkeypatch.context() as patched:
            patched.setattr(lowbit_conv1d, "kernel", lambda name, arguments: None)
            torch.testing.assert_close(layer(x), found[0], atol=0.02, rtol=1e-5)
        assert layer.fused(function, x[:0]).shape == (0, *found[0].shape[1:])
    assert layers[1].fused(function, x[:, :2]).shape == (2, 0, 48)


def make(weight, **changed) -> LowBitConv1d:
    given = {"weight_scale": torch.tensor(1.0), "bias": None, "codes": RULES["8 bits"]}
    return LowBitConv1d(weight, **{**given, **changed})


def test_bad_arguments():
    ones = torch.ones(4, 3, 5)
    with pytest.raises(ValueError, match="4 outputs, expected a multiple of groups 3"):
        make(ones, groups=3)
    with pytest.raises(ValueError, match="codes of kind 'absmax'"):
        make(ones, codes=ActivationCodes("absmax"))
    with pytest.raises(ValueError, match="codes of kind 'absmax'"):
        make(ones, gives=ActivationCodes("absmax"))
    with pytest.raises(InputError, match="unknown activation 'glu'"):
        make(ones, activation="glu")
    with pytest.raises(ValueError, match="a weight is none of 8 bits"):
        make(200 * ones)
    with pytest.raises(ValueError, match="70000 inputs of an output, expected at most 65536"):
        make(torch.ones(1, 7000, 10))
    if library() is not None:
        with pytest.raises(ValueError, match=r"input \[2, 9, 4\], expected 3 channels"):
            make(ones)(torch.randn(2, 9, 4))
        with pytest.raises(ValueError, match=r"input of torch.float64, expected float32 or int8"):
            make(ones)(torch.randn(2, 9, 3).double())
        with pytest.raises(ValueError, match="codes as input of a convolution with groups"):
            make(ones, padding=2)(torch.zeros(2, 9, 3, dtype=torch.int8))
