"""Products of quantized numbers, by the integer contract: exact sums of codes, then a few steps in fp32.

    y = sum(c_x · c_w) · (s_x · s_w) + bias

Packed modules (runtime.quantized) and fake-quantized ones in evaluation (quantize.layers) compute with
the functions of this file, so that one network gives one result, to the last bit on one device.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from espnet_lite.runtime.integer_ops import (
    integer_conv2d,
    integer_depthwise,
    integer_linear,
    integer_matmul,
)

HIDDEN = -1.0e4  # added to the score of a key that is not seen: its probability is exactly 0


@dataclass(frozen=True)
class Codes:
    """Integers, and what one of them is worth.

    Attributes:
        values: held in fp32.
        scale: fp32, broadcasts against them; of weights one number for each output channel.
        largest: magnitude that none of the values exceeds.
    """

    values: Tensor
    scale: Tensor
    largest: int


def _largest(first: Codes, second: Codes) -> int:
    return first.largest * second.largest


def _scaled(sums: Tensor, x: Codes, weight: Codes, bias: Tensor | None, *, axes: int) -> Tensor:
    """Return sums · (s_x · s_w) + bias; the channels are the `axes`-th axis from the end."""
    beyond = (1,) * (axes - 1)
    y = sums.float() * (x.scale * weight.scale.view(-1, *beyond))
    return y if bias is None else y + bias.view(-1, *beyond)


def linear(
    x: Codes, weight: Codes, bias: Float[Tensor, "channels"] | None
) -> Float[Tensor, "*batch channels"]:
    """Return what nn.Linear does, for codes of (..., channels_in)."""
    sums = integer_linear(x.values, weight.values, largest=_largest(x, weight))
    return _scaled(sums, x, weight, bias, axes=1)


def depthwise(
    x: Codes,
    weight: Codes,
    bias: Float[Tensor, "channels"] | None,
    *,
    stride: int,
    valid: Bool[Tensor, "batch time"] | None = None,
) -> Float[Tensor, "batch time_out channels"]:
    """Return what DepthwiseConvolution does, for codes of (batch, time, channels); those of frames
    that are not `valid` become 0."""
    values = x.values if valid is None else x.values.masked_fill(~valid[..., None], 0.0)
    sums = integer_depthwise(values, weight.values, stride=stride, largest=_largest(x, weight))
    return _scaled(sums, x, weight, bias, axes=1)


def conv2d(
    x: Codes,
    weight: Codes,
    bias: Float[Tensor, "channels"] | None,
    *,
    stride: tuple[int, int],
    groups: int,
) -> Float[Tensor, "batch channels height width"]:
    """Return what nn.Conv2d without padding does."""
    sums = integer_conv2d(
        x.values, weight.values, stride=stride, groups=groups, largest=_largest(x, weight)
    )
    return _scaled(sums, x, weight, bias, axes=3)


def conv1d(
    x: Codes,
    weight: Codes,
    bias: Float[Tensor, "channels"] | None,
    *,
    stride: int,
    groups: int,
    padding: int = 0,
) -> Float[Tensor, "batch channels time"]:
    """Return what nn.Conv1d does; what lies beyond the frames has the code 0."""
    sums = integer_conv2d(
        x.values.unsqueeze(3),
        weight.values.unsqueeze(3),
        stride=(stride, 1),
        padding=(padding, 0),
        groups=groups,
        largest=_largest(x, weight),
    )
    return _scaled(sums.squeeze(3), x, weight, bias, axes=2)


def scores(queries: Codes, keys: Codes) -> Float[Tensor, "*batch queries keys"]:
    """Return the products of all queries with all keys, sum · (s_query · s_key)."""
    sums = integer_matmul(queries.values, keys.values.mT, largest=_largest(queries, keys))
    key_scale = keys.scale.mT if keys.scale.ndim > 1 else keys.scale
    return sums.float() * (queries.scale * key_scale)


def mixed(probabilities: Codes, values: Codes) -> Float[Tensor, "*batch queries head_dim"]:
    """Return the values mixed by the probabilities; the scale of values has no axis of frames."""
    sums = integer_matmul(
        probabilities.values, values.values, largest=_largest(probabilities, values)
    )
    return sums.float() * (probabilities.scale * values.scale)


def softmax(
    scores: Float[Tensor, "*batch queries keys"],
    mask: Bool[Tensor, "#*batch #queries keys"] | None,
) -> Float[Tensor, "*batch queries keys"]:
    """Return probabilities in fp32, exactly 0 for keys that are not seen where any is."""
    scores = scores.float()
    if mask is not None:
        scores = scores + scores.new_zeros(mask.shape).masked_fill(~mask, HIDDEN)
    return scores.softmax(dim=-1)
