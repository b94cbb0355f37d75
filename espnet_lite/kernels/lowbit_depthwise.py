"""Convolution over time, each channel for itself, of integers: in torch, and fused in C++.

    y = activation(acc · (weight_scale · input_scale) + bias)

with acc the integer sums of codes (activation_codes.py) times weights. Frame i of the output is centred at
frame i · stride. What lies beyond the frames, and frames that are not valid, have the code 0.
"""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from espnet_lite.errors import unknown_name
from espnet_lite.kernels.activation_codes import ActivationCodes, QuantizerStruct
from espnet_lite.kernels.library import kernel
from espnet_lite.kernels.lowbit_linear import ACTIVATED, ACTIVATIONS

TAPS = 4  # of a word
LANES = 16  # channels are padded to a multiple of it
MOST_TAPS = 256
_ACTIVATIONS = tuple(name for name in ACTIVATIONS if name != "glu")


class _Depthwise(ctypes.Structure):
    """`Depthwise` of sources/depthwise_frames.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("words", "terms", "scale", "bias")),
        *((name, ctypes.c_int64) for name in ("channels", "padded", "kernel", "stride")),
        *((name, ctypes.c_int32) for name in ("activation", "reserved")),
        ("quantizer", QuantizerStruct),
    )


class _Frames(ctypes.Structure):
    """`Frames` there."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("batch_stride", "frame_stride", "batch", "frames")),
        *(("valid", ctypes.c_void_p), ("out", ctypes.c_void_p), ("frames_out", ctypes.c_int64)),
        ("out_stride", ctypes.c_int64),
    )


ARGUMENTS = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)


class LowBitDepthwise:
    """Called with fp32 (batch, time, channels), returns (batch, ceil(time / stride), channels)."""

    def __init__(
        self,
        weight: Tensor,
        *,
        weight_scale: Tensor,
        bias: Tensor | None,
        codes: ActivationCodes,
        stride: int = 1,
        activation: str = "linear",
    ):
        """Arrange the weights.

        Args:
            weight: (channels, kernel) integers of at most 8 bits; the kernel is odd.
            weight_scale: worth of a weight's 1: fp32, one number or one for each channel.
            bias: (channels,) fp32.
            codes: what the input becomes; not absmax, whose scale would not leave the sum.
            stride: frames from one output to the next.
            activation: linear, relu, swish or gelu.
        """
        channels, taps = weight.shape
        if taps % 2 == 0 or taps > MOST_TAPS:
            raise ValueError(f"kernel of {taps} frames, expected an odd number up to {MOST_TAPS}")
        if codes.kind == "absmax":
            raise ValueError("codes of kind 'absmax', expected a scale that is given")
        if activation not in _ACTIVATIONS:
            raise unknown_name("activation", activation, _ACTIVATIONS)
        if weight.amin() < -128 or weight.amax() > 127:
            raise ValueError("a weight is none of 8 bits")
        self.weight, self.codes, self.stride, self.activation = (
            *(weight.to(torch.int8), codes, stride, activation),
        )
        missing = -channels % LANES
        weight_scale = weight_scale.float().expand(channels)
        bias = torch.zeros(channels) if bias is None else bias.float()
        self._scale = functional.pad(weight_scale * codes.scale, (0, missing)).contiguous()
        self._bias = functional.pad(bias, (0, missing)).contiguous()
        words = functional.pad(self.weight, (0, -taps % TAPS, 0, missing))
        words = words.view(channels + missing, -1, TAPS).transpose(0, 1).contiguous()
        self._words = words.view(torch.int32)
        self._terms = (128 - codes.zero) * words.sum(dim=(0, 2), dtype=torch.int32)
        self._struct = _Depthwise(
            *(x.data_ptr() for x in (self._words, self._terms, self._scale, self._bias)),
            *(channels, channels + missing, taps, stride, ACTIVATIONS.index(activation), 0),
            codes.struct(),
        )

    @property
    def address(self) -> int:
        """Return where `Depthwise` of sources/depthwise_frames.h is, for kernels that have one in them."""
        return ctypes.addressof(self._struct)

    def __call__(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the convolution; `valid` is (batch, time), True for frames that are not padding."""
        function = kernel("lowbit_depthwise", ARGUMENTS)
        return self.reference(x, valid) if function is None else self.fused(function, x, valid)

    def fused(self, function: Callable[..., int], x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the same, computed by the C++ `function` of any level."""
        batch, frames, channels = x.shape
        if channels != len(self.weight) or x.dtype != torch.float32:
            raise ValueError(
                f"{channels} channels of {x.dtype}, expected {len(self.weight)} of float32"
            )
        if x.stride(2) != 1:
            x = x.contiguous()
        if valid is not None:
            if valid.shape != x.shape[:2] or valid.dtype != torch.bool:
                raise ValueError(f"valid {[*valid.shape]}, expected {[batch, frames]} of bool")
            valid = valid.contiguous()
        out = x.new_empty(batch, -(-frames // self.stride), channels)
        if not out.numel():
            return out
        call = _Frames(
            *(x.data_ptr(), x.stride(0), x.stride(1), batch, frames),
            None if valid is None else valid.data_ptr(),
            *(out.data_ptr(), out.size(1), channels),
        )
        if function(
            ctypes.addressof(self._struct), ctypes.addressof(call), torch.get_num_threads()
        ):
            raise MemoryError("no memory for the codes of a convolution")
        return out

    def reference(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the same in torch."""
        codes, _ = self.codes(x)
        if valid is not None:
            codes = codes.masked_fill(~valid[..., None], 0.0)
        channels, taps = self.weight.shape
        sums = functional.conv1d(
            codes.double().transpose(1, 2),
            self.weight.double()[:, None],
            stride=self.stride,
            padding=taps // 2,
            groups=channels,
        )
        y = sums.transpose(1, 2).float() * self._scale[:channels] + self._bias[:channels]
        return ACTIVATED[self.activation](y)
