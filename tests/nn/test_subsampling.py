"""Subsampling against a direct sum, and what a frame of it sees."""

import pytest
import torch

from espnet_lite.nn.subsampling import Conv2dSubsampling4


@pytest.fixture
def subsampling():
    torch.manual_seed(0)
    return Conv2dSubsampling4(11, 5, channels=3)


def convolved(x: torch.Tensor, conv: torch.nn.Conv2d) -> torch.Tensor:
    """Return relu of a 3×3 convolution of stride 2 of (channels, frames, bins), by loops."""
    _, frames, bins = x.shape
    out = torch.zeros(conv.out_channels, (frames - 3) // 2 + 1, (bins - 3) // 2 + 1)
    for o in range(out.size(0)):
        for t in range(out.size(1)):
            for b in range(out.size(2)):
                window = x[:, 2 * t : 2 * t + 3, 2 * b : 2 * b + 3]
                out[o, t, b] = (window * conv.weight[o]).sum() + conv.bias[o]
    return out.clamp(min=0)


def test_equals_two_convolutions_by_loops(subsampling):
    features = torch.randn(1, 16, 11)
    with torch.no_grad():
        output, lengths = subsampling(features, torch.tensor([16]))
        hidden = convolved(convolved(features[0][None], subsampling.first), subsampling.second)
        rows = [subsampling.project(hidden[:, t].flatten()) for t in range(hidden.size(1))]
    torch.testing.assert_close(output[0], torch.stack(rows), atol=1e-5, rtol=1e-5)
    assert lengths.tolist() == [3]


@pytest.mark.parametrize("frames", range(1, 40))
def test_lengths_are_the_frames_that_come_out(subsampling, frames):
    output, lengths = subsampling(torch.randn(1, frames, 11), torch.tensor([frames]))
    valid = max(0, ((frames - 3) // 2 + 1 - 3) // 2 + 1) if frames >= 3 else 0
    assert lengths.tolist() == [valid]
    assert output.shape == (1, max(1, valid), 5)


def test_no_frames_at_all_have_length_zero(subsampling):
    assert subsampling.output_lengths(torch.tensor([0, 1, 6, 7])).tolist() == [0, 0, 0, 1]


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


def test_one_frame_covers_seven_four_apart(subsampling):
    features = torch.randn(1, 31, 11, requires_grad=True)
    output, _ = subsampling(features, torch.tensor([31]))
    for frame in range(output.size(1)):
        (gradient,) = torch.autograd.grad(output[0, frame].sum(), features, retain_graph=True)
        seen = gradient[0].abs().sum(-1).nonzero().flatten().tolist()
        assert set(seen) <= set(range(4 * frame, 4 * frame + 7)) and len(seen) >= 5
