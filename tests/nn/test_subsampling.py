"""Subsampling against a direct sum, and what a frame of it sees."""

import pytest
import torch

from espnet_lite.nn import subsampling as nn_subsampling
from espnet_lite.nn.subsampling import (
    CONV2D_SUBSAMPLINGS,
    SEPARABLE_SUBSAMPLINGS,
    Conv2dSubsampling4,
    SeparableSubsampling4,
    stack_frames,
)

CLASSES = [*CONV2D_SUBSAMPLINGS.values(), *SEPARABLE_SUBSAMPLINGS.values()]


@pytest.fixture(params=CLASSES)
def subsampling(request):
    torch.manual_seed(0)
    return request.param(11, 5, channels=3)


def kernel_of(second: torch.nn.Module) -> torch.nn.Conv2d:
    """Return the second convolution as one of all channels; a separable one is a product."""
    if isinstance(second, torch.nn.Conv2d):
        return second
    depthwise, pointwise = second
    whole = torch.nn.Conv2d(3, 3, 3)
    across = pointwise.weight[:, :, 0, 0]
    with torch.no_grad():
        whole.weight.copy_(torch.einsum("oc,ctb->octb", across, depthwise.weight[:, 0]))
        whole.bias.copy_(across @ depthwise.bias + pointwise.bias)
    return whole


def convolved(x: torch.Tensor, conv: torch.nn.Conv2d, stride: int) -> torch.Tensor:
    """Return relu of a 3×3 convolution of (channels, frames, bins), by loops."""
    _, frames, bins = x.shape
    out = torch.zeros(conv.out_channels, (frames - 3) // stride + 1, (bins - 3) // stride + 1)
    for o in range(out.size(0)):
        for t in range(out.size(1)):
            for b in range(out.size(2)):
                window = x[:, stride * t : stride * t + 3, stride * b : stride * b + 3]
                out[o, t, b] = (window * conv.weight[o]).sum() + conv.bias[o]
    return out.clamp(min=0)


def test_equals_two_convolutions_by_loops(subsampling):
    features, reduction = torch.randn(1, 16, 11), 2 * subsampling.strides[1]
    with torch.no_grad():
        output, lengths = subsampling(features, torch.tensor([16]))
        hidden = convolved(features[0][None], subsampling.first, 2)
        hidden = convolved(hidden, kernel_of(subsampling.second), reduction // 2)
        rows = [subsampling.project(hidden[:, t].flatten()) for t in range(hidden.size(1))]
    torch.testing.assert_close(output[0], torch.stack(rows), atol=1e-5, rtol=1e-5)
    assert lengths.tolist() == [{4: 3, 2: 5}[reduction]]


def test_convolving_and_projecting_is_all_of_it(subsampling):
    features, lengths = torch.randn(2, 30, 11), torch.tensor([30, 17])
    x, x_lengths = subsampling.convolve(features, lengths)
    output, out_lengths = subsampling(features, lengths)
    assert torch.equal(subsampling.project(x), output)
    assert torch.equal(x_lengths, out_lengths)
    assert (x >= 0).all()


@pytest.mark.parametrize("frames", range(1, 40))
def test_lengths_are_the_frames_that_come_out(subsampling, frames):
    output, lengths = subsampling(torch.randn(1, frames, 11), torch.tensor([frames]))
    once = (frames - 3) // 2 + 1
    valid = (once - 3) // subsampling.strides[1] + 1 if once >= 3 else 0
    assert lengths.tolist() == [valid]
    assert output.shape == (1, max(1, valid), 5)


@pytest.mark.parametrize("frames", [7, 18, 19, 20, 21, 22, 23, 24, 39])
def test_by_blocks_is_as_in_one_piece(subsampling, frames, monkeypatch):
    monkeypatch.setattr(nn_subsampling, "BLOCK", 2)
    features, lengths = torch.randn(2, frames, 11), torch.tensor([frames, 7])
    whole, _ = subsampling(features, lengths)
    with torch.no_grad():
        blocks, _ = subsampling(features, lengths)
    assert blocks.shape == whole.shape
    torch.testing.assert_close(blocks, whole, atol=1e-6, rtol=1e-5)


def test_no_frames_at_all_have_length_zero(subsampling):
    lengths = torch.tensor([0, 1, 2, 3, 6, 7])
    assert subsampling.output_lengths(lengths).tolist() == [0, 0, 0, 0, 0, 1]


def test_a_valid_frame_never_sees_padding(subsampling):
    features, lengths = torch.randn(2, 40, 11), torch.tensor([40, 21])
    other = features.clone()
    other[1, 21:] = 1e4
    with torch.no_grad():
        output, out_lengths = subsampling(features, lengths)
        changed, _ = subsampling(other, lengths)
    valid = int(out_lengths[1])
    assert torch.equal(output[1, :valid], changed[1, :valid])
    assert torch.equal(output[0], changed[0])


def test_one_frame_covers_seven(subsampling):
    features, reduction = torch.randn(1, 31, 11, requires_grad=True), 2 * subsampling.strides[1]
    output, _ = subsampling(features, torch.tensor([31]))
    for frame in range(output.size(1)):
        (gradient,) = torch.autograd.grad(output[0, frame].sum(), features, retain_graph=True)
        seen = gradient[0].abs().sum(-1).nonzero().flatten().tolist()
        assert set(seen) <= set(range(reduction * frame, reduction * frame + 7))
        assert len(seen) >= 5


def test_a_separable_kernel_has_about_a_ninth_of_the_weights():
    plain, separable = (
        sum(parameter.numel() for parameter in kind(80, 8, channels=144).second.parameters())
        for kind in (Conv2dSubsampling4, SeparableSubsampling4)
    )
    assert plain == 144 * 144 * 9 + 144
    assert separable == 144 * 9 + 144 + 144 * 144 + 144


def test_stacking_joins_neighbours_in_order():
    features = torch.arange(14.0).view(1, 7, 2)
    stacked, lengths = stack_frames(features, torch.tensor([7]), stack=2)
    assert stacked.tolist() == [[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]]
    assert lengths.tolist() == [3]
    stacked, lengths = stack_frames(features, torch.tensor([7]), stack=4)
    assert stacked.tolist() == [[[0, 1, 2, 3, 4, 5, 6, 7]]] and lengths.tolist() == [1]
    stacked, lengths = stack_frames(features, torch.tensor([7]), stack=1)
    assert torch.equal(stacked, features) and lengths.tolist() == [7]


def test_stacked_frames_of_a_shorter_utterance_are_all_its_own():
    stacked, lengths = stack_frames(torch.randn(2, 9, 3), torch.tensor([9, 5]), stack=2)
    assert stacked.shape == (2, 4, 6) and lengths.tolist() == [4, 2]
    stacked, lengths = stack_frames(torch.randn(2, 1, 3), torch.tensor([1, 0]), stack=2)
    assert stacked.shape == (2, 1, 6) and lengths.tolist() == [0, 0]
