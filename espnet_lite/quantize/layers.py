"""Layers that multiply quantized weights with quantized activations, in the place of plain ones.

Each takes over the parameters of the layer it replaces, under their old names: a checkpoint of a
quantized model holds the latent weights where the plain model has its own, and beside them what the
quantizers learned. Biases, norms and softmax stay as they are. Without a quantizer for weights or for
activations that side is left in floating point.

In evaluation without gradients, in fp32, sums of codes are exact, by the functions that run a packed
file (runtime.products): the network that training validates is the one that is packed, to the last bit.
"""

import dataclasses
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from espnet_lite.nn.attention import DotProductAttention
from espnet_lite.nn.convolution import DepthwiseConvolution
from espnet_lite.nn.local_attention import LocalAttention
from espnet_lite.nn.masks import window_mask
from espnet_lite.nn.positional_convolution import PositionalConvolution, positions_of
from espnet_lite.nn.relative_attention import RelativeDotProduct, shifted
from espnet_lite.quantize.quantizers import ActivationQuantizer, WeightQuantizer
from espnet_lite.runtime import products


class QuantizedLinear(nn.Linear):
    """y = Q_x(x) Q_w(W)ᵀ + b; a pointwise convolution is this too."""

    def __init__(
        self,
        layer: nn.Linear,
        *,
        weights: WeightQuantizer | None,
        inputs: ActivationQuantizer | None,
    ):
        has_bias = layer.bias is not None
        super().__init__(layer.in_features, layer.out_features, bias=has_bias, device="meta")
        _take_over(self, layer, weights, inputs)

    def forward(self, x: Float[Tensor, "*batch dim_in"]) -> Float[Tensor, "*batch dim_out"]:
        """Return the products of the quantized values."""
        if _adds_codes(self.input_quantizer, self.weight_quantizer):
            return products.linear(*_codes(self, x), self.bias)
        return nn.functional.linear(*_quantized(self, x), self.bias)


class QuantizedDepthwise(DepthwiseConvolution):
    """A depthwise convolution over time; what is not valid, or beyond the batch, adds exactly 0."""

    def __init__(
        self,
        layer: DepthwiseConvolution,
        *,
        weights: WeightQuantizer | None,
        inputs: ActivationQuantizer | None,
    ):
        (kernel,), (stride,) = layer.kernel_size, layer.stride
        with torch.device("meta"):
            super().__init__(layer.in_channels, kernel=kernel, stride=stride)
        _take_over(self, layer, weights, inputs)

    def forward(
        self,
        x: Float[Tensor, "batch time channels"],
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time_out channels"]:
        """Return ceil(time / stride) frames."""
        if _adds_codes(self.input_quantizer, self.weight_quantizer):
            (stride,) = self.stride
            return products.depthwise(*_codes(self, x), self.bias, stride=stride, valid=valid)
        x, weight = _quantized(self, x)
        if valid is not None:  # behind the quantizer, which may give 0 another code
            x = x.masked_fill(~valid[..., None], 0.0)
        return self.convolve(x, weight)


class QuantizedConv1d(nn.Conv1d):
    """A convolution of (batch, channels, time) without padding."""

    def __init__(
        self,
        layer: nn.Conv1d,
        *,
        weights: WeightQuantizer | None,
        inputs: ActivationQuantizer | None,
    ):
        super().__init__(*_shape_of(layer), **_options_of(layer), device="meta")
        _take_over(self, layer, weights, inputs)

    def forward(
        self, x: Float[Tensor, "batch channels_in time_in"]
    ) -> Float[Tensor, "batch channels_out time_out"]:
        """Return the convolution of the quantized values."""
        if _adds_codes(self.input_quantizer, self.weight_quantizer):
            options = {"stride": self.stride[0], "groups": self.groups}
            return products.conv1d(*_codes(self, x), self.bias, **options)
        return self._conv_forward(*_quantized(self, x), self.bias)


class QuantizedConv2d(nn.Conv2d):
    """A convolution of (batch, channels, frames, bins) without padding."""

    def __init__(
        self,
        layer: nn.Conv2d,
        *,
        weights: WeightQuantizer | None,
        inputs: ActivationQuantizer | None,
    ):
        super().__init__(*_shape_of(layer), **_options_of(layer), device="meta")
        _take_over(self, layer, weights, inputs)

    def forward(
        self, x: Float[Tensor, "batch channels_in frames_in bins_in"]
    ) -> Float[Tensor, "batch channels_out frames_out bins_out"]:
        """Return the convolution of the quantized values."""
        if _adds_codes(self.input_quantizer, self.weight_quantizer):
            options = {"stride": self.stride, "groups": self.groups}
            return products.conv2d(*_codes(self, x), self.bias, **options)
        return self._conv_forward(*_quantized(self, x), self.bias)


class QuantizedPositional(PositionalConvolution):
    """A positional convolution whose kernel, as weight normalization makes it, is quantized. Frames
    beyond an utterance are zeros, and have the code 0."""

    def __init__(
        self,
        layer: PositionalConvolution,
        *,
        weights: WeightQuantizer | None,
        inputs: ActivationQuantizer | None,
    ):
        dim, _, kernel = layer.direction.shape
        with torch.device("meta"):
            super().__init__(dim, kernel=kernel, groups=layer.groups)
        self.direction, self.magnitude, self.bias = layer.direction, layer.magnitude, layer.bias
        self.train(layer.training)
        self.weight_quantizer = weights
        self.input_quantizer = inputs

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        """Return what is to be added to `x`."""
        if _adds_codes(self.input_quantizer, self.weight_quantizer):
            options = {"padding": self.direction.size(2) // 2, "groups": self.groups}
            convolved = products.conv1d(*_codes(self, x.mT), self.bias, stride=1, **options)
            return positions_of(convolved, frames=x.size(1))
        return self.convolve(*_quantized(self, x))


class QuantizedDotProduct(nn.Module):
    """softmax(Q_q(Q) Q_k(K)ᵀ/√d + mask) quantized, times Q_v(V): in the place of DotProductAttention
    and of LocalAttention.

    A key that is not seen has the probability 0 and adds exactly 0. A window is a mask here: time and
    memory grow with the square of the frames, unlike LocalAttention's.
    """

    def __init__(
        self,
        attention: DotProductAttention | LocalAttention,
        *,
        query: ActivationQuantizer,
        key: ActivationQuantizer,
        value: ActivationQuantizer,
        probabilities: ActivationQuantizer,
    ):
        super().__init__()
        self.dropout = attention.dropout
        is_local = isinstance(attention, LocalAttention)
        self.window = attention.window if is_local else None
        self.global_tokens = attention.global_tokens if is_local else 0
        self.query = query
        self.key = key
        self.value = value
        self.probabilities = probabilities
        self.train(attention.training)

    def forward(
        self,
        query: Float[Tensor, "batch heads queries head_dim"],
        key: Float[Tensor, "batch heads keys head_dim"],
        value: Float[Tensor, "batch heads keys head_dim"],
        mask: Bool[Tensor, "#batch #heads #queries keys"] | None = None,
    ) -> Float[Tensor, "batch heads queries head_dim"]:
        """Return the mixed values; a query that may see no key gets some mix of all values."""
        if self.window is not None:
            near = window_mask(
                key.size(-2), self.window, global_tokens=self.global_tokens, device=key.device
            )
            mask = near if mask is None else near & mask
        scores = _scores(self.query, query, self.key, key) * query.size(-1) ** -0.5
        return _mixed(self, _probabilities(scores, mask), value)


class QuantizedRelativeDotProduct(nn.Module):
    """RelativeDotProduct with all its operands quantized: queries for keys, queries for positions, keys,
    positions, probabilities, values."""

    def __init__(
        self,
        attention: RelativeDotProduct,
        *,
        query: ActivationQuantizer,
        position_query: ActivationQuantizer,
        key: ActivationQuantizer,
        positions: ActivationQuantizer,
        value: ActivationQuantizer,
        probabilities: ActivationQuantizer,
    ):
        super().__init__()
        self.dropout = attention.dropout
        self.query = query
        self.position_query = position_query
        self.key = key
        self.positions = positions
        self.value = value
        self.probabilities = probabilities
        self.train(attention.training)

    def forward(
        self,
        content_query: Float[Tensor, "batch heads time head_dim"],
        position_query: Float[Tensor, "batch heads time head_dim"],
        key: Float[Tensor, "batch heads time head_dim"],
        value: Float[Tensor, "batch heads time head_dim"],
        positions: Float[Tensor, "heads distances head_dim"],
        mask: Bool[Tensor, "#batch #heads #time time"] | None = None,
    ) -> Float[Tensor, "batch heads time head_dim"]:
        """Return the mixed values; arguments are RelativeDotProduct's."""
        content = _scores(self.query, content_query, self.key, key)
        position = _scores(self.position_query, position_query, self.positions, positions)
        scores = (content + shifted(position)) * key.size(-1) ** -0.5
        return _mixed(self, _probabilities(scores, mask), value)


def _probabilities(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return the softmax in fp32, exactly 0 for keys that are not seen where any is."""
    with torch.autocast(scores.device.type, enabled=False):
        return products.softmax(scores, mask)


def _scores(
    quantize_query: ActivationQuantizer,
    query: Tensor,
    quantize_key: ActivationQuantizer,
    key: Tensor,
) -> Tensor:
    """Return the products of all quantized queries with all quantized keys."""
    if _adds_codes(quantize_query, quantize_key):
        return products.scores(_held(quantize_query, query), _held(quantize_key, key))
    return quantize_query(query) @ quantize_key(key).mT


def _mixed(attention: nn.Module, probabilities: Tensor, value: Tensor) -> Tensor:
    """Return the quantized values mixed by quantized probabilities."""
    if _adds_codes(attention.probabilities, attention.value) and not attention.training:
        return products.mixed(
            _held(attention.probabilities, probabilities), _held(attention.value, value)
        )
    return attention.dropout(attention.probabilities(probabilities)) @ attention.value(value)


def _adds_codes(*quantizers: WeightQuantizer | ActivationQuantizer | None) -> bool:
    """Return whether sums of codes take the place of products of their values: nothing asks for a
    gradient or for autocast, both factors have codes, and none of the quantizers is still to be
    measured."""
    in_fp32 = not (torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"))
    return (not torch.is_grad_enabled() and in_fp32) and all(
        quantizer is not None
        and not (isinstance(quantizer, ActivationQuantizer) and quantizer.starting)
        for quantizer in quantizers
    )


def _held(quantizer: WeightQuantizer | ActivationQuantizer, x: Tensor) -> products.Codes:
    """Return the codes as sums of them take them."""
    codes = quantizer.codes(x)
    return products.Codes(codes.codes.float(), codes.scale, 2 ** math.ceil(quantizer.bits))


def _codes(layer: nn.Module, x: Tensor) -> tuple[products.Codes, products.Codes]:
    """Return the codes of a layer's input and weights, one scale for each channel of these."""
    weight = _held(layer.weight_quantizer, layer.weight)
    channels = weight.scale.flatten().expand(len(layer.weight))
    return _held(layer.input_quantizer, x), dataclasses.replace(weight, scale=channels)


def _take_over(
    quantized: nn.Module,
    layer: nn.Module,
    weights: WeightQuantizer | None,
    inputs: ActivationQuantizer | None,
) -> None:
    """Give `quantized` the parameters and mode of `layer`, and its quantizers."""
    quantized.weight, quantized.bias = layer.weight, layer.bias
    quantized.train(layer.training)
    quantized.weight_quantizer = weights
    quantized.input_quantizer = inputs


def _quantized(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return input and weight as the layer's quantizers make them."""
    inputs, weights = layer.input_quantizer, layer.weight_quantizer
    return (
        x if inputs is None else inputs(x),
        layer.weight if weights is None else weights(layer.weight),
    )


def _shape_of(layer: nn.Module) -> tuple:
    return layer.in_channels, layer.out_channels, layer.kernel_size


def _options_of(layer: nn.Module) -> dict:
    """Return the options of a convolution without padding.

    Raises:
        ValueError: it has padding, of which a quantizer would have to know.
    """
    padding = layer.padding if isinstance(layer.padding, tuple) else (layer.padding,)
    if set(padding) != {0}:
        raise ValueError(f"a convolution with padding {padding} cannot be quantized")
    return {
        "stride": layer.stride,
        "dilation": layer.dilation,
        "groups": layer.groups,
        "bias": layer.bias is not None,
    }
