"""Quantized layers against slow loops over integers; padding adds exactly nothing."""

import math

import pytest
import torch
from torch import nn

from espnet_lite.nn.attention import DotProductAttention
from espnet_lite.nn.convolution import DepthwiseConvolution
from espnet_lite.nn.local_attention import LocalAttention
from espnet_lite.nn.relative_attention import RelativeDotProduct
from espnet_lite.quantize.layers import (
    QuantizedConv1d,
    QuantizedConv2d,
    QuantizedDepthwise,
    QuantizedDotProduct,
    QuantizedLinear,
    QuantizedRelativeDotProduct,
)
from espnet_lite.quantize.quantizers import (
    ACTIVATION_QUANTIZERS,
    TERNARY_BITS,
    WEIGHT_QUANTIZERS,
)

BITS = [(1, 1), (1, 8), (TERNARY_BITS, 8), (2, 2), (4, 4), (8, 8)]
_WEIGHTS = {1: "bit", TERNARY_BITS: "ternary"}
_ACTIVATIONS = {1: "bit", 8: "absmax"}


def weights(layer: nn.Module, bits: float):
    quantizer = WEIGHT_QUANTIZERS[_WEIGHTS.get(bits, "lsq")](
        bits=bits, granularity="channel", channels=len(layer.weight)
    )
    quantizer.start(layer.weight)
    return quantizer


def inputs(bits: int, example, *, static: bool = False, signed: bool = True, **more):
    name = "lsq" if static and bits == 8 else _ACTIVATIONS.get(bits, "lsq")
    quantizer = ACTIVATION_QUANTIZERS[name](bits=bits, signed=signed, **more)
    if not quantizer.IS_DYNAMIC:
        quantizer.start(example)
    if name == "bit":
        quantizer.shift.data.uniform_(-0.3, 0.3)
    return quantizer


@pytest.mark.parametrize(("weight_bits", "activation_bits"), BITS)
def test_linear_is_a_sum_of_integers(weight_bits, activation_bits):
    torch.manual_seed(0)
    layer, x = nn.Linear(7, 5), torch.randn(2, 3, 7)
    quantized = QuantizedLinear(
        layer, weights=weights(layer, weight_bits), inputs=inputs(activation_bits, x)
    )
    w, a = quantized.weight_quantizer.codes(layer.weight), quantized.input_quantizer.codes(x)
    scales = a.scale.expand(2, 3, 1)
    expected = torch.empty(2, 3, 5)
    for b in range(2):
        for t in range(3):
            for o in range(5):
                total = sum(int(a.codes[b, t, i]) * int(w.codes[o, i]) for i in range(7))
                expected[b, t, o] = total * w.scale[o, 0] * scales[b, t, 0] + layer.bias[o]
    torch.testing.assert_close(quantized(x), expected)
    with torch.inference_mode():
        torch.testing.assert_close(quantized(x), expected)


@pytest.mark.parametrize(("weight_bits", "activation_bits"), BITS)
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_is_a_sum_over_valid_frames_only(weight_bits, activation_bits, stride):
    torch.manual_seed(0)
    channels, kernel, time = 3, 5, 9
    layer = DepthwiseConvolution(channels, kernel=kernel, stride=stride)
    x = torch.randn(2, time, channels)
    valid = torch.arange(time) < torch.tensor([9, 6])[:, None]
    quantized = QuantizedDepthwise(
        layer,
        weights=weights(layer, weight_bits),
        inputs=inputs(activation_bits, x, static=True),
    )
    w, a = quantized.weight_quantizer.codes(layer.weight), quantized.input_quantizer.codes(x)
    expected = torch.empty(2, -(-time // stride), channels)
    for b in range(2):
        for t in range(expected.size(1)):
            for c in range(channels):
                total = 0
                for k in range(kernel):
                    at = t * stride + k - kernel // 2
                    if 0 <= at < time and valid[b, at]:
                        total += int(a.codes[b, at, c]) * int(w.codes[c, 0, k])
                expected[b, t, c] = total * w.scale[c, 0, 0] * a.scale[0] + layer.bias[c]
    torch.testing.assert_close(quantized(x, valid), expected)
    with torch.inference_mode():
        torch.testing.assert_close(quantized(x, valid), expected)
    alone = quantized(x[1:, :6])
    torch.testing.assert_close(quantized(x, valid)[1, : alone.size(1)], alone[0])


@pytest.mark.parametrize("bits", [1, 2, 8])
def test_convolutions_of_one_and_two_axes(bits):
    torch.manual_seed(0)
    layer, x = nn.Conv1d(4, 6, 3, stride=2, groups=2, bias=False), torch.randn(2, 4, 9)
    quantized = QuantizedConv1d(
        layer, weights=weights(layer, bits), inputs=inputs(bits, x, static=True)
    )
    w, a = quantized.weight_quantizer.codes(layer.weight), quantized.input_quantizer.codes(x)
    sums = nn.functional.conv1d(a.codes.double(), w.codes.double(), stride=2, groups=2)
    expected = (sums * w.scale.view(1, -1, 1) * a.scale.item()).float()
    torch.testing.assert_close(quantized(x), expected)

    layer, x = nn.Conv2d(1, 4, 3, stride=2), torch.randn(2, 1, 9, 8)
    quantized = QuantizedConv2d(
        layer, weights=weights(layer, bits), inputs=inputs(bits, x, static=True)
    )
    w, a = quantized.weight_quantizer.codes(layer.weight), quantized.input_quantizer.codes(x)
    sums = nn.functional.conv2d(a.codes.double(), w.codes.double(), stride=2)
    expected = (sums * w.scale.view(1, -1, 1, 1) * a.scale.item()).float()
    torch.testing.assert_close(quantized(x), expected + layer.bias.view(1, -1, 1, 1))


def operands(bits: int, query, key, value, *, heads: int):
    probabilities = (query @ key.mT).softmax(dim=-1)
    return {
        "query": inputs(bits, query),
        "key": inputs(bits, key),
        "value": inputs(bits, value, static=True, groups=heads),
        "probabilities": inputs(bits, probabilities, signed=False, sparse=True),
    }


def slow_attention(attention, query, key, value, seen, positions=None, position_query=None):
    """Return the mixed values by loops over queries and keys; `seen` is (batch, query, key)."""
    q, k, v = (
        part.codes(x).values()
        for part, x in (
            (attention.query, query),
            (attention.key, key),
            (attention.value, value),
        )
    )
    batch, heads, time, dim = query.shape
    scores = torch.full((batch, heads, time, time), -torch.inf)
    if positions is not None:
        r = attention.positions.codes(positions).values()
        qp = attention.position_query.codes(position_query).values()
    for b in range(batch):
        for h in range(heads):
            for i in range(time):
                for j in range(time):
                    if seen[b, i, j]:
                        total = q[b, h, i] @ k[b, h, j]
                        if positions is not None:  # distances from time − 1 down
                            total += qp[b, h, i] @ r[h, time - 1 - (i - j)]
                        scores[b, h, i, j] = total / math.sqrt(dim)
    p = attention.probabilities.codes(scores.softmax(dim=-1)).values()
    mixed = torch.zeros_like(query)
    for b in range(batch):
        for h in range(heads):
            for i in range(time):
                mixed[b, h, i] = sum(p[b, h, i, j] * v[b, h, j] for j in range(time))
    return mixed


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("window", [None, 2])
def test_attention_by_loops(bits, window):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 6, 4)
    valid = torch.arange(6) < torch.tensor([6, 4])[:, None]
    seen = valid[:, None, :].expand(2, 6, 6)
    plain = DotProductAttention()
    if window is not None:
        plain = LocalAttention(window=window)
        position = torch.arange(6)
        seen = seen & ((position[:, None] - position).abs() <= window)
    attention = QuantizedDotProduct(plain, **operands(bits, query, key, value, heads=2))
    expected = slow_attention(attention, query, key, value, seen)
    rows = valid[:, None, :, None]  # a query beyond its utterance means nothing
    for context in (torch.enable_grad(), torch.inference_mode()):
        with context:
            found = attention(query, key, value, valid[:, None, None, :])
        torch.testing.assert_close(found * rows, expected * rows)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_relative_attention_by_loops(bits):
    torch.manual_seed(0)
    content, position_query, key, value = torch.randn(4, 1, 2, 5, 4)
    positions = torch.randn(2, 9, 4)
    attention = QuantizedRelativeDotProduct(
        RelativeDotProduct(),
        **operands(bits, content, key, value, heads=2),
        position_query=inputs(bits, position_query),
        positions=inputs(bits, positions),
    )
    seen = torch.ones(1, 5, 5, dtype=torch.bool)
    expected = slow_attention(
        attention, content, key, value, seen, positions=positions, position_query=position_query
    )
    found = attention(content, position_query, key, value, positions)
    torch.testing.assert_close(found, expected)


def test_without_quantizers_of_one_side_that_side_is_as_it_was():
    layer, x = nn.Linear(4, 3), torch.randn(2, 4)
    neither = QuantizedLinear(layer, weights=None, inputs=None)
    assert torch.equal(neither(x), layer(x))
    only_weights = QuantizedLinear(layer, weights=weights(layer, 1), inputs=None)
    values = only_weights.weight_quantizer(layer.weight)
    torch.testing.assert_close(only_weights(x), nn.functional.linear(x, values, layer.bias))


def test_a_convolution_with_padding_is_refused():
    layer = nn.Conv2d(1, 2, 3, padding=1)
    with pytest.raises(ValueError, match=r"padding \(1, 1\)"):
        QuantizedConv2d(layer, weights=weights(layer, 1), inputs=None)
