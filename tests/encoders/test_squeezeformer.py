"""Squeezeformer against a second, plain writing of it, an utterance at a time."""

import math

import pytest
import torch
from torch.nn import functional

from espnet_lite.encoders.squeezeformer import SqueezeformerConfig, SqueezeformerEncoder

SMALL = {"dim": 8, "heads": 2, "feed_forward": 12, "kernel": 5, "dropout": 0.0}
SHAPES = [(5, 2, 4), (3, 0, 2), (4, 1, 2), (2, 0, 1)]  # (layers, reduce_after, recover_after)


@pytest.fixture(params=SHAPES, ids=str)
def encoder(request):
    """Return an encoder in evaluation mode whose every parameter and statistic counts."""
    layers, reduce_after, recover_after = request.param
    torch.manual_seed(0)
    encoder = SqueezeformerEncoder(
        SqueezeformerConfig(
            **SMALL, layers=layers, reduce_after=reduce_after, recover_after=recover_after
        )
    )
    with torch.no_grad():
        for tensor in encoder.state_dict().values():
            tensor += 0.3 * torch.rand_like(tensor)
    return encoder.eval().double()


def swish(x):
    return x * torch.sigmoid(x)


def layer_norm(w, name, x):
    centered = x - x.mean(-1, keepdim=True)
    normed = centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return normed * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def depthwise(w, name, x, stride):
    """Return the convolution of (time, dim), by loops over frames and kernel."""
    kernel = w[f"{name}.weight"][:, 0]
    rows = []
    for middle in range(0, len(x), stride):
        row = w[f"{name}.bias"].clone()
        for k in range(kernel.size(1)):
            if 0 <= (place := middle + k - kernel.size(1) // 2) < len(x):
                row += kernel[:, k] * x[place]
        rows.append(row)
    return torch.stack(rows)


def self_attention(w, name, x, heads):
    """Return Transformer-XL's attention of (time, dim), with the sinusoid of each pair made anew."""
    time, dim = x.shape
    size = dim // heads
    query, key, value = (linear(w, f"{name}.{part}", x) for part in ("query", "key", "value"))
    mixed = torch.zeros_like(x)
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        u, v = w[f"{name}.content_bias"][h], w[f"{name}.position_bias"][h]
        for i in range(time):
            scores = []
            for j in range(time):
                angles = [(i - j) / 10000 ** (2 * (c // 2) / dim) for c in range(dim)]
                sinusoid = [math.cos(a) if c % 2 else math.sin(a) for c, a in enumerate(angles)]
                sinusoid = torch.tensor(sinusoid, dtype=x.dtype)
                position = (w[f"{name}.position.weight"] @ sinusoid)[part]
                scores.append((query[i, part] + u) @ key[j, part] + (query[i, part] + v) @ position)
            mixed[i, part] = (torch.stack(scores) / math.sqrt(size)).softmax(0) @ value[:, part]
    return linear(w, f"{name}.out", mixed)


def convolution(w, name, x):
    x = swish(linear(w, f"{name}.pointwise_in", x))
    x = depthwise(w, f"{name}.depthwise", x, 1)
    mean, variance = w[f"{name}.norm.running_mean"], w[f"{name}.norm.running_var"]
    x = (x - mean) / (variance + 1e-5).sqrt() * w[f"{name}.norm.weight"] + w[f"{name}.norm.bias"]
    return linear(w, f"{name}.pointwise_out", swish(x))


def block(w, name, x, heads):
    for part in ("attention", "first_feed_forward", "convolution", "second_feed_forward"):
        y = x * w[f"{name}.{part}.scale"] + w[f"{name}.{part}.bias"]
        module = f"{name}.{part}.module"
        if part == "attention":
            y = self_attention(w, module, y, heads)
        elif part == "convolution":
            y = convolution(w, module, y)
        else:
            y = linear(w, f"{module}.contract", swish(linear(w, f"{module}.expand", y)))
        x = layer_norm(w, f"{name}.{part}.norm", x + y)
    return x


def squeezeformer(encoder, x):
    """Return the layers of one utterance (time, dim)."""
    w, config = encoder.state_dict(), encoder.config
    layers, time = [x], len(x)
    x = layer_norm(w, "input_norm", x)
    for number in range(config.layers):
        if number == config.reduce_after:
            skipped = x
            x = linear(w, "reduction.pointwise", depthwise(w, "reduction.depthwise", x, 2))
        if number == config.recover_after:
            x = torch.stack([x[i // 2] for i in range(time)])
            x = linear(w, "recovery", x) + skipped
        x = block(w, f"blocks.{number}", x, config.heads)
        at_half = config.reduce_after <= number < config.recover_after
        layers.append(torch.stack([x[i // 2] for i in range(time)]) if at_half else x)
    return layers


def test_encoder_equals_the_plain_one(encoder):
    """Odd and even lengths, one frame, and utterances padded to the longest."""
    lengths = [7, 6, 2, 1]
    utterances = [torch.randn(length, 8, dtype=torch.float64) for length in lengths]
    batch = torch.nn.utils.rnn.pad_sequence(utterances, batch_first=True, padding_value=50.0)
    with torch.no_grad():
        output = encoder(batch, torch.tensor(lengths), return_layers=True)
        for row, utterance in enumerate(utterances):
            expected = squeezeformer(encoder, utterance)
            alone = encoder(utterance[None], torch.tensor([len(utterance)]), return_layers=True)
            assert len(output.layers) == len(expected)
            for ours, one, theirs in zip(output.layers, alone.layers, expected, strict=True):
                assert one.shape == (1, len(utterance), 8)
                # The sinusoids are made in fp32.
                torch.testing.assert_close(ours[row, : len(utterance)], theirs, atol=3e-6, rtol=0)
                torch.testing.assert_close(one[0], theirs, atol=3e-6, rtol=0)
            torch.testing.assert_close(alone.encoded[0], expected[-1], atol=3e-6, rtol=0)


def test_the_middle_runs_at_half_the_rate(encoder):
    seen = []
    for one in encoder.blocks:
        one.register_forward_hook(lambda module, given, out: seen.append(out.size(1)))
    encoder(torch.randn(1, 9, 8, dtype=torch.float64), torch.tensor([9]))
    config = encoder.config
    reduced = config.recover_after - config.reduce_after
    last = config.layers - config.recover_after
    assert seen == [9] * config.reduce_after + [5] * reduced + [9] * last


def test_swish_is_torchs():
    x = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(swish(x), functional.silu(x))
