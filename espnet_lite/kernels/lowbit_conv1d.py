"""Convolution over time of integers: in torch, and fused in C++.

    y = activation(acc · (weight_scale · input_scale) + bias)

with acc the integer sums of codes (activation_codes.py) times weights. Channels are last. What lies beyond
the frames has the code 0. Layers one behind the other hand codes on: the first returns int8 codes
(`gives`), which the next takes instead of floats.
"""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from espnet_lite.errors import unknown_name
from espnet_lite.kernels.activation_codes import ActivationCodes, QuantizerStruct
from espnet_lite.kernels.library import kernel
from espnet_lite.kernels.lowbit_linear import (
    ACTIVATED,
    ACTIVATIONS,
    DEPTH,
    MOST_INPUTS,
    PANEL,
    panels_of_bytes,
)

_ACTIVATIONS = tuple(name for name in ACTIVATIONS if name != "glu")
_OFFSET = 128  # of weights, which are kept as bytes


class _Convolution(ctypes.Structure):
    """`Convolution` of sources/lowbit_conv1d.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("panels", "scale", "bias", "column_terms")),
        *((name, ctypes.c_int64) for name in ("channels", "outputs", "groups")),
        *((name, ctypes.c_int64) for name in ("kernel", "stride", "padding")),
        *((name, ctypes.c_int32) for name in ("activation", "gives_codes")),
        *((name, QuantizerStruct) for name in ("input", "output")),
    )


class _Frames(ctypes.Structure):
    """`Frames` there."""

    _fields_ = (
        *(("x", ctypes.c_void_p), ("codes", ctypes.c_void_p)),
        *(("batch", ctypes.c_int64), ("frames", ctypes.c_int64)),
        *(("out", ctypes.c_void_p), ("out_codes", ctypes.c_void_p)),
        ("frames_out", ctypes.c_int64),
    )


ARGUMENTS = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)


class LowBitConv1d:
    """Called with (batch, time, channels), returns (batch, time_out, outputs): fp32, or int8 codes."""

    def __init__(
        self,
        weight: Tensor,
        *,
        weight_scale: Tensor,
        bias: Tensor | None,
        codes: ActivationCodes,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        activation: str = "linear",
        gives: ActivationCodes | None = None,
    ):
        """Arrange the weights.

        Args:
            weight: (outputs, channels of a group, kernel) integers of at most 8 bits.
            weight_scale: worth of a weight's 1: fp32, one number or one for each output.
            bias: (outputs,) fp32.
            codes: what the input becomes; not absmax, whose scale would not leave the sum.
            stride: frames from one output to the next.
            padding: frames before and behind. The one more that comes out of an even kernel then is
                left out.
            groups: of channels and of outputs.
            activation: linear, relu, swish or gelu.
            gives: the codes that the output becomes; None: it stays as it is.
        """
        self.outputs, of_group, self.kernel = weight.shape
        if self.outputs % groups:
            raise ValueError(f"{self.outputs} outputs, expected a multiple of groups {groups}")
        if any(rule is not None and rule.kind == "absmax" for rule in (codes, gives)):
            raise ValueError("codes of kind 'absmax', expected a scale that is given")
        if activation not in _ACTIVATIONS:
            raise unknown_name("activation", activation, _ACTIVATIONS)
        if weight.amin() < -128 or weight.amax() > 127:
            raise ValueError("a weight is none of 8 bits")
        inputs = weight[0].numel()
        if inputs > MOST_INPUTS:
            raise ValueError(f"{inputs} inputs of an output, expected at most {MOST_INPUTS}")
        self.weight, self.codes, self.gives = weight.to(torch.int8), codes, gives
        self.stride, self.padding, self.groups = stride, padding, groups
        self.activation, self.channels = activation, groups * of_group
        self._scale = weight_scale.float().expand(self.outputs) * codes.scale
        self._bias = torch.zeros(self.outputs) if bias is None else bias.float()
        self._arrange()

    def _arrange(self) -> None:
        """Put what the kernel reads in its order."""
        missing = -(self.outputs // self.groups) % PANEL

        def by_group(x: Tensor) -> Tensor:
            return functional.pad(x.view(self.groups, -1), (0, missing)).flatten().contiguous()

        rows = self.weight.mT.reshape(self.outputs, -1).to(torch.int16) + _OFFSET
        rows = functional.pad(rows.to(torch.uint8), (0, -rows.size(1) % DEPTH))
        rows = functional.pad(rows.unflatten(0, (self.groups, -1)), (0, 0, 0, missing))
        terms = self.codes.zero * self.weight.flatten(1).sum(dim=1, dtype=torch.int32)
        self._kept = (
            panels_of_bytes(rows.flatten(0, 1), 8),
            by_group(self._scale),
            by_group(self._bias),
            by_group(terms),
        )
        self._struct = _Convolution(
            *(x.data_ptr() for x in self._kept),
            *(self.channels // self.groups, self.outputs // self.groups, self.groups),
            *(self.kernel, self.stride, self.padding),
            *(ACTIVATIONS.index(self.activation), int(self.gives is not None)),
            self.codes.struct(),
            (self.gives or self.codes).struct(),
        )
        self._address = ctypes.addressof(self._struct)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the convolution of floats, or of int8 codes that a layer before has given."""
        function = kernel("lowbit_conv1d", ARGUMENTS)
        return self.reference(x) if function is None else self.fused(function, x)

    def fused(self, function: Callable[..., int], x: Tensor) -> Tensor:
        """Return the same, computed by the C++ `function` of any level."""
        has_codes = x.dtype == torch.int8
        if x.ndim != 3 or x.size(-1) != self.channels:
            raise ValueError(f"input {[*x.shape]}, expected {self.channels} channels of frames")
        if not has_codes and x.dtype != torch.float32:
            raise ValueError(f"input of {x.dtype}, expected float32 or int8")
        if has_codes and (self.groups > 1 or self.padding):
            raise ValueError("codes as input of a convolution with groups or padding")
        x = x.contiguous()
        frames = self._frames(x.size(1))
        out = torch.empty(
            *(x.size(0), frames, self.outputs),
            dtype=torch.float32 if self.gives is None else torch.int8,
        )
        if not out.numel():
            return out
        call = _Frames(
            *((None, x.data_ptr()) if has_codes else (x.data_ptr(), None)),
            *(x.size(0), x.size(1)),
            *((out.data_ptr(), None) if self.gives is None else (None, out.data_ptr())),
            frames,
        )
        if function(self._address, ctypes.addressof(call), torch.get_num_threads()):
            raise MemoryError("no memory for the codes of a convolution")
        return out

    def _frames(self, frames: int) -> int:
        """Return the outputs of so many frames."""
        seen = frames + 2 * self.padding - (self.kernel % 2 == 0 and self.padding > 0)
        return max(0, (seen - self.kernel) // self.stride + 1)

    def reference(self, x: Tensor) -> Tensor:
        """Return the same in torch."""
        codes = x.float() + self.codes.zero if x.dtype == torch.int8 else self.codes(x)[0]
        sums = functional.conv1d(
            codes.double().mT,
            self.weight.double(),
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
        )
        sums = sums[:, :, : self._frames(x.size(1))]
        y = sums.mT.float() * self._scale + self._bias
        y = ACTIVATED[self.activation](y)
        if self.gives is None:
            return y
        return (self.gives(y)[0] - self.gives.zero).to(torch.int8)
