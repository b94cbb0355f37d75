"""The modules of a packed model on the kernels for few bits: each computes what the module of
runtime.quantized does whose place it takes, integers exactly, the rest up to rounding."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from espnet_lite.kernels.activation_codes import ActivationCodes
from espnet_lite.kernels.lowbit_attention import LowBitAttention
from espnet_lite.kernels.lowbit_conv1d import LowBitConv1d
from espnet_lite.kernels.lowbit_conv2d import LowBitConv2d
from espnet_lite.kernels.lowbit_depthwise import LowBitDepthwise
from espnet_lite.kernels.lowbit_linear import WEIGHTS, LowBitLinear, Norm
from espnet_lite.runtime.activations import PackedActivation
from espnet_lite.runtime.quantized import (
    IntegerConv1d,
    IntegerConv2d,
    IntegerDepthwise,
    IntegerDotProduct,
    IntegerLinear,
    IntegerPositional,
    IntegerRelativeDotProduct,
)


def codes_of(quantizer: PackedActivation) -> list[ActivationCodes]:
    """Return the rules of a quantizer, one for each of its scales."""
    form = quantizer.form
    low, high = form.range
    if form.quantizer == "absmax":
        return [ActivationCodes("absmax")]
    scales = quantizer.scale.tolist()
    if form.quantizer == "lsq":
        return [ActivationCodes("lsq", scale, low=low, high=high) for scale in scales]
    kind = "sign" if form.signed else "binary"
    return [
        ActivationCodes(kind, scale, offset=offset, sparse=form.sparse)
        for scale, offset in zip(scales, quantizer.offset.tolist(), strict=True)
    ]


def codes_of_heads(quantizer: PackedActivation, heads: int) -> list[ActivationCodes]:
    """Return the rule of each head."""
    rules = codes_of(quantizer)
    return rules * heads if len(rules) == 1 else rules


def multiplies_codes(*layers: nn.Module) -> bool:
    """Return whether all are Linears that multiply integers by integers."""
    return all(isinstance(layer, IntegerLinear) and layer.has_codes for layer in layers)


def low_bit_linear(
    layers: Sequence[IntegerLinear],
    *,
    activation: str = "linear",
    norm: Norm | None = None,
    order: Tensor | None = None,
) -> LowBitLinear:
    """Return Linears of one input, whose codes and bits are the same, as one; their outputs lie side by
    side. With `order` it takes its inputs in another order: input i is number order[i] of the layers'."""
    first = layers[0]
    (codes,) = codes_of(first.input)
    biases = [
        torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers
    ]
    weight = torch.cat([layer.weight for layer in layers])
    return LowBitLinear(
        weight if order is None else weight[:, order],
        weight_bits=_kernel_bits(first),
        weight_scale=torch.cat([layer.weight_scale for layer in layers]),
        bias=torch.cat(biases),
        codes=codes,
        activation=activation,
        norm=norm,
    )


def _kernel_bits(layer: IntegerLinear | IntegerConv2d) -> int | float:
    """Return the bits of a layer's weights as the kernels keep them."""
    bits = layer.form.weight_bits
    return bits if bits in WEIGHTS else layer.form.stored_bits


def are_one(layers: Sequence[IntegerLinear]) -> bool:
    """Return whether `low_bit_linear` can join Linears of one input."""
    kinds = {(*codes_of(layer.input), layer.form.weight_bits) for layer in layers}
    return len(kinds) == 1


class KernelLinear(nn.Module):
    """In the place of an IntegerLinear of codes."""

    def __init__(self, layer: IntegerLinear):
        super().__init__()
        self.product = low_bit_linear([layer])

    def forward(self, x: Float[Tensor, "*batch dim_in"]) -> Float[Tensor, "*batch dim_out"]:
        """Return what the layer makes of `x`."""
        return self.product(x)


class KernelDepthwise(nn.Module):
    """In the place of an IntegerDepthwise of codes."""

    def __init__(self, layer: IntegerDepthwise):
        super().__init__()
        self.product = low_bit_depthwise(layer)

    def forward(
        self,
        x: Float[Tensor, "batch time channels"],
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time_out channels"]:
        """Return ceil(time / stride) frames; what is not valid adds exactly 0."""
        return self.product(x, valid)


def low_bit_depthwise(
    layer: IntegerDepthwise,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "linear",
) -> LowBitDepthwise:
    """Return the convolution, its output times `scale` plus `shift` of each channel."""
    (codes,) = codes_of(layer.input)
    channels = len(layer.weight)
    bias = torch.zeros(channels) if layer.bias is None else layer.bias
    scale = torch.ones(channels) if scale is None else scale
    return LowBitDepthwise(
        layer.weight[:, 0],
        weight_scale=layer.weight_scale * scale,
        bias=bias * scale + (0.0 if shift is None else shift),
        codes=codes,
        stride=layer.stride,
        activation=activation,
    )


def low_bit_conv2d(
    layer: IntegerConv2d, *, activation: str = "linear", before: IntegerConv2d | None = None
) -> LowBitConv2d:
    """Return the convolution of images with channels last; where it comes `before` another one, it
    leaves that one's codes."""
    (codes,) = codes_of(layer.input)
    return LowBitConv2d(
        layer.weight,
        weight_bits=_kernel_bits(layer),
        weight_scale=layer.weight_scale,
        bias=layer.bias,
        codes=codes,
        stride=layer.options["stride"],
        activation=activation,
        next_codes=None if before is None else codes_of(before.input)[0],
    )


def convolves_codes(*layers: nn.Module) -> bool:
    """Return whether all are convolutions of images, not by groups, that multiply integers by integers."""
    return all(
        isinstance(layer, IntegerConv2d) and layer.has_codes and layer.options["groups"] == 1
        for layer in layers
    )


def low_bit_conv1d(
    layer: IntegerConv1d, *, activation: str = "linear", gives: ActivationCodes | None = None
) -> LowBitConv1d:
    """Return the convolution of frames, channels last."""
    (codes,) = codes_of(layer.input)
    return LowBitConv1d(
        layer.weight,
        weight_scale=layer.weight_scale,
        bias=layer.bias,
        codes=codes,
        stride=layer.options["stride"],
        groups=layer.options["groups"],
        activation=activation,
        gives=gives,
    )


class KernelConv1d(nn.Module):
    """In the place of an IntegerConv1d of codes."""

    def __init__(self, layer: IntegerConv1d):
        super().__init__()
        self.product = low_bit_conv1d(layer)

    def forward(
        self, x: Float[Tensor, "batch channels_in time_in"]
    ) -> Float[Tensor, "batch channels time_out"]:
        """Return what the layer makes of `x`."""
        return self.product(x.mT).mT


class KernelPositional(nn.Module):
    """In the place of an IntegerPositional of codes."""

    def __init__(self, layer: IntegerPositional):
        super().__init__()
        (codes,) = codes_of(layer.input)
        self.product = LowBitConv1d(
            layer.weight,
            weight_scale=layer.weight_scale,
            bias=layer.bias,
            codes=codes,
            padding=layer.options["padding"],
            groups=layer.options["groups"],
            activation="gelu",
        )

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        """Return what is to be added to `x`."""
        return self.product(x)


def low_bit_attention(
    layer: IntegerDotProduct | IntegerRelativeDotProduct, heads: int
) -> LowBitAttention | None:
    """Return the products of attention, None where the kernel does not know their codes: those of 8
    bits without sign, and probabilities whose exact 0 is not the code 0."""
    operands = layer.form.operands
    names = ["query", "key", "value", "probabilities"]
    is_local = isinstance(layer, IntegerDotProduct)
    if not is_local:
        names += ["position_query", "positions"]
    rules = {name: codes_of_heads(layer.get_submodule(name), heads) for name in names}
    of_zero = [codes(torch.zeros(1))[0].item() for codes in rules["probabilities"]]
    if any(of_zero) or any(codes.zero for each in rules.values() for codes in each):
        return None
    assert operands.value.quantizer != "absmax"
    return LowBitAttention(
        **rules,
        window=layer.window if is_local else None,
        global_tokens=layer.global_tokens if is_local else 0,
    )


class KernelDotProduct(nn.Module):
    """In the place of an IntegerDotProduct; a query that may see no key gets zeros."""

    def __init__(self, product: LowBitAttention):
        super().__init__()
        self.product = product

    def forward(
        self,
        query: Float[Tensor, "batch heads queries head_dim"],
        key: Float[Tensor, "batch heads keys head_dim"],
        value: Float[Tensor, "batch heads keys head_dim"],
        mask: Bool[Tensor, "#batch #heads #queries keys"] | None = None,
    ) -> Float[Tensor, "batch heads queries head_dim"]:
        """Return the mixed values; `mask` is one of keys."""
        return self.product(query, key, value, key_valid(mask, len(query)))


class FloatWeights(nn.Module):
    """In the place of a layer whose weights are integers and whose input stays floating point: its weights
    as they count, once and for all, in bf16 where the processor multiplies that."""

    def __init__(self, layer: IntegerLinear | IntegerConv1d | IntegerConv2d, dtype: torch.dtype):
        super().__init__()
        weight = layer.weight.float()
        if layer.weight_scale is not None:
            weight = weight * layer.weight_scale.view(-1, *(1,) * (weight.ndim - 1))
        self.register_buffer("weight", weight.to(dtype))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.to(dtype))
        self.product, self.options = nn.functional.linear, {}
        if not isinstance(layer, IntegerLinear):
            is_flat = isinstance(layer, IntegerConv1d)
            self.product = nn.functional.conv1d if is_flat else nn.functional.conv2d
            self.options = layer.options

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape_out"]:
        """Return what the layer makes of `x`, in fp32."""
        y = self.product(x.to(self.weight.dtype), self.weight, self.bias, **self.options)
        return y.float()


def key_valid(mask: Tensor | None, batch: int) -> Tensor | None:
    """Return (batch, keys), True where a key may be seen, of a mask (batch or 1, 1, 1, keys)."""
    return None if mask is None else mask[:, 0, 0].expand(batch, -1)
