"""Blocks of encoders with what lies between their products fused into them.

Each takes the place of a block all of whose Linears multiply integers, and computes what it does: the
LayerNorm before a Linear, its activation and the residual behind it are done by the kernel that
multiplies, and Linears of one input with the same codes are one product.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from espnet_lite.encoders.conformer import ConformerBlock
from espnet_lite.encoders.sparseformer import SparseformerBlock
from espnet_lite.encoders.squeezeformer import ScaledModule, SqueezeformerBlock
from espnet_lite.kernels.lowbit_linear import Norm
from espnet_lite.nn.attention import MultiHeadAttention
from espnet_lite.nn.convolution import ConvolutionModule
from espnet_lite.nn.feed_forward import ACTIVATIONS, FeedForward
from espnet_lite.nn.relative_attention import RelativeAttention
from espnet_lite.nn.transformer_block import PostNormBlock, PreNormBlock
from espnet_lite.runtime.kernel_modules import (
    are_one,
    key_valid,
    low_bit_attention,
    low_bit_depthwise,
    low_bit_linear,
    multiplies_codes,
    relative_positions,
)
from espnet_lite.runtime.quantized import (
    IntegerDepthwise,
    IntegerDotProduct,
    IntegerLinear,
    IntegerRelativeDotProduct,
)

_NAMES = {cls: name for name, cls in ACTIVATIONS.items()}


def norm_of(layer: nn.LayerNorm) -> Norm:
    """Return a LayerNorm as the kernels take it."""
    return Norm(layer.weight.data, layer.bias.data, layer.eps)


def affine_of(module: ScaledModule) -> Norm:
    """Return the scale and bias before a module as the kernels take them."""
    return Norm(module.scale.data, module.bias.data, None)


class Projections:
    """Linears of one input, as few products as their codes allow."""

    def __init__(self, layers: Sequence[IntegerLinear], norm: Norm | None):
        groups = [layers] if are_one(layers) else [[layer] for layer in layers]
        self.products = [low_bit_linear(group, norm=norm) for group in groups]
        self.sizes = [len(layer.weight) for layer in layers]

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        """Return the output of each."""
        if len(self.products) == 1:
            return self.products[0](x).split(self.sizes, dim=-1)
        return [product(x) for product in self.products]


class FusedFeedForward:
    """residual + factor · feed-forward(norm(x))."""

    def __init__(self, module: FeedForward, norm: Norm | None):
        activation = _NAMES[type(module.activation)]
        self.expand = low_bit_linear([module.expand], activation=activation, norm=norm)
        self.contract = low_bit_linear([module.contract])

    @staticmethod
    def fits(module: FeedForward) -> bool:
        """Return whether all of it multiplies integers."""
        return multiplies_codes(module.expand, module.contract)

    def __call__(self, x: Tensor, residual: Tensor, *, factor: float = 1.0) -> Tensor:
        """Return the sum."""
        return self.contract(self.expand(x), residual, factor=factor)


class FusedAttention:
    """residual + attention(norm(x)), over the whole utterance or a window."""

    def __init__(self, module: MultiHeadAttention, norm: Norm | None):
        self.heads = module.heads
        self.projections = Projections([module.query, module.key, module.value], norm)
        self.product = low_bit_attention(module.dot_product, module.heads)
        self.out = low_bit_linear([module.out])

    @staticmethod
    def fits(module: MultiHeadAttention) -> bool:
        """Return whether all of it multiplies integers that the kernel knows."""
        return (
            multiplies_codes(module.query, module.key, module.value, module.out)
            and isinstance(module.dot_product, IntegerDotProduct)
            and low_bit_attention(module.dot_product, module.heads) is not None
        )

    def __call__(
        self, x: Tensor, residual: Tensor, mask: Tensor | None, rotation: Tensor | None
    ) -> Tensor:
        """Return the sum; arguments are MultiHeadAttention's."""
        query, key, value = (
            each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in self.projections(x)
        )
        valid = key_valid(mask, len(x))
        mixed = self.product(query, key, value, valid, rotation=rotation)
        return self.out(mixed.transpose(1, 2).flatten(-2), residual)


class FusedRelativeAttention:
    """residual + attention(norm(x)) with relative positions."""

    def __init__(self, module: RelativeAttention, norm: Norm | None):
        self.module = module
        self.projections = Projections([module.query, module.key, module.value], norm)
        self.position = low_bit_linear([module.position])
        self.product = low_bit_attention(module.dot_product, module.heads)
        self.out = low_bit_linear([module.out])
        self.projected = torch.empty(0, 0)  # the positions of the last utterance's length

    @staticmethod
    def fits(module: RelativeAttention) -> bool:
        """Return whether all of it multiplies integers that the kernel knows."""
        layers = (module.query, module.key, module.value, module.position, module.out)
        return (
            multiplies_codes(*layers)
            and isinstance(module.dot_product, IntegerRelativeDotProduct)
            and low_bit_attention(module.dot_product, module.heads) is not None
        )

    def __call__(
        self, x: Tensor, residual: Tensor, positions: Tensor, valid: Tensor | None
    ) -> Tensor:
        """Return the sum; `positions` are those of as many frames as `x` has."""
        projected = self.projected  # by another thread it may be replaced meanwhile
        if len(projected) != len(positions):
            projected = self.projected = self.position(positions)
        query, key, value = (self.module.split(each) for each in self.projections(x))
        relative = relative_positions(self.module, projected)
        mixed = self.product(query, key, value, valid, relative=relative)
        return self.out(mixed.transpose(1, 2).flatten(-2), residual)


class FusedConvolution:
    """residual + convolution(norm(x)): BatchNorm is in the scales of the depthwise convolution."""

    def __init__(self, module: ConvolutionModule, norm: Norm | None):
        gate = "glu" if isinstance(module.gate, nn.GLU) else _NAMES[type(module.gate)]
        self.pointwise_in = low_bit_linear([module.pointwise_in], activation=gate, norm=norm)
        statistics = module.norm
        scale = (statistics.running_var + statistics.epsilon).rsqrt() * statistics.weight.data
        self.depthwise = low_bit_depthwise(
            module.depthwise,
            scale=scale,
            shift=statistics.bias.data - statistics.running_mean * scale,
            activation=_NAMES[type(module.activation)],
        )
        self.pointwise_out = low_bit_linear([module.pointwise_out])

    @staticmethod
    def fits(module: ConvolutionModule) -> bool:
        """Return whether all of it multiplies integers."""
        depthwise = module.depthwise
        return (
            multiplies_codes(module.pointwise_in, module.pointwise_out)
            and isinstance(depthwise, IntegerDepthwise)
            and depthwise.has_codes
        )

    def __call__(self, x: Tensor, residual: Tensor, valid: Tensor | None) -> Tensor:
        """Return the sum; `valid` is True for frames that are not padding, None: all."""
        return self.pointwise_out(self.depthwise(self.pointwise_in(x), valid), residual)


class FusedPreNormBlock(nn.Module):
    """In the place of a PreNormBlock."""

    def __init__(self, block: PreNormBlock):
        super().__init__()
        self.attention = FusedAttention(block.attention, norm_of(block.attention_norm))
        self.feed_forward = FusedFeedForward(block.feed_forward, norm_of(block.feed_forward_norm))

    @staticmethod
    def fits(block: PreNormBlock) -> bool:
        """Return whether all of it can be fused."""
        return FusedAttention.fits(block.attention) and FusedFeedForward.fits(block.feed_forward)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, rotation: Tensor | None = None
    ) -> Tensor:
        """Return the block's output."""
        x = self.attention(x, x, mask, rotation)
        return self.feed_forward(x, x)


class FusedPostNormBlock(nn.Module):
    """In the place of a PostNormBlock."""

    def __init__(self, block: PostNormBlock):
        super().__init__()
        self.attention = FusedAttention(block.attention, None)
        self.feed_forward = FusedFeedForward(block.feed_forward, None)
        self.attention_norm, self.feed_forward_norm = block.attention_norm, block.feed_forward_norm

    fits = FusedPreNormBlock.fits

    def forward(
        self, x: Tensor, mask: Tensor | None = None, rotation: Tensor | None = None
    ) -> Tensor:
        """Return the block's output."""
        x = self.attention_norm(self.attention(x, x, mask, rotation))
        return self.feed_forward_norm(self.feed_forward(x, x))


class FusedConformerBlock(nn.Module):
    """In the place of a ConformerBlock."""

    def __init__(self, block: ConformerBlock):
        super().__init__()
        self.first = FusedFeedForward(
            block.first_feed_forward, norm_of(block.first_feed_forward_norm)
        )
        self.attention = FusedRelativeAttention(block.attention, norm_of(block.attention_norm))
        self.convolution = FusedConvolution(block.convolution, norm_of(block.convolution_norm))
        self.second = FusedFeedForward(
            block.second_feed_forward, norm_of(block.second_feed_forward_norm)
        )
        self.norm = block.norm

    @staticmethod
    def fits(block: ConformerBlock) -> bool:
        """Return whether all of it can be fused."""
        return (
            FusedFeedForward.fits(block.first_feed_forward)
            and FusedRelativeAttention.fits(block.attention)
            and FusedConvolution.fits(block.convolution)
            and FusedFeedForward.fits(block.second_feed_forward)
        )

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the block's output."""
        x = self.first(x, x, factor=0.5)
        x = self.attention(x, x, positions, valid)
        x = self.convolution(x, x, valid)
        return self.norm(self.second(x, x, factor=0.5))


class FusedSqueezeformerBlock(nn.Module):
    """In the place of a SqueezeformerBlock."""

    def __init__(self, block: SqueezeformerBlock):
        super().__init__()
        parts = (
            block.attention,
            block.first_feed_forward,
            block.convolution,
            block.second_feed_forward,
        )
        self.norms = nn.ModuleList(part.norm for part in parts)
        self.attention = FusedRelativeAttention(parts[0].module, affine_of(parts[0]))
        self.first = FusedFeedForward(parts[1].module, affine_of(parts[1]))
        self.convolution = FusedConvolution(parts[2].module, affine_of(parts[2]))
        self.second = FusedFeedForward(parts[3].module, affine_of(parts[3]))

    @staticmethod
    def fits(block: SqueezeformerBlock) -> bool:
        """Return whether all of it can be fused."""
        return (
            FusedRelativeAttention.fits(block.attention.module)
            and FusedFeedForward.fits(block.first_feed_forward.module)
            and FusedConvolution.fits(block.convolution.module)
            and FusedFeedForward.fits(block.second_feed_forward.module)
        )

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the block's output."""
        after_attention, after_first, after_convolution, after_second = self.norms
        x = after_attention(self.attention(x, x, positions, valid))
        x = after_first(self.first(x, x))
        x = after_convolution(self.convolution(x, x, valid))
        return after_second(self.second(x, x))


# A block's class, itself and not what it is derived from → what takes its place.
FUSED_BLOCKS: dict[type[nn.Module], type[nn.Module]] = {
    PreNormBlock: FusedPreNormBlock,
    SparseformerBlock: FusedPreNormBlock,
    PostNormBlock: FusedPostNormBlock,
    ConformerBlock: FusedConformerBlock,
    SqueezeformerBlock: FusedSqueezeformerBlock,
}
