"""The first layer of a front end over waveforms: convolution, norm of each channel over time, GELU.

The norm is never computed from the convolution's output, which is a hundred times as large as the waveform:
the output is linear in the waveform's windows, so that mean and covariance of these, in fp64, tell mean and
variance of every channel, and the norm becomes a scale and a shift.
"""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from espnet_lite.kernels.activation_codes import ActivationCodes, QuantizerStruct
from espnet_lite.kernels.library import kernel

LANES = 16  # channels are padded to a multiple of it


class _Layer(ctypes.Structure):
    """`Layer` of sources/waveform_convolution.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "scale", "shift")),
        *((name, ctypes.c_int64) for name in ("channels", "padded", "kernel", "stride")),
        *((name, ctypes.c_int32) for name in ("gives_codes", "reserved")),
        ("output", QuantizerStruct),
    )


class _Waveform(ctypes.Structure):
    """`Waveform` there."""

    _fields_ = (
        *(("x", ctypes.c_void_p), ("x_stride", ctypes.c_int64), ("batch", ctypes.c_int64)),
        *(("out", ctypes.c_void_p), ("out_codes", ctypes.c_void_p), ("frames", ctypes.c_int64)),
    )


ARGUMENTS = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)


class NormedConvolution:
    """Called with waveforms (batch, samples) and their lengths, returns (batch, frames, channels), fp32
    or int8 codes."""

    def __init__(
        self,
        weight: Tensor,
        *,
        stride: int,
        norm_weight: Tensor,
        norm_bias: Tensor,
        epsilon: float,
        weight_scale: Tensor | None = None,
        codes: ActivationCodes | None = None,
        gives: ActivationCodes | None = None,
    ):
        """Arrange the weights.

        Args:
            weight: (channels, kernel), fp32, or integers of at most 8 bits beside codes of the input:
                their sums are then exact.
            stride: samples from one frame to the next.
            norm_weight, norm_bias: (channels,), behind the norm.
            epsilon: added to the variance.
            weight_scale: worth of a weight's 1: (channels,); None: 1.
            codes: what the waveform becomes; None: it stays as it is.
            gives: the codes that the output becomes; None: it stays as it is.
        """
        for rule in (codes, gives):
            if rule is not None and rule.kind == "absmax":
                raise ValueError("codes of kind 'absmax', expected a scale that is given")
        self.channels, self.kernel = weight.shape
        self.stride, self.epsilon, self.codes, self.gives = stride, epsilon, codes, gives
        self.weight = weight.float()
        self._norm = norm_weight.double(), norm_bias.double()
        worth = torch.ones(1) if weight_scale is None else weight_scale.float()
        worth = worth if codes is None else worth * codes.scale
        self._worth = worth.double().expand(self.channels)
        self._missing = -self.channels % LANES
        self._taps = functional.pad(self.weight.T, (0, self._missing)).contiguous()

    def __call__(self, waveform: Tensor, frames: Tensor) -> Tensor:
        """Return the layer's output; `frames` (batch,) are those of each that count in its norm."""
        function = kernel("waveform_convolution", ARGUMENTS)
        if function is None:
            return self.reference(waveform, frames)
        return self.fused(function, waveform, frames)

    def fused(self, function: Callable[..., int], waveform: Tensor, frames: Tensor) -> Tensor:
        """Return the same, computed by the C++ `function` of any level."""
        if waveform.ndim != 2 or waveform.dtype != torch.float32:
            raise ValueError(
                f"waveform {[*waveform.shape]} of {waveform.dtype}, expected 2 of float32"
            )
        x = self._samples(waveform).contiguous()
        count = max(0, (x.size(1) - self.kernel) // self.stride + 1)
        out = torch.empty(
            *(len(x), count, self.channels),
            dtype=torch.float32 if self.gives is None else torch.int8,
        )
        if not out.numel():
            return out
        scale, shift = (
            functional.pad(each, (0, self._missing)) for each in self._affine(x, frames)
        )
        layer = _Layer(
            *(self._taps.data_ptr(), scale.data_ptr(), shift.data_ptr()),
            *(self.channels, self.channels + self._missing, self.kernel, self.stride),
            *(int(self.gives is not None), 0),
            (self.gives or ActivationCodes("absmax")).struct(),
        )
        call = _Waveform(
            *(x.data_ptr(), x.stride(0), len(x)),
            *((out.data_ptr(), None) if self.gives is None else (None, out.data_ptr())),
            count,
        )
        function(ctypes.addressof(layer), ctypes.addressof(call), torch.get_num_threads())
        return out

    def _samples(self, waveform: Tensor) -> Tensor:
        """Return what is multiplied: samples, or their codes in fp32."""
        return waveform if self.codes is None else self.codes(waveform)[0]

    def _affine(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return (batch, channels) scale and shift that bring sums of products to the norm's output."""
        scales, shifts = [], []
        weight = self.weight.double()
        for samples, count in zip(x, frames.tolist(), strict=True):
            mean, variance = torch.zeros(2, self.channels, dtype=torch.float64)
            if count > 0:
                windows = samples.double().unfold(0, self.kernel, self.stride)[:count]
                center = windows.mean(dim=0)
                centered = windows - center
                covariance = centered.T @ centered / count
                mean = weight @ center
                variance = ((weight @ covariance) * weight).sum(dim=1)
            deviation = (variance * self._worth.square() + self.epsilon).sqrt()
            scales.append(self._norm[0] * self._worth / deviation)
            shifts.append(self._norm[1] - mean * scales[-1])
        return torch.stack(scales).float(), torch.stack(shifts).float()

    def reference(self, waveform: Tensor, frames: Tensor) -> Tensor:
        """Return the same in torch, the norm as that of the convolution's output."""
        x = self._samples(waveform)
        y = functional.conv1d(
            x[:, None].double(), self.weight.double()[:, None], stride=self.stride
        )
        y = y.mT * self._worth
        valid = (torch.arange(y.size(1)) < frames[:, None])[..., None]
        count = frames.clamp_min(1)[:, None, None]
        y = y - torch.where(valid, y, 0.0).sum(dim=1, keepdim=True) / count
        variance = torch.where(valid, y.square(), 0.0).sum(dim=1, keepdim=True) / count
        y = y * (variance + self.epsilon).rsqrt() * self._norm[0] + self._norm[1]
        y = functional.gelu(y).float()
        if self.gives is None:
            return y
        return (self.gives(y)[0] - self.gives.zero).to(torch.int8)
