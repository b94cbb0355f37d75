"""Positional convolution against torch's convolution with torch's weight norm, and by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from espnet_lite.nn.positional_convolution import PositionalConvolution


def pair(kernel: int) -> tuple[PositionalConvolution, nn.Conv1d]:
    """Return ours and torch's convolution with the same, moved weights."""
    torch.manual_seed(0)
    ours = PositionalConvolution(8, kernel=kernel, groups=2)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn(parameter.shape))
    conv = nn.Conv1d(8, 8, kernel, padding=kernel // 2, groups=2)
    conv = nn.utils.parametrizations.weight_norm(conv, dim=2)
    conv.parametrizations.weight.original0.data.copy_(ours.magnitude.data)
    conv.parametrizations.weight.original1.data.copy_(ours.direction.data)
    conv.bias.data.copy_(ours.bias.data)
    return ours, conv


@pytest.mark.parametrize("kernel", [1, 4, 5, 128])
@pytest.mark.parametrize("frames", [1, 7, 200])
def test_equals_torchs_weight_norm(kernel, frames):
    ours, conv = pair(kernel)
    x = torch.randn(2, frames, 8)
    expected = functional.gelu(conv(x.transpose(1, 2))[:, :, :frames]).transpose(1, 2)
    torch.testing.assert_close(ours(x), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", [4, 5])
def test_gradients_equal_torchs(kernel):
    ours, conv = pair(kernel)
    x = torch.randn(2, 9, 8)
    ours(x).square().sum().backward()
    functional.gelu(conv(x.transpose(1, 2))[:, :, :9]).square().sum().backward()
    theirs = conv.parametrizations.weight
    torch.testing.assert_close(ours.magnitude.grad, theirs.original0.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.direction.grad, theirs.original1.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kernel", "seen"), [(5, [3, 4, 5, 6, 7]), (4, [3, 4, 5, 6])])
def test_frames_seen_by_frame_5(kernel, seen):
    ours, _ = pair(kernel)
    x = torch.randn(1, 11, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(ours(x)[0, 5].sum(), x)
    assert gradient[0].abs().sum(-1).nonzero().flatten().tolist() == seen


def test_at_first_the_kernel_is_its_direction():
    """fairseq's standard deviation, √(4 / (kernel · dim)), and no bias."""
    torch.manual_seed(0)
    ours = PositionalConvolution(64, kernel=16, groups=4)
    x = torch.randn(2, 30, 64)
    plain = functional.conv1d(x.transpose(1, 2), ours.direction, padding=8, groups=4)[:, :, :30]
    torch.testing.assert_close(ours(x), functional.gelu(plain).transpose(1, 2))
    expected = (4 / (16 * 64)) ** 0.5
    assert float(ours.direction.detach().std()) == pytest.approx(expected, rel=0.02)


def test_groups_divide_the_width():
    with pytest.raises(ValueError, match="dim 8 is not a multiple of groups 3"):
        PositionalConvolution(8, kernel=3, groups=3)
