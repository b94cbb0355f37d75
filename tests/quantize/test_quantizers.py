"""Codes, values and gradients of every quantizer, against hand-worked cases and slow loops."""

import math

import pytest
import torch

from espnet_lite.quantize.quantizers import (
    ACTIVATION_QUANTIZERS,
    TERNARY_BITS,
    WEIGHT_QUANTIZERS,
    AbsmaxActivation,
    AbsmaxWeight,
    BitActivation,
    BitWeight,
    LsqActivation,
    LsqWeight,
    TernaryWeight,
    least_squares_scale,
)

WEIGHTS = [(name, bits) for name, cls in WEIGHT_QUANTIZERS.items() for bits in cls.BITS]
ACTIVATIONS = [
    (name, bits, signed)
    for name, cls in ACTIVATION_QUANTIZERS.items()
    for bits in cls.BITS
    for signed in (True, False)
]


def bit_activation(*, alpha: float, beta: float, signed: bool, sparse: bool = False):
    quantizer = BitActivation(bits=1, signed=signed, sparse=sparse)
    quantizer.scale_start.fill_(alpha)
    quantizer.shift.data.fill_(beta / alpha)
    return quantizer


def gradients(quantizer, values: list[float]) -> list[tuple[float, float, float]]:
    """Return (∂y/∂x, ∂y/∂α, ∂y/∂β) at each value, from α = start · factor and β = start · shift."""
    found = []
    for value in values:
        quantizer.zero_grad()
        x = torch.tensor([value], requires_grad=True)
        quantizer(x).backward()
        start = quantizer.scale_start.item()
        found.append(
            (
                x.grad.item(),
                quantizer.scale_factor.grad.item() / start,
                quantizer.shift.grad.item() / start,
            )
        )
    return found


def test_signs_of_activations_and_their_gradients_by_hand():
    quantizer = bit_activation(alpha=0.5, beta=0.25, signed=True)
    values = [-1.0, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0]  # x − β: −1.25 −.5 −.25 0 .25 .5 .75
    y = quantizer(torch.tensor(values))
    assert y.tolist() == [-0.5, -0.5, -0.5, 0.5, 0.5, 0.5, 0.5]  # sign(0) is +1
    expected = [
        *((0, -1, 0), (1, -1, -1), (1, -1, -1), (1, 1, -1), (1, 1, -1), (1, 1, -1), (0, 1, 0))
    ]
    assert gradients(quantizer, values) == expected


def test_zero_and_one_and_their_gradients_by_hand():
    quantizer = bit_activation(alpha=2.0, beta=0.5, signed=False)
    values = [0.0, 0.5, 1.0, 1.25, 1.5, 2.0, 2.5, 4.0]  # u = −.25 0 .25 .375 .5 .75 1 1.75
    y = quantizer(torch.tensor(values))
    assert y.tolist() == [0, 0, 0, 0, 0, 2, 2, 2]  # half to even: u = ½ is 0
    assert gradients(quantizer, values) == [
        (0, 0, 0),  # below β
        (1, 0, -1),
        (1, -0.25, -1),  # (β − x)/α
        (1, -0.375, -1),
        (1, 0.5, -1),  # 1 − (x − β)/α
        (1, 0.25, -1),
        (0, 1, 0),  # from β + α on
        (0, 1, 0),
    ]


def test_steps_and_their_gradients_by_hand():
    quantizer = LsqActivation(bits=2, signed=True)  # −2 … 1
    quantizer.scale_start.fill_(0.5)
    values = torch.tensor([-2.0, -1.0, -0.7, -0.25, 0.0, 0.2, 0.3, 0.5, 3.0], requires_grad=True)
    y = quantizer(values)  # u = −4 −2 −1.4 −.5 0 .4 .6 1 6
    assert y.tolist() == [-1, -1, -0.5, 0, 0, 0, 0.5, 0.5, 0.5]  # round(−½) is 0
    weights = torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8, 9])
    (y * weights).sum().backward()
    inside = torch.tensor([0, 0, 1, 1, 1, 1, 1, 0, 0])
    assert torch.equal(values.grad, weights * inside)
    of_scale = torch.tensor([-2, -2, 0.4, 0.5, 0, -0.4, 0.4, 1, 1])
    expected = (of_scale * weights).sum() / math.sqrt(9 * 1) * 0.5  # ∂s/∂factor = start
    assert quantizer.scale_factor.grad.item() == pytest.approx(expected.item(), rel=1e-6)


def test_steps_without_negative_codes():
    quantizer = LsqActivation(bits=2, signed=False)  # 0 … 3
    quantizer.scale_start.fill_(1.0)
    x = torch.tensor([-1.0, 0.0, 0.5, 1.5, 2.6, 9.0])
    assert quantizer.codes(x).codes.tolist() == [0, 0, 0, 2, 3, 3]


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_one_bit_weights_by_a_loop(granularity):
    weight = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.5]])
    codes = BitWeight(bits=1, granularity=granularity, channels=2).codes(weight)
    # W − mean: −1 0 1; −1 .5 .5
    assert codes.codes.tolist() == [[-1, 1, 1], [-1, 1, 1]]
    expected = [2.0, 2 / 3] if granularity == "channel" else [8 / 6, 8 / 6]
    values = codes.scale.expand(2, 1).flatten()
    torch.testing.assert_close(values, torch.tensor(expected))


def test_ternary_weights_by_hand():
    weight = torch.tensor([[0.3, -0.3, 0.2, -0.8]])  # mean |W| = .4: .75 −.75 .5 −2
    codes = TernaryWeight(bits=TERNARY_BITS, granularity="channel", channels=1).codes(weight)
    assert codes.codes.tolist() == [[1, -1, 0, -1]]
    assert codes.scale.item() == pytest.approx(0.4)


def test_absmax_by_token_and_of_weights():
    x = torch.tensor([[1.2, -2.0, 0.5], [0.0, 0.0, 0.0]])
    codes = AbsmaxActivation(bits=8, signed=True).codes(x)
    assert codes.codes.tolist() == [[76, -127, 32], [0, 0, 0]]  # 76.2 and 31.75
    torch.testing.assert_close(codes.scale.flatten(), torch.tensor([2 / 127, 1.0]))
    codes = AbsmaxWeight(bits=4, granularity="channel", channels=2).codes(x)
    assert codes.codes.tolist() == [[4, -7, 2], [0, 0, 0]]  # 4.2 and 1.75


@pytest.mark.parametrize(("name", "bits"), WEIGHTS)
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_weights_are_codes_times_scale_and_gradients_pass(name, bits, granularity):
    torch.manual_seed(0)
    weight = torch.randn(5, 3, 4, requires_grad=True)
    quantizer = WEIGHT_QUANTIZERS[name](bits=bits, granularity=granularity, channels=5)
    quantizer.start(weight)
    values, codes = quantizer(weight), quantizer.codes(weight)
    assert torch.equal(values, codes.values())
    assert codes.scale.shape == ((5, 1, 1) if granularity == "channel" else (1, 1, 1))
    lowest, highest = (-1, 1) if bits < 2 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert lowest <= codes.codes.min() and codes.codes.max() <= highest
    assert bits != 1 or set(codes.codes.flatten().tolist()) == {-1, 1}
    gradient = torch.randn_like(values)
    values.backward(gradient)
    if name != "lsq":
        assert torch.equal(weight.grad, gradient)


@pytest.mark.parametrize(("name", "bits", "signed"), ACTIVATIONS)
@pytest.mark.parametrize("groups", [1, 3])
def test_activations_are_codes_times_scale(name, bits, signed, groups):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 4)
    x = x if signed else x.relu()
    quantizer = ACTIVATION_QUANTIZERS[name](bits=bits, signed=signed, groups=groups)
    quantizer.starting = True
    quantizer(x)
    quantizer.starting = False
    if name == "bit":
        quantizer.shift.data.uniform_(-0.5, 0.5)
    codes = quantizer.codes(x)
    assert torch.equal(quantizer(x), codes.values())
    assert quantizer(x).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quantizer(x), codes.values().bfloat16())
    if not quantizer.IS_DYNAMIC and groups == 3:
        alone = ACTIVATION_QUANTIZERS[name](bits=bits, signed=signed)
        alone.starting = True
        alone(x[:, 1:2])
        torch.testing.assert_close(alone.scale_start[0], quantizer.scale_start[1])


@pytest.mark.parametrize("name", ["bit", "lsq"])
def test_exact_zeros_of_sparse_inputs_count_as_nothing(name):
    quantizer = ACTIVATION_QUANTIZERS[name](
        bits=1 if name == "bit" else 4, signed=False, sparse=True
    )
    x = torch.tensor([0.2, 0.0, 0.6, 0.0])
    quantizer.start(x)
    without = quantizer.scale_start.clone()
    quantizer.start(x[x != 0])
    assert torch.equal(quantizer.scale_start, without)
    if name == "bit":
        assert without.item() == pytest.approx(0.6)  # 0.2 → 0, 0.6 → 0.6: squared error .04
        quantizer.shift.data.fill_(-2.0)  # all above the threshold, 0 too
    assert quantizer.codes(x).codes[1] == quantizer.codes(x).codes[3] == 0
    assert quantizer(x)[1] == 0 and torch.equal(quantizer(x), quantizer.codes(x).values())


def test_values_keep_gradients_of_bf16_inputs():
    x = torch.randn(7, 6, dtype=torch.bfloat16, requires_grad=True)
    for name, bits, signed in ACTIVATIONS:
        quantizer = ACTIVATION_QUANTIZERS[name](bits=bits, signed=signed)
        quantizer.starting = True
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = quantizer(x)
        y.float().sum().backward()
        assert y.dtype == x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(("low", "high"), [(-2, 1), (-8, 7), (0, 3), (-128, 127)])
def test_first_scale_is_the_best_of_a_fine_grid_within_a_little(low, high):
    torch.manual_seed(1)
    rows = torch.randn(2, 3000) * torch.tensor([[1.0], [20.0]])
    rows = rows.abs() if low == 0 else rows
    scales = least_squares_scale(rows, low=low, high=high)

    def error(row, scale):
        return (row - (row / scale).round().clamp(low, high) * scale).square().mean().item()

    for row, scale in zip(rows, scales, strict=True):
        grid = row.abs().max() / high * torch.logspace(-2.5, 0.5, 300)
        best = min(error(row, candidate) for candidate in grid)
        assert error(row, scale) <= 1.1 * best
    torch.testing.assert_close(scales[1] / scales[0], torch.tensor(20.0), rtol=0.2, atol=0)


@pytest.mark.parametrize(("name", "bits"), WEIGHTS)
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers_are_seen(name, bits, granularity, value):
    """Their own output is not finite; only a step size that is learned clips what is infinite."""
    quantizer = WEIGHT_QUANTIZERS[name](bits=bits, granularity=granularity, channels=2)
    weight = torch.tensor([[0.5, -0.25, 1.0], [0.25, -1.0, 0.5]])
    quantizer.start(weight)
    weight[1, 0] = value
    is_clipped = name == "lsq" and math.isinf(value)
    assert quantizer(weight)[1, 0].isfinite() == is_clipped


@pytest.mark.parametrize(("name", "bits", "signed"), ACTIVATIONS)
def test_activations_that_are_nan_stay_nan(name, bits, signed):
    quantizer = ACTIVATION_QUANTIZERS[name](bits=bits, signed=signed)
    if not quantizer.IS_DYNAMIC:
        quantizer.scale_start.fill_(0.5)
    for sign in (1, -1):
        assert quantizer(torch.tensor([0.5, sign * math.nan]))[1].isnan()


def test_weights_of_nothing_but_zeros_stay_zeros():
    for name, bits in WEIGHTS:
        quantizer = WEIGHT_QUANTIZERS[name](bits=bits, granularity="channel", channels=2)
        quantizer.start(torch.zeros(2, 3))
        assert not quantizer(torch.zeros(2, 3)).any(), name


def test_learned_numbers_have_one_axis_so_that_no_weight_decay_shrinks_them():
    for cls in (LsqWeight,):
        names = dict(cls(bits=4, granularity="channel", channels=5).named_parameters())
        assert {parameter.ndim for parameter in names.values()} == {1}
    for cls in (BitActivation, LsqActivation):
        quantizer = cls(bits=cls.BITS[0], signed=True, groups=4)
        assert {parameter.ndim for parameter in quantizer.parameters()} == {1}
