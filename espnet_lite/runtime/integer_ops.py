"""Sums of products of integers, exact, in torch: what a kernel for few bits has to compute.

Integers are held in floating point, where torch is fast on every device: their products and sums are
exact as long as they stay below 2²⁴ in fp32 and 2⁵³ in fp64. Which of the two is needed follows
from the number of products in a sum and the largest one. Codes have at most 8 bits, so that they stay
exact where torch multiplies fp32 in bf16 or TF32 (set_float32_matmul_precision); on other devices
than a CPU sums are fp64 all the same, as not every accelerator adds in full fp32.
"""

import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.nn import functional

_EXACT_IN_FP32 = 2**24


def _exact_type(terms: int, largest: int, device: torch.device) -> torch.dtype:
    """Return the type in which a sum of `terms` products of magnitude up to `largest` is exact."""
    is_small = terms * largest <= _EXACT_IN_FP32
    return torch.float32 if is_small and device.type == "cpu" else torch.float64


def integer_matmul(
    first: Float[Tensor, "*batch n k"], second: Float[Tensor, "*batch2 k m"], *, largest: int
) -> Int32[Tensor, "*batch3 n m"]:
    """Return the matrix product of integers held in floats; leading dimensions as torch.matmul has
    them.

    Args:
        largest: magnitude of a product, e.g. 127 · 128 for two of 8 bits.
    """
    dtype = _exact_type(first.size(-1), largest, first.device)
    return (first.to(dtype) @ second.to(dtype)).to(torch.int32)


def integer_linear(
    x: Float[Tensor, "*batch channels_in"],
    weight: Float[Tensor, "channels channels_in"],
    *,
    largest: int,
) -> Int32[Tensor, "*batch channels"]:
    """Return x · weightᵀ of integers held in floats; `largest` is integer_matmul's."""
    dtype = _exact_type(x.size(-1), largest, x.device)
    return functional.linear(x.to(dtype), weight.to(dtype)).to(torch.int32)


def integer_conv2d(
    x: Float[Tensor, "batch channels_in height width"],
    weight: Float[Tensor, "channels channels_in_group kernel_height kernel_width"],
    *,
    stride: tuple[int, int],
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    largest: int,
) -> Int32[Tensor, "batch channels height_out width_out"]:
    """Return the convolution of integers held in floats; what lies beyond the image counts 0."""
    dtype = _exact_type(weight[0].numel(), largest, x.device)
    x, weight = x.to(dtype), weight.to(dtype)
    sums = functional.conv2d(x, weight, None, stride, padding, groups=groups)
    return sums.round().to(torch.int32)  # an accelerator may convolve by FFT: near, not exact


def integer_depthwise(
    x: Float[Tensor, "batch time channels"],
    weight: Float[Tensor, "channels 1 kernel"],
    *,
    stride: int,
    largest: int,
) -> Int32[Tensor, "batch time_out channels"]:
    """Return each channel convolved over time by its odd kernel, in ceil(time / stride) frames of
    which number i is centred at frame i · stride; what lies beyond the frames counts 0."""
    channels, _, kernel = weight.shape
    convolved = integer_conv2d(
        x.transpose(1, 2).unsqueeze(3),
        weight.unsqueeze(3),
        stride=(stride, 1),
        padding=(kernel // 2, 0),
        groups=channels,
        largest=largest,
    )
    return convolved.squeeze(3).transpose(1, 2)
