"""From floats to the integers that low-bit kernels multiply: the rules, and the same in torch.

The integer contract of docs/packed_format.md: each step is one operation in fp32, rounding is half to
even, and a scale divides (it is not a factor).

| kind | codes | scale |
| --- | --- | --- |
| absmax | round(x / scale), −127 … 127 | max |x| of the row / 127; 1 where that is 0 |
| lsq | round(clip(x / scale, low, high)) | given (LSQ, Esser et al. 2020, 1902.08153) |
| sign | +1 where x − offset ≥ 0, else −1 | given (BiT, Liu et al. 2022, 2205.13016) |
| binary | round(clip((x − offset) / scale, 0, 1)) | given (BiT) |
"""

import ctypes
import math
import struct
from dataclasses import dataclass

import torch
from torch import Tensor

from espnet_lite.errors import unknown_name

KINDS = ("absmax", "lsq", "sign", "binary")  # places are numbers in sources/codes.h
LARGEST_ABSMAX = 127
_SMALLEST_NUMBER = 2.0**-149  # above 0, in fp32


class QuantizerStruct(ctypes.Structure):
    """`Quantizer` of sources/codes.h."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "zero")),
        *((name, ctypes.c_float) for name in ("scale", "low", "high", "threshold")),
    )


@dataclass(frozen=True)
class ActivationCodes:
    """How the input of a product becomes integers.

    Attributes:
        kind: of KINDS.
        scale: worth of a code; not used by absmax.
        offset: of sign and binary.
        low, high: smallest and largest code of lsq, within −128 … 255 and no more than 8 bits.
        sparse: of binary: exactly 0 has the code 0 by any offset.
    """

    kind: str
    scale: float = 1.0
    offset: float = 0.0
    low: int = -127
    high: int = 127
    sparse: bool = False

    def __post_init__(self):
        if self.kind not in KINDS:
            raise unknown_name("kind of codes", self.kind, KINDS)
        if not (0 < self.scale < math.inf and math.isfinite(self.offset)):
            raise ValueError(
                f"scale {self.scale}, offset {self.offset}: expected numbers, scale > 0"
            )
        if self.kind == "lsq" and not (
            -128 <= self.low <= 0 < self.high and self.high - self.low <= 255
        ):
            raise ValueError(f"codes {self.low} … {self.high} are not of 8 bits")

    @property
    def zero(self) -> int:
        """Return what is taken from a code so that it fits into a signed byte."""
        return 128 if self.kind == "lsq" and self.high > 127 else 0

    @property
    def planes(self) -> int:
        """Return the bits of a code where these can be multiplied one by one, else 0."""
        if self.kind in ("sign", "binary"):
            return 1
        return 2 if self.kind == "lsq" and (self.low, self.high) in ((-2, 1), (0, 3)) else 0

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codes of `x` (fp32 integers) and their scale, a number or one for each row."""
        scale = torch.tensor(self.scale)
        if self.kind == "absmax":
            largest = x.abs().amax(dim=-1, keepdim=True)
            scale = largest / LARGEST_ABSMAX
            scale = scale.masked_fill(scale == 0, 1.0)
            return (x / scale).round(), scale
        if self.kind == "lsq":
            return (x / scale).clamp(self.low, self.high).round(), scale
        if self.kind == "sign":
            return torch.where(x - self.offset >= 0, 1.0, -1.0), scale
        codes = ((x - self.offset) / scale).clamp(0, 1).round()
        return codes.masked_fill(x == 0, 0) if self.sparse else codes, scale

    def struct(self) -> QuantizerStruct:
        """Return the rule as the kernels take it."""
        threshold = self.offset
        if self.kind == "binary":
            threshold = _smallest_one(self)
            if self.sparse:  # of what is never below 0
                threshold = max(threshold, _SMALLEST_NUMBER)
        return QuantizerStruct(
            KINDS.index(self.kind), self.zero, self.scale, self.low, self.high, threshold
        )


def _smallest_one(codes: ActivationCodes) -> float:
    """Return the smallest fp32 number whose code is 1.

    Subtraction, division and rounding are monotone in fp32 too, so that one comparison with this
    number is exactly the formula; found by bisection over all fp32 numbers in their order.
    """

    def number(order: int) -> float:
        """Return the fp32 number of a place: 0 is 0, then upwards; below 0 downwards."""
        (value,) = struct.unpack("<f", struct.pack("<I", abs(order)))
        return math.copysign(value, order)

    infinity = 0x7F800000
    low, high = -infinity, infinity  # places of a number whose code is 0, and of one with 1
    while high - low > 1:
        middle = (low + high) // 2
        code, _ = codes(torch.tensor(number(middle)))
        low, high = (low, middle) if code == 1 else (middle, high)
    return number(high)
