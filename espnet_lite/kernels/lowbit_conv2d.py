"""Two-dimensional convolution without padding that multiplies integers: in torch, and fused in C++.

    y = activation(acc · (weight_scale · input_scale) + bias)

with acc the integer sums of codes (activation_codes.py) times weights. Images have their channels last. One
convolution can hand the next one its codes: what lies between them then takes a byte and no float.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from espnet_lite.kernels.activation_codes import ActivationCodes
from espnet_lite.kernels.library import kernel
from espnet_lite.kernels.lowbit_linear import ACTIVATED, LowBitLinear


class _Convolution(ctypes.Structure):
    """`Convolution` of sources/lowbit_conv2d.cpp."""

    _fields_ = (
        ("weights", ctypes.c_void_p),
        *(
            (name, ctypes.c_int64)
            for name in ("channels", "kernel_height", "kernel_width", "stride_height")
        ),
        ("stride_width", ctypes.c_int64),
        ("next", ctypes.c_void_p),
    )


class _Image(ctypes.Structure):
    """`Image` there."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "codes", "sums")),
        *((name, ctypes.c_int64) for name in ("batch", "height", "width")),
        *((name, ctypes.c_int64) for name in ("height_out", "width_out")),
        *((name, ctypes.c_void_p) for name in ("out", "out_codes", "out_sums")),
    )


ARGUMENTS = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)


@dataclass(frozen=True)
class ImageCodes:
    """An image as one convolution leaves it to the next.

    Attributes:
        values: int8 (batch, height, width, channels), codes less their rule's `zero`.
        sums: int32 (batch, height, width), of the channels' values.
    """

    values: Tensor
    sums: Tensor


class LowBitConv2d:
    """Called with fp32 (batch, height, width, channels_in), or codes of it, returns fp32 (batch,
    height_out, width_out, channels), or codes for the next convolution."""

    def __init__(
        self,
        weight: Tensor,
        *,
        weight_bits: int | float,
        weight_scale: Tensor,
        bias: Tensor | None,
        codes: ActivationCodes,
        stride: tuple[int, int] = (1, 1),
        activation: str = "linear",
        next_codes: ActivationCodes | None = None,
    ):
        """Arrange the weights.

        Args:
            weight: (channels, channels_in, kernel_height, kernel_width) integers of `weight_bits` bits.
            weight_bits: 1, 1.58, 2, 4 or 8.
            weight_scale: worth of a weight's 1: fp32, one number or one for each channel.
            bias: (channels,) fp32.
            codes: what the input becomes; not absmax, whose scale would not leave the sum.
            stride: from one output to the next, down and to the right.
            activation: linear, relu, swish or gelu.
            next_codes: what the output becomes; None: it stays floating point. Not absmax.
        """
        if activation == "glu":
            raise ValueError("activation 'glu' of a convolution, expected one of each channel")
        if any(rule is not None and rule.kind == "absmax" for rule in (codes, next_codes)):
            raise ValueError("codes of kind 'absmax', expected a scale that is given")
        self.shape, self.stride, self.codes, self.next_codes = (
            *(tuple(weight.shape), stride, codes, next_codes),
        )
        self._linear = LowBitLinear(
            weight.permute(0, 2, 3, 1).flatten(1),
            weight_bits=weight_bits,
            weight_scale=weight_scale,
            bias=bias,
            codes=codes,
            activation=activation,
            engine="bytes",
        )
        self._next = None if next_codes is None else next_codes.struct()
        _, channels_in, *kernel_size = weight.shape
        self._struct = _Convolution(
            self._linear.weights_address,
            *(channels_in, *kernel_size, *stride),
            None if self._next is None else ctypes.addressof(self._next),
        )

    def __call__(self, x: Tensor | ImageCodes) -> Tensor | ImageCodes:
        """Return the convolution of an image."""
        function = kernel("lowbit_conv2d", ARGUMENTS)
        return self.reference(x) if function is None else self.fused(function, x)

    def fused(self, function: Callable[..., int], x: Tensor | ImageCodes) -> Tensor | ImageCodes:
        """Return the same, computed by the C++ `function` of any level."""
        given = x.values if isinstance(x, ImageCodes) else x
        expected = torch.int8 if isinstance(x, ImageCodes) else torch.float32
        channels, channels_in, *kernel_size = self.shape
        if given.dtype != expected or given.ndim != 4 or given.size(3) != channels_in:
            raise ValueError(
                f"image {[*given.shape]} of {given.dtype}, expected {channels_in} channels, {expected}"
            )
        given = given.contiguous()
        batch, height, width, _ = given.shape
        sizes = [
            max((size - taps) // step + 1, 0)
            for size, taps, step in zip((height, width), kernel_size, self.stride, strict=True)
        ]
        shape = (batch, *sizes, channels)
        out = torch.empty(shape, dtype=torch.float32 if self._next is None else torch.int8)
        out_sums = torch.empty(shape[:3] if self._next is not None else 0, dtype=torch.int32)
        if out.numel():
            is_codes = isinstance(x, ImageCodes)
            sums = x.sums.contiguous() if is_codes else None
            if is_codes and (sums.shape != given.shape[:3] or sums.dtype != torch.int32):
                raise ValueError(
                    f"sums {[*sums.shape]} of {sums.dtype}, expected int32 of positions"
                )
            call = _Image(
                None if is_codes else given.data_ptr(),
                given.data_ptr() if is_codes else None,
                sums.data_ptr() if is_codes else None,
                *(batch, height, width, *sizes),
                out.data_ptr() if self._next is None else None,
                None if self._next is None else out.data_ptr(),
                None if self._next is None else out_sums.data_ptr(),
            )
            addresses = ctypes.addressof(self._struct), ctypes.addressof(call)
            if function(*addresses, torch.get_num_threads()):
                raise MemoryError("no memory for the codes of a convolution")
        return out if self._next is None else ImageCodes(out, out_sums)

    def reference(self, x: Tensor | ImageCodes) -> Tensor | ImageCodes:
        """Return the same in torch."""
        _, channels_in, *kernel_size = self.shape
        values = (
            x.values.to(torch.int32) + self.codes.zero
            if isinstance(x, ImageCodes)
            else self.codes(x)[0]
        )
        weight = self._linear.integers().unflatten(1, (*kernel_size, channels_in))
        sums = functional.conv2d(
            values.double().permute(0, 3, 1, 2),
            weight.double().permute(0, 3, 1, 2),
            stride=self.stride,
        )
        scale, bias = self._linear.scale, self._linear.bias
        y = sums.permute(0, 2, 3, 1).float() * (scale * self.codes.scale) + bias
        y = ACTIVATED[self._linear.activation](y)
        if self.next_codes is None:
            return y
        values = self.next_codes(y)[0].to(torch.int32) - self.next_codes.zero
        return ImageCodes(values.to(torch.int8), values.sum(dim=3, dtype=torch.int32))
