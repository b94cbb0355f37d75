"""add_deltas against Kaldi's loop, written out."""

import numpy as np
import pytest
import torch

from espnet_lite.features.deltas import add_deltas


def slow_deltas(features, order, window):
    """Return what Kaldi's DeltaFeatures::Process does, frame by frame, for one utterance."""
    scales = [np.array([1.0])]
    for _ in range(order):
        previous = scales[-1]
        current = np.zeros(len(previous) + 2 * window)
        normalizer = 0.0
        for j in range(-window, window + 1):
            normalizer += j * j
            for k in range(len(previous)):
                current[j + window + k] += j * previous[k]
        scales.append(current / normalizer)
    frames, dim = features.shape
    output = np.zeros((frames, dim * (order + 1)))
    for t in range(frames):
        for i, scale in enumerate(scales):
            reach = (len(scale) - 1) // 2
            for j in range(-reach, reach + 1):
                source = min(max(t + j, 0), frames - 1)
                output[t, i * dim : (i + 1) * dim] += scale[j + reach] * features[source]
    return output


@pytest.mark.parametrize(("order", "window"), [(2, 2), (1, 2), (2, 1), (3, 2), (0, 2)])
def test_equals_the_loop_for_every_length(order, window):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([17, 1, 4, 9, 0, 2])
    features = torch.randn(6, 17, 13, generator=generator, dtype=torch.float64)
    output = add_deltas(features, lengths, order=order, window=window)
    assert output.shape == (6, 17, 13 * (order + 1))
    for row, source, length in zip(output, features, lengths.tolist(), strict=True):
        expected = slow_deltas(source[:length].numpy(), order, window)
        np.testing.assert_allclose(row[:length].numpy(), expected, atol=1e-12)
        assert (row[length:] == 0).all()


def test_a_ramp_has_slope_one_and_no_curvature():
    ramp = torch.arange(20.0)[None, :, None]
    output = add_deltas(ramp, torch.tensor([20]))
    torch.testing.assert_close(output[0, 4:-4, 1], torch.ones(12))
    torch.testing.assert_close(output[0, 4:-4, 2], torch.zeros(12))


def test_no_frames():
    assert add_deltas(torch.zeros(2, 0, 13), torch.tensor([0, 0])).shape == (2, 0, 39)
