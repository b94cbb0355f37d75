"""Exact sums, against loops over Python's integers."""

import itertools

import pytest
import torch

from espnet_lite.runtime.integer_ops import (
    integer_conv2d,
    integer_depthwise,
    integer_linear,
    integer_matmul,
)

RANGES = {"one_bit": (-1, 1), "eight_bits": (-128, 127)}
LARGEST = {"one_bit": 1, "eight_bits": 128 * 128}


def integers(seed: int, kind: str, *shape: int) -> torch.Tensor:
    low, high = RANGES[kind]
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(low, high + 1, shape, generator=generator)
    return torch.where(values == 0, 1, values) if kind == "one_bit" else values


@pytest.mark.parametrize("kind", RANGES)
def test_linear_and_matmul(kind):
    x, weight = integers(0, kind, 2, 3, 7), integers(1, kind, 5, 7)
    expected = [
        [
            [sum(a * b for a, b in zip(row, column, strict=True)) for column in weight.tolist()]
            for row in rows
        ]
        for rows in x.tolist()
    ]
    found = integer_linear(x.float(), weight.float(), largest=LARGEST[kind])
    assert found.dtype == torch.int32 and found.tolist() == expected
    found = integer_matmul(x.float(), weight.float().T, largest=LARGEST[kind])
    assert found.tolist() == expected


def test_sums_beyond_what_fp32_holds():
    """4099 products of 127 · 127, and one of 1 · 1: 66,112,772 needs 27 bits."""
    x, weight = torch.full((1, 4100), 127.0), torch.full((1, 4100), 127.0)
    x[0, -1] = weight[0, -1] = 1.0
    expected = 4099 * 127 * 127 + 1
    assert integer_linear(x, weight, largest=127 * 127).item() == expected
    assert integer_matmul(x, weight.T, largest=127 * 127).item() == expected
    image, kernel = x.view(1, 4100, 1, 1), weight.view(1, 4100, 1, 1)
    assert integer_conv2d(image, kernel, stride=(1, 1), largest=127 * 127).item() == expected


def test_sums_are_exact_where_torch_multiplies_fp32_in_bf16():
    x, weight = integers(2, "eight_bits", 64, 900), integers(3, "eight_bits", 64, 900)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = integer_linear(x.float(), weight.float(), largest=128 * 128)
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(found.long(), x @ weight.T)


def convolved_by_loop(x, weight, stride, padding, groups):
    """Return the convolution of nested lists; padding is left out of the sums."""
    batch, _, height, width = x.shape
    channels, channels_in_group, kernel_height, kernel_width = weight.shape
    rows = (height + 2 * padding[0] - kernel_height) // stride[0] + 1
    columns = (width + 2 * padding[1] - kernel_width) // stride[1] + 1
    out = torch.zeros(batch, channels, rows, columns, dtype=torch.long)
    for n, c, i, j in itertools.product(range(batch), range(channels), range(rows), range(columns)):
        first = c // (channels // groups) * channels_in_group
        for d, a, b in itertools.product(
            range(channels_in_group), range(kernel_height), range(kernel_width)
        ):
            row, column = i * stride[0] + a - padding[0], j * stride[1] + b - padding[1]
            if 0 <= row < height and 0 <= column < width:
                out[n, c, i, j] += int(x[n, first + d, row, column]) * int(weight[c, d, a, b])
    return out


@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize(
    ("groups", "stride", "padding"), [(1, (2, 2), (0, 0)), (2, (1, 2), (1, 0)), (4, (2, 1), (1, 1))]
)
def test_conv2d(kind, groups, stride, padding):
    x, weight = integers(4, kind, 2, 4, 6, 7), integers(5, kind, 8, 4 // groups, 3, 3)
    found = integer_conv2d(
        x.float(),
        weight.float(),
        stride=stride,
        padding=padding,
        groups=groups,
        largest=LARGEST[kind],
    )
    expected = convolved_by_loop(x, weight, stride, padding, groups)
    assert torch.equal(found.long(), expected)


@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("time", [1, 2, 9])  # shorter than the kernel too
def test_depthwise(kind, stride, time):
    x, weight = integers(6, kind, 2, time, 3), integers(7, kind, 3, 1, 5)
    found = integer_depthwise(x.float(), weight.float(), stride=stride, largest=LARGEST[kind])
    image, kernel = x.transpose(1, 2)[:, :, :, None], weight[:, :, :, None]
    expected = convolved_by_loop(image, kernel, (stride, 1), (2, 0), 3)
    assert found.shape == (2, -(-time // stride), 3)
    assert torch.equal(found.long(), expected.squeeze(3).transpose(1, 2))
