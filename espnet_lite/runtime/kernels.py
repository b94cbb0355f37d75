"""A packed model on the kernels of this processor: modules exchanged in place, the same results.

Blocks whose products are all of integers are fused (fused_blocks.py), and so is a front end over the
waveform (fused_waveform.py); what multiplies integers elsewhere is exchanged module by module
(kernel_modules.py); weights of few bits whose input stays floating point are
multiplied in bf16 where the processor has instructions for it, else in fp32. What remains is torch's.
Without a compiler the kernels compute in torch, as runtime.quantized does.
"""

import torch
from torch import nn

from espnet_lite.encoders.waveform import WaveformFrontEnd
from espnet_lite.nn.attention import MultiHeadAttention
from espnet_lite.runtime.fused_blocks import FUSED_BLOCKS
from espnet_lite.runtime.fused_subsampling import FUSED_SUBSAMPLINGS, FusedSubsampling
from espnet_lite.runtime.fused_waveform import FusedWaveformFrontEnd
from espnet_lite.runtime.kernel_modules import (
    FloatWeights,
    KernelConv1d,
    KernelDepthwise,
    KernelDotProduct,
    KernelLinear,
    KernelPositional,
    low_bit_attention,
)
from espnet_lite.runtime.packed_model import PackedModel
from espnet_lite.runtime.quantized import (
    IntegerConv1d,
    IntegerConv2d,
    IntegerDepthwise,
    IntegerDotProduct,
    IntegerLinear,
    IntegerPositional,
)


def use_kernels(model: PackedModel) -> PackedModel:
    """Exchange the modules of `model` in place, and return it."""
    _exchange(model)
    return model


def _exchange(parent: nn.Module) -> None:
    for name, module in list(parent.named_children()):
        fast = _fast(module, parent)
        if fast is not None:
            parent.add_module(name, fast.eval())
        _exchange(module if fast is None else fast)  # what is left as it was, inside


def _fast(module: nn.Module, parent: nn.Module) -> nn.Module | None:
    """Return what takes the place of a module; None: nothing does, but perhaps of what is in it."""
    if type(module) in FUSED_BLOCKS:
        fused = FUSED_BLOCKS[type(module)]
        return fused(module) if fused.fits(module) else None
    if type(module) in FUSED_SUBSAMPLINGS and FusedSubsampling.fits(module):
        return FusedSubsampling(module)
    if isinstance(module, IntegerLinear) and module.has_codes:
        return KernelLinear(module)
    weighted = isinstance(module, IntegerLinear | IntegerConv1d | IntegerConv2d)
    if weighted and module.input is None:
        return FloatWeights(module, _product_type(module))
    if isinstance(module, IntegerDepthwise) and module.has_codes:
        return KernelDepthwise(module)
    if type(module) is WaveformFrontEnd and FusedWaveformFrontEnd.fits(module):
        return FusedWaveformFrontEnd(module)
    if isinstance(module, IntegerConv1d) and module.has_codes:
        return KernelConv1d(module)
    if isinstance(module, IntegerPositional) and module.has_codes:
        return KernelPositional(module)
    if isinstance(module, IntegerDotProduct) and isinstance(parent, MultiHeadAttention):
        product = low_bit_attention(module, parent.heads)
        return None if product is None else KernelDotProduct(product)
    return None


def _product_type(layer: IntegerLinear | IntegerConv1d | IntegerConv2d) -> torch.dtype:
    """Return the type that weights are multiplied in whose input is floating point."""
    is_half = layer.form.activation_bits <= 16 and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if is_half else torch.float32
