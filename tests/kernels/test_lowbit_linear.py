"""Low-bit products of every level that this processor has, against integers multiplied by torch."""

import pytest
import torch
from torch.nn import functional

from espnet_lite.errors import InputError
from espnet_lite.kernels import lowbit_linear
from espnet_lite.kernels.activation_codes import ActivationCodes
from espnet_lite.kernels.library import library
from espnet_lite.kernels.lowbit_linear import ARGUMENTS, WEIGHTS, LowBitLinear, Norm

RULES = {
    "absmax": ActivationCodes("absmax"),
    "8 bits": ActivationCodes("lsq", 1.0, low=-128, high=127),
    "unsigned 8": ActivationCodes("lsq", 1.0, low=0, high=255),
    "4 bits": ActivationCodes("lsq", 1.0, low=-8, high=7),
    "2 bits": ActivationCodes("lsq", 1.0, low=-2, high=1),
    "unsigned 2": ActivationCodes("lsq", 1.0, low=0, high=3),
    "sign": ActivationCodes("sign", 1.0, offset=0.25),
    "binary": ActivationCodes("binary", 1.0, offset=-0.25),
}
# rows, inputs, outputs
SHAPES = [
    (1, 1, 1),
    (1, 64, 16),
    (2, 31, 17),
    (7, 65, 33),
    (33, 130, 50),
    (70, 200, 96),
    (5, 4100, 3),
]


@pytest.fixture
def function(of_level):
    """Return the C function of one level."""
    return of_level("lowbit_linear", ARGUMENTS)


def weights_of(bits: int | float, outputs: int, inputs: int) -> torch.Tensor:
    """Return random integers of so many bits, among them the largest and the smallest."""
    generator = torch.Generator().manual_seed(outputs)
    if bits == 1:
        return 2 * torch.randint(2, (outputs, inputs), generator=generator) - 1
    low = WEIGHTS[bits][0]
    high = 1 if bits == 1.58 else -low - 1
    drawn = torch.randint(low, high + 1, (outputs, inputs), generator=generator)
    drawn[0], drawn[-1] = high, low
    return drawn


def engines(bits: int | float, rule: ActivationCodes) -> list[str]:
    return ["bytes", "bits"] if bits == 1 and rule.planes else ["bytes"]


def inputs_of(rows: int, inputs: int) -> torch.Tensor:
    """Return rows whose own scale is exactly 1: integers are then seen as they are."""
    generator = torch.Generator().manual_seed(rows)
    x = (40 * torch.randn(rows, inputs, generator=generator)).clamp(-127, 127)
    x[:, rows % inputs] = 127.0 * (-1) ** rows
    return x


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
@pytest.mark.parametrize("bits", list(WEIGHTS))
def test_integers_of_every_shape(function, bits, rows, inputs, outputs):
    x, weight = inputs_of(rows, inputs), weights_of(bits, outputs, inputs)
    for rule in RULES.values():
        codes, _ = rule(x)
        expected = functional.linear(codes.double(), weight.double()).float()
        for engine in engines(bits, rule):
            linear = LowBitLinear(
                weight,
                weight_bits=bits,
                weight_scale=torch.tensor(1.0),
                bias=None,
                codes=rule,
                engine=engine,
            )
            assert linear.integers().equal(weight.to(torch.int8))
            assert linear.fused(function, x).equal(expected), (rule, engine)
            assert linear.reference(x).equal(expected)


@pytest.mark.parametrize("bits", list(WEIGHTS))
def test_the_largest_magnitudes_do_not_saturate(function, bits):
    low, _ = WEIGHTS[bits]
    high = 1 if bits < 2 else -low - 1
    weight = torch.tensor([[low], [high]]).expand(2, 4096).contiguous()
    x = torch.tensor([[-1e9], [1e9]]).expand(2, 4096).contiguous()
    for name in ("8 bits", "unsigned 8", "4 bits"):
        rule = RULES[name]
        codes, _ = rule(x)
        linear = LowBitLinear(
            weight, weight_bits=bits, weight_scale=torch.tensor(1.0), bias=None, codes=rule
        )
        expected = functional.linear(codes.double(), weight.double()).float()
        assert linear.fused(function, x).equal(expected)


@pytest.mark.parametrize("activation", lowbit_linear.ACTIVATIONS)
@pytest.mark.parametrize("rule", ["absmax", "sign", "unsigned 2", "unsigned 8"])
def test_what_is_fused_before_and_behind(function, activation, rule):
    """LayerNorm, scales, bias, activation and residual, in float64; 52 is not a multiple of 16."""
    torch.manual_seed(1)
    rows, inputs, outputs = 19, 90, 52
    x = torch.randn(rows, 2 * inputs)[:, 3 : 3 + inputs]  # rows that are not side by side
    weight, scale = weights_of(1, outputs, inputs), 0.1 * torch.rand(outputs) + 0.01
    bias, norm = torch.randn(outputs), Norm(torch.randn(inputs), torch.randn(inputs))
    residual = torch.randn(rows, outputs // 2 if activation == "glu" else outputs)
    normed = functional.layer_norm(x, (inputs,), norm.weight, norm.bias)
    codes, input_scale = RULES[rule](normed)
    y = functional.linear(codes.double(), weight.double()) * scale * input_scale + bias
    after = {"relu": functional.relu, "swish": functional.silu, "gelu": functional.gelu}
    after |= {"linear": lambda y: y, "glu": functional.glu}
    expected = (residual + 0.5 * after[activation](y)).float()
    for engine in engines(1, RULES[rule]):
        linear = LowBitLinear(
            weight,
            weight_bits=1,
            weight_scale=scale,
            bias=bias,
            codes=RULES[rule],
            activation=activation,
            norm=norm,
            engine=engine,
        )
        for found in (
            linear.fused(function, x, residual, factor=0.5),
            linear.reference(x, residual, factor=0.5),
        ):
            # A value on the edge of two codes may fall on either side after LayerNorm.
            differ = (found - expected).abs() > 1e-4 + 1e-4 * expected.abs()
            assert differ.float().mean() < 0.02
            torch.testing.assert_close(found, expected, atol=0.3, rtol=0.1)


def test_absmax_codes_are_those_of_a_division(function):
    """Each code is seen through a weight of 1; halves of a scale are where factors would differ."""
    generator = torch.Generator().manual_seed(2)
    largest = 10 ** (20 * torch.rand(300, 1, generator=generator) - 10)
    steps = torch.arange(-127, 128, dtype=torch.float32) / 2
    x = torch.cat([largest / 127 * steps, largest], dim=1)
    x[0] = 0.0
    weight = torch.eye(256, dtype=torch.int64)
    linear = LowBitLinear(
        weight,
        weight_bits=1.58,
        weight_scale=torch.tensor(1.0),
        bias=None,
        codes=ActivationCodes("absmax"),
    )
    codes, scale = linear.codes(x)
    assert (linear.fused(function, x) / scale).round().equal(codes)


def test_a_row_that_is_only_scaled_and_shifted(function):
    norm = Norm(torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1.0, 0.0, -3.0]), None)
    linear = LowBitLinear(
        torch.eye(3, dtype=torch.int64),
        weight_bits=2,
        weight_scale=torch.tensor(1.0),
        bias=None,
        codes=RULES["8 bits"],
        norm=norm,
    )
    x = torch.tensor([[4.0, 5.0, 6.0]])
    assert linear.fused(function, x).tolist() == linear.reference(x).tolist() == [[9, -5, 0]]


def test_threads_and_batches_change_nothing(function):
    x, weight = torch.randn(2, 3, 41, 70), weights_of(4, 80, 70)
    linear = LowBitLinear(
        weight,
        weight_bits=4,
        weight_scale=torch.rand(80),
        bias=torch.randn(80),
        codes=ActivationCodes("absmax"),
    )
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(linear.fused(function, x))
    finally:
        torch.set_num_threads(before)
    assert found[0].shape == (2, 3, 41, 80)
    assert found[0].equal(found[1]) and found[0].equal(found[2])
    assert linear.fused(function, x[:, :, :0]).shape == (2, 3, 0, 80)
    assert linear.fused(function, x[1, 2, 7:8]).equal(found[0][1, 2, 7:8])


def test_without_a_kernel_torch_computes_the_same(monkeypatch):
    linear = LowBitLinear(
        weights_of(2, 20, 30),
        weight_bits=2,
        weight_scale=torch.rand(20),
        bias=None,
        codes=ActivationCodes("absmax"),
    )
    x = torch.randn(9, 30)
    fast = linear(x)
    monkeypatch.setattr(lowbit_linear, "kernel", lambda name, arguments: None)
    torch.testing.assert_close(linear(x), fast)


def test_packed_weights_take_their_bits():
    for bits, stored in ((1, 1), (1.58, 2), (2, 2), (4, 4), (8, 8)):
        linear = LowBitLinear(
            weights_of(bits, 32, 128),
            weight_bits=bits,
            weight_scale=torch.tensor(1.0),
            bias=None,
            codes=ActivationCodes("absmax"),
        )
        assert linear.bytes == 32 * 128 * stored // 8


def make(weight, **changed) -> LowBitLinear:
    given = {"weight_bits": 1, "weight_scale": torch.tensor(1.0), "bias": None}
    return LowBitLinear(weight, **{**given, "codes": ActivationCodes("absmax"), **changed})


def test_bad_arguments():
    ones = torch.ones(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="a weight is none of 1 bits"):
        make(0 * ones)
    with pytest.raises(ValueError, match=r"a weight is none of 1.58 bits"):
        make(-2 * ones, weight_bits=1.58)
    with pytest.raises(ValueError, match="weights of 3 bits, expected one of"):
        make(ones, weight_bits=3)
    with pytest.raises(InputError, match=r"unknown activation 'gelo' .did you mean 'gelu'"):
        make(ones, activation="gelo")
    with pytest.raises(InputError, match=r"unknown engine 'bit' .did you mean 'bits'"):
        make(ones, engine="bit")
    with pytest.raises(ValueError, match="have no product of bits"):
        make(ones, engine="bits")
    with pytest.raises(ValueError, match="70000 inputs, expected at most 65536"):
        make(torch.ones(1, 70000, dtype=torch.int64))
    if library() is not None:
        with pytest.raises(ValueError, match="4 inputs, expected 3"):
            make(ones)(torch.randn(2, 4))
        with pytest.raises(ValueError, match=r"input of torch.float64, expected float32"):
            make(ones)(torch.randn(2, 3).double())
