"""Static quantizers of a few bits in one pass, forward and backward, on a CPU.

Plain torch takes five to ten passes over an activation for each; in training with one bit that is more
time than the products themselves. What is computed is what quantize.quantizers has in torch, values to
the bit; on other devices, and without a compiler, that is what runs.
"""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from espnet_lite.kernels.library import kernel

KINDS = {"sign": 0, "unit": 1, "sparse_unit": 2, "steps": 3}  # as in sources/fake_quantize.cpp
_TYPES = (torch.float32, torch.bfloat16)
_PART = 4096  # numbers whose gradients are summed together, as in the source


class _Shape(ctypes.Structure):
    """As `Shape` in sources/fake_quantize.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("outer", "groups", "inner", "kind")),
        ("low", ctypes.c_float),
        ("high", ctypes.c_float),
    )


_FORWARD = (*(ctypes.c_void_p,) * 5, *(ctypes.c_int,) * 3)
_BACKWARD = (*(ctypes.c_void_p,) * 7, *(ctypes.c_int,) * 3)


@dataclass
class FakeQuantizer:
    """What is computed for one tensor.

    Attributes:
        kind: one of KINDS.
        scale: fp32; one, or one for each group, with the axes of what is quantized behind the first.
        threshold: the same of what steps have not, or None.
        low, high: codes of steps.
    """

    kind: str
    scale: Tensor
    threshold: Tensor | None = None
    low: float | int = 0
    high: float | int = 1

    def values(self, x: Tensor, dtype: torch.dtype) -> Tensor | None:
        """Return codes · scale in `dtype`; None where the kernel does not do it."""
        function = self._kernel("fake_quantize", _FORWARD, x, dtype)
        if function is None:
            return None
        rows, shape, restore = self._laid_out(x)
        y = torch.empty(rows.shape, dtype=dtype)
        scale, threshold = self._numbers()
        failed = function(
            *(rows.data_ptr(), y.data_ptr(), scale.data_ptr()),
            None if threshold is None else threshold.data_ptr(),
            *(ctypes.addressof(shape), rows.dtype == torch.bfloat16, dtype == torch.bfloat16),
            torch.get_num_threads(),
        )
        return None if failed else restore(y)

    def gradients(self, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return the gradients of x, scale and threshold; None where the kernel does not do it.

        The scale's is without LSQ's factor.
        """
        function = self._kernel("fake_quantize_gradients", _BACKWARD, x, gradient.dtype)
        if function is None:
            return None
        rows, shape, restore = self._laid_out(x)
        gradient = (gradient.transpose(1, 2) if _is_transposed(x) else gradient).contiguous()
        of_x = torch.empty(rows.shape, dtype=rows.dtype)
        parts = -(-shape.inner // _PART)
        sums = torch.zeros(shape.outer, shape.groups, parts, 2, dtype=torch.float64)
        scale, threshold = self._numbers()
        failed = function(
            *(rows.data_ptr(), gradient.data_ptr(), of_x.data_ptr(), scale.data_ptr()),
            None if threshold is None else threshold.data_ptr(),
            *(sums.data_ptr(), ctypes.addressof(shape)),
            *(rows.dtype == torch.bfloat16, gradient.dtype == torch.bfloat16),
            torch.get_num_threads(),
        )
        if failed:
            return None
        of_scale, of_threshold = sums.sum(dim=(0, 2)).float().unbind(dim=-1)
        shaped = self.scale.shape
        return restore(of_x), of_scale.view(shaped), of_threshold.view(shaped)

    @staticmethod
    def _kernel(name: str, arguments: tuple[type, ...], x: Tensor, dtype: torch.dtype):
        """Return the C function, None for what it does not take."""
        if x.device.type != "cpu" or x.dtype not in _TYPES or dtype not in _TYPES:
            return None
        if torch.compiler.is_compiling() or not x.numel():
            return None
        return kernel(name, arguments)

    def _numbers(self) -> tuple[Tensor, Tensor | None]:
        threshold = self.threshold
        return (
            self.scale.detach().float().contiguous(),
            None if threshold is None else threshold.detach().float().contiguous(),
        )

    def _laid_out(self, x: Tensor):
        """Return x, or its second and third axis exchanged, as it lies in memory without gaps; the sizes
        of that; and what exchanges the axes again."""
        groups = self.scale.numel()
        is_transposed = _is_transposed(x)
        rows = x.transpose(1, 2) if is_transposed else x.contiguous()
        # The axis of groups is the first of the scale's: of x the first, or behind the batch.
        behind = self.scale.ndim - 1 if groups > 1 else 0
        if groups == 1:
            sizes = (1, 1, rows.numel())
        elif is_transposed:  # (batch, time, heads, head_dim)
            sizes = (rows.shape[:2].numel(), groups, rows.size(3))
        else:
            inner = x.shape[x.ndim - behind :].numel()
            sizes = (x.numel() // (groups * inner), groups, inner)
        shape = _Shape(*sizes, KINDS[self.kind], self.low, self.high)
        return rows, shape, (lambda y: y.transpose(1, 2)) if is_transposed else (lambda y: y)


def _is_transposed(x: Tensor) -> bool:
    """Return whether x is (batch, heads, time, head_dim) that lies as (batch, time, heads, head_dim)."""
    return x.ndim == 4 and not x.is_contiguous() and x.transpose(1, 2).is_contiguous()
