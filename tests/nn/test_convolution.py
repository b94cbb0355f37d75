"""Depthwise convolution against a sum by loops and torch's Conv1d, and the module by hand."""

import pytest
import torch
from torch.nn import functional

from espnet_lite.nn.convolution import ConvolutionModule, DepthwiseConvolution
from espnet_lite.nn.masks import valid_mask


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "time"), [(1, 4), (5, 9), (5, 8), (5, 1), (31, 6)])
def test_depthwise_equals_a_sum_by_loops(kernel, time, stride):
    torch.manual_seed(0)
    convolution = DepthwiseConvolution(3, kernel=kernel, stride=stride)
    x = torch.randn(2, time, 3)
    with torch.no_grad():
        out = convolution(x)
        assert out.shape == (2, -(-time // stride), 3)
        for i in range(out.size(1)):
            expected = convolution.bias.expand(2, 3).clone()
            for k in range(kernel):
                place = stride * i + k - kernel // 2
                if 0 <= place < time:
                    expected += x[:, place] * convolution.weight[:, 0, k]
            torch.testing.assert_close(out[:, i], expected)


@pytest.mark.parametrize("channels", [12, 16, 24, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_depthwise_and_its_gradients_equal_torchs_conv1d(dtype, channels):
    torch.manual_seed(0)
    ours = DepthwiseConvolution(channels, kernel=31).to(dtype)
    theirs = torch.nn.Conv1d(channels, channels, 31, padding=15, groups=channels).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 40, channels, dtype=dtype, requires_grad=True)
    y = x.detach().double().requires_grad_()
    out, expected = ours(x), theirs(y.transpose(1, 2)).transpose(1, 2)
    out.sin().sum().backward()
    expected.sin().sum().backward()
    tolerance = (
        {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.05}
    )
    pairs = [(out, expected), (x.grad, y.grad), (ours.weight.grad, theirs.weight.grad)]
    for a, b in pairs:
        torch.testing.assert_close(a.double(), b, **tolerance)


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="kernel 4 is not odd"):
        DepthwiseConvolution(3, kernel=4)


@pytest.mark.parametrize(("gate", "channels"), [("glu", 4), ("swish", 8)])
def test_module_is_what_the_papers_draw(gate, channels):
    torch.manual_seed(0)
    module = ConvolutionModule(4, kernel=3, gate=gate)
    assert module.depthwise.weight.shape == (channels, 1, 3)
    x, lengths = torch.randn(2, 6, 4), torch.tensor([6, 4])
    out = module(x, valid_mask(lengths, 6))
    hidden = x @ module.pointwise_in.weight.T + module.pointwise_in.bias
    if gate == "glu":
        hidden = hidden[..., :4] * torch.sigmoid(hidden[..., 4:])
    else:
        hidden = hidden * torch.sigmoid(hidden)
    convolved = [
        functional.conv1d(
            hidden[row, :length].T[None],
            module.depthwise.weight,
            module.depthwise.bias,
            padding=1,
            groups=channels,
        )[0].T
        for row, length in enumerate(lengths)
    ]
    joined = torch.cat(convolved)
    normed = (joined - joined.mean(0)) / (joined.var(0, unbiased=False) + 1e-5).sqrt()
    expected = (normed * torch.sigmoid(normed)) @ module.pointwise_out.weight.T
    expected = expected + module.pointwise_out.bias
    for row, part in enumerate(expected.split(lengths.tolist())):
        torch.testing.assert_close(out[row, : len(part)], part, atol=1e-5, rtol=1e-4)
