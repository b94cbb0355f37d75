"""Integers of few bits in bytes: the weights of a packed file.

A weight of n output channels is n rows, one for each channel, of its other dimensions one behind the
other (row-major). A row begins at a byte; element i of it stands in byte i·bits // 8, the first
element in the lowest bits. What is left of a row's last byte is 0.

| encoding | values | a byte holds | stored as | safetensors |
| --- | --- | --- | --- | --- |
| int1 | −1, +1 | 8 | (value + 1) / 2 | U8 (rows, bytes of a row) |
| int2 | −2 … 1 | 4 | value + 2 | U8 (rows, bytes of a row) |
| int4 | −8 … 7 | 2 | value + 8 | U8 (rows, bytes of a row) |
| int8 | −128 … 127 | 1 | value, two's complement | I8 of the weight's shape |

Ternary weights (1.58 bits) are int2 that hold no −2.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int8
from torch import Tensor
from torch.nn import functional

from espnet_lite.runtime.format import INTEGER_BITS


def value_range(bits: int) -> tuple[int, int]:
    """Return the smallest and the largest value of an encoding; int1 has only these two."""
    return (-1, 1) if bits == 1 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@dataclass(frozen=True)
class PackedIntegers:
    """A weight as it stands in the file.

    Attributes:
        stored: int8 of the weight's shape (int8), or uint8 (rows, bytes of a row).
        encoding: int1, int2, int4 or int8.
        shape: of the weight.
    """

    stored: Tensor
    encoding: str
    shape: tuple[int, ...]

    @property
    def bits(self) -> int:
        """Return the bits of a value."""
        return INTEGER_BITS[self.encoding]

    @property
    def nbytes(self) -> int:
        """Return the bytes in the file."""
        return self.stored.nbytes

    def numel(self) -> int:
        """Return the number of values."""
        return torch.Size(self.shape).numel()


def pack_integers(values: Tensor, bits: int) -> PackedIntegers:
    """Return integer `values` (rows, ...) packed.

    Raises:
        ValueError: bits other than 1, 2, 4, 8; no rows; a value that is none of so many bits.
    """
    if bits not in INTEGER_BITS.values():
        raise ValueError(f"{bits} bits, expected one of {list(INTEGER_BITS.values())}")
    if values.ndim == 0 or values.is_floating_point():
        raise ValueError(f"values of {values.dtype}, shape {list(values.shape)}: expected integers")
    low, high = value_range(bits)
    outside = (values < low) | (values > high)
    if bits == 1:
        outside |= values == 0
    if outside.any():
        raise ValueError(f"{int(values[outside][0])} is no value of int{bits}")
    encoding, shape = f"int{bits}", tuple(values.shape)
    if bits == 8:
        return PackedIntegers(values.to(torch.int8).contiguous(), encoding, shape)
    rows = values.flatten(1) if values.ndim > 1 else values[:, None]
    unsigned = (rows > 0).to(torch.uint8) if bits == 1 else (rows - low).to(torch.uint8)
    in_a_byte = 8 // bits
    unsigned = functional.pad(unsigned, (0, -unsigned.size(1) % in_a_byte))
    shifted = unsigned.unflatten(1, (-1, in_a_byte)) << _shifts(bits, values.device)
    return PackedIntegers(shifted.sum(dim=2, dtype=torch.uint8), encoding, shape)


def unpack_integers(packed: PackedIntegers) -> Int8[Tensor, "*shape"]:
    """Return the values of a packed weight."""
    if packed.bits == 8:
        return packed.stored
    shifted = packed.stored[..., None] >> _shifts(packed.bits, packed.stored.device)
    elements = torch.Size(packed.shape[1:]).numel()
    unsigned = (shifted & (2**packed.bits - 1)).flatten(1)[:, :elements].to(torch.int8)
    values = 2 * unsigned - 1 if packed.bits == 1 else unsigned + value_range(packed.bits)[0]
    return values.reshape(packed.shape)


def _shifts(bits: int, device: torch.device) -> Tensor:
    return torch.arange(0, 8, bits, dtype=torch.uint8, device=device)
