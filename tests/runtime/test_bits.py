"""Bits in bytes, against a loop over single bits and bytes worked out by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_lite.runtime.bits import PackedIntegers, pack_integers, unpack_integers, value_range
from espnet_lite.runtime.format import INTEGER_BITS, stored_shape


def bytes_by_loop(row: list[int], bits: int) -> list[int]:
    """docs/packed_format.md, bit by bit."""
    size = -(-len(row) * bits // 8)
    stored = [0] * size
    for index, value in enumerate(row):
        unsigned = (value + 1) // 2 if bits == 1 else value + 2 ** (bits - 1)
        for bit in range(bits):
            place = index * bits + bit
            stored[place // 8] |= (unsigned >> bit & 1) << (place % 8)
    return stored


def test_by_hand():
    one = torch.tensor([[1, -1, -1, 1, 1, 1, -1, -1, 1]])
    assert pack_integers(one, 1).stored.tolist() == [[0b00111001, 0b1]]
    two = torch.tensor([[-2, -1, 0, 1, 1]])
    assert pack_integers(two, 2).stored.tolist() == [[0b11_10_01_00, 0b11]]
    four = torch.tensor([[-8, 7, 0]])
    assert pack_integers(four, 4).stored.tolist() == [[0xF0, 0x08]]
    eight = torch.tensor([[-128, 127]])
    assert pack_integers(eight, 8).stored.tolist() == [[-128, 127]]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(INTEGER_BITS.values())),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
    st.integers(0, 2**31),
)
def test_against_the_loop_and_back(bits, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    low, high = value_range(bits)
    values = torch.randint(low, high + 1, shape, generator=generator)
    if bits == 1:
        values = 2 * values.clamp_min(0) - 1
    packed = pack_integers(values, bits)
    assert packed.encoding == f"int{bits}" and packed.shape == tuple(shape)
    assert packed.numel() == values.numel()
    assert list(packed.stored.shape) == stored_shape(packed.encoding, shape)
    if bits < 8:
        rows = values.reshape(shape[0], -1) if values.numel() else torch.zeros(shape[0], 0)
        expected = [bytes_by_loop(row, bits) for row in rows.int().tolist()]
        assert packed.stored.tolist() == expected
    assert torch.equal(unpack_integers(packed), values.to(torch.int8))


def test_a_slice_of_a_larger_tensor_is_packed_by_its_values():
    values = torch.arange(-8, 8).reshape(4, 4)[:, ::2]
    assert torch.equal(unpack_integers(pack_integers(values, 4)), values.to(torch.int8))


@pytest.mark.parametrize(
    ("values", "bits", "message"),
    [
        ([[0, 1]], 1, "0 is no value of int1"),
        ([[1, 2]], 2, "2 is no value of int2"),
        ([[-9]], 4, "-9 is no value of int4"),
        ([[128]], 8, "128 is no value of int8"),
        ([[1]], 3, "3 bits, expected one of"),
    ],
)
def test_what_is_refused(values, bits, message):
    with pytest.raises(ValueError, match=message):
        pack_integers(torch.tensor(values), bits)


def test_only_integers_with_rows():
    with pytest.raises(ValueError, match=r"float32, shape \[1\]"):
        pack_integers(torch.ones(1), 1)
    with pytest.raises(ValueError, match=r"int64, shape \[\]"):
        pack_integers(torch.tensor(1), 1)


def test_bits_of_an_encoding():
    assert PackedIntegers(torch.zeros(1, 1, dtype=torch.uint8), "int4", (1, 2)).bits == 4
