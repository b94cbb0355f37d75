"""Blocks of encoders as one call of a kernel each (kernels.lowbit_block).

Each takes the place of a block all of whose Linears multiply integers, and computes what it does: the
LayerNorm before a Linear, its activation and the residual behind it are done by the kernel that
multiplies, and Linears of one input with the same codes are one product.
"""

import torch
from torch import Tensor, nn

from espnet_lite.encoders.conformer import ConformerBlock
from espnet_lite.encoders.sparseformer import SparseformerBlock
from espnet_lite.encoders.squeezeformer import ScaledModule, SqueezeformerBlock
from espnet_lite.kernels.lowbit_block import Attend, Convolve, LowBitBlock, Normalize, Product, Step
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


# Steps of the parts of blocks. Each makes output = stream + factor · module(norm(stream)); `stream` is
# "input" for the first part of a block, "output" for those behind it.


def feed_forward_steps(
    module: FeedForward, norm: Norm | None, stream: str, *, factor: float = 1.0
) -> list[Step]:
    """Return the steps of a feed-forward module."""
    activation = _NAMES[type(module.activation)]
    expand = low_bit_linear([module.expand], activation=activation, norm=norm)
    contract = low_bit_linear([module.contract])
    return [
        Product(expand, stream, "own"),
        Product(contract, "own", "output", residual=stream, factor=factor),
    ]


def attention_steps(
    module: MultiHeadAttention | RelativeAttention, norm: Norm | None, stream: str
) -> list[Step]:
    """Return the steps of self-attention, over the whole utterance, a window, or with relative
    positions."""
    layers = [module.query, module.key, module.value]
    groups = [layers] if are_one(layers) else [[layer] for layer in layers]
    steps: list[Step] = []
    column = 0
    for group in groups:
        product = low_bit_linear(group, norm=norm)
        steps.append(Product(product, stream, "wide", column=column))
        column += product.results
    biases = {}
    if isinstance(module, RelativeAttention):
        biases["content_bias"] = module.content_bias.data.contiguous()
        biases["position_bias"] = module.position_bias.data.contiguous()
    attention = low_bit_attention(module.dot_product, module.heads)
    assert attention is not None
    head_dim = len(module.query.weight) // module.heads
    steps.append(Attend(attention, head_dim, **biases))
    steps.append(Product(low_bit_linear([module.out]), "mixed", "output", residual=stream))
    return steps


def convolution_steps(module: ConvolutionModule, norm: Norm | None, stream: str) -> list[Step]:
    """Return the steps of a convolution module: BatchNorm is in the scales of the depthwise one."""
    gate = "glu" if isinstance(module.gate, nn.GLU) else _NAMES[type(module.gate)]
    statistics = module.norm
    scale = (statistics.running_var + statistics.epsilon).rsqrt() * statistics.weight.data
    depthwise = low_bit_depthwise(
        module.depthwise,
        scale=scale,
        shift=statistics.bias.data - statistics.running_mean * scale,
        activation=_NAMES[type(module.activation)],
    )
    return [
        Product(low_bit_linear([module.pointwise_in], activation=gate, norm=norm), stream, "wide"),
        Convolve(depthwise),
        Product(low_bit_linear([module.pointwise_out]), "mixed", "output", residual=stream),
    ]


def feed_forward_fits(module: FeedForward) -> bool:
    """Return whether all of a feed-forward module multiplies integers."""
    return multiplies_codes(module.expand, module.contract)


def attention_fits(module: MultiHeadAttention | RelativeAttention) -> bool:
    """Return whether all of an attention multiplies integers that the kernel knows."""
    layers = [module.query, module.key, module.value, module.out]
    is_relative = isinstance(module, RelativeAttention)
    return (
        multiplies_codes(*layers, *([module.position] if is_relative else []))
        and isinstance(
            module.dot_product, IntegerRelativeDotProduct if is_relative else IntegerDotProduct
        )
        and low_bit_attention(module.dot_product, module.heads) is not None
    )


def convolution_fits(module: ConvolutionModule) -> bool:
    """Return whether all of a convolution module multiplies integers."""
    depthwise = module.depthwise
    return (
        multiplies_codes(module.pointwise_in, module.pointwise_out)
        and isinstance(depthwise, IntegerDepthwise)
        and depthwise.has_codes
    )


class ProjectedPositions:
    """The relative positions that a block projects: those of the last utterance's length are kept."""

    def __init__(self, layer: IntegerLinear):
        self.product = low_bit_linear([layer])
        self.kept = torch.empty(0, 0)

    def __call__(self, positions: Tensor) -> Tensor:
        """Return them projected; `positions` are those of a number of frames, always the same."""
        kept = self.kept  # by another thread it may be replaced meanwhile
        if len(kept) != len(positions):
            kept = self.kept = self.product(positions)
        return kept


class FusedPreNormBlock(nn.Module):
    """In the place of a PreNormBlock."""

    def __init__(self, block: PreNormBlock):
        super().__init__()
        attention_norm = norm_of(block.attention_norm)
        feed_forward_norm = norm_of(block.feed_forward_norm)
        steps = attention_steps(block.attention, attention_norm, "input")
        steps += feed_forward_steps(block.feed_forward, feed_forward_norm, "output")
        self.block = LowBitBlock(steps, dim=len(attention_norm.weight))

    @staticmethod
    def fits(block: PreNormBlock) -> bool:
        """Return whether all of it can be fused."""
        return attention_fits(block.attention) and feed_forward_fits(block.feed_forward)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, rotation: Tensor | None = None
    ) -> Tensor:
        """Return the block's output."""
        return self.block(x, key_valid(mask, len(x)), rotation=rotation)


class FusedPostNormBlock(nn.Module):
    """In the place of a PostNormBlock."""

    def __init__(self, block: PostNormBlock):
        super().__init__()
        steps = attention_steps(block.attention, None, "input")
        steps.append(Normalize(norm_of(block.attention_norm)))
        steps += feed_forward_steps(block.feed_forward, None, "output")
        steps.append(Normalize(norm_of(block.feed_forward_norm)))
        self.block = LowBitBlock(steps, dim=len(block.attention_norm.weight))

    fits = FusedPreNormBlock.fits
    forward = FusedPreNormBlock.forward


class FusedConformerBlock(nn.Module):
    """In the place of a ConformerBlock."""

    def __init__(self, block: ConformerBlock):
        super().__init__()
        first_norm = norm_of(block.first_feed_forward_norm)
        second_norm = norm_of(block.second_feed_forward_norm)
        self.positions = ProjectedPositions(block.attention.position)
        self.block = LowBitBlock(
            [
                *feed_forward_steps(block.first_feed_forward, first_norm, "input", factor=0.5),
                *attention_steps(block.attention, norm_of(block.attention_norm), "output"),
                *convolution_steps(block.convolution, norm_of(block.convolution_norm), "output"),
                *feed_forward_steps(block.second_feed_forward, second_norm, "output", factor=0.5),
                Normalize(norm_of(block.norm)),
            ],
            dim=len(first_norm.weight),
        )

    @staticmethod
    def fits(block: ConformerBlock) -> bool:
        """Return whether all of it can be fused."""
        return (
            feed_forward_fits(block.first_feed_forward)
            and attention_fits(block.attention)
            and convolution_fits(block.convolution)
            and feed_forward_fits(block.second_feed_forward)
        )

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the block's output."""
        return self.block(x, valid, positions=self.positions(positions))


class FusedSqueezeformerBlock(nn.Module):
    """In the place of a SqueezeformerBlock."""

    def __init__(self, block: SqueezeformerBlock):
        super().__init__()
        steps: list[Step] = []
        stream = "input"
        for part, steps_of in (
            (block.attention, attention_steps),
            (block.first_feed_forward, feed_forward_steps),
            (block.convolution, convolution_steps),
            (block.second_feed_forward, feed_forward_steps),
        ):
            steps += steps_of(part.module, affine_of(part), stream)
            steps.append(Normalize(norm_of(part.norm)))
            stream = "output"
        self.positions = ProjectedPositions(block.attention.module.position)
        self.block = LowBitBlock(steps, dim=len(block.attention.scale))

    @staticmethod
    def fits(block: SqueezeformerBlock) -> bool:
        """Return whether all of it can be fused."""
        return (
            attention_fits(block.attention.module)
            and feed_forward_fits(block.first_feed_forward.module)
            and convolution_fits(block.convolution.module)
            and feed_forward_fits(block.second_feed_forward.module)
        )

    forward = FusedConformerBlock.forward


# A block's class, itself and not what it is derived from → what takes its place.
FUSED_BLOCKS: dict[type[nn.Module], type[nn.Module]] = {
    PreNormBlock: FusedPreNormBlock,
    SparseformerBlock: FusedPreNormBlock,
    PostNormBlock: FusedPostNormBlock,
    ConformerBlock: FusedConformerBlock,
    SqueezeformerBlock: FusedSqueezeformerBlock,
}
