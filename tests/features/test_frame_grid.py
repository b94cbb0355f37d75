"""The frame grid: against the front ends that frame, and against brute force over all middles."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_lite.errors import InputError
from espnet_lite.features.fbank import Fbank
from espnet_lite.features.frame_grid import FrameGrid

MFCC = FrameGrid(16000, 400, 160)
WAVEFORM = FrameGrid(16000, 400, 320)
LOG_MEL_X4 = FrameGrid(16000, 1360, 640)


def test_times():
    assert MFCC.frame_ms == 10.0
    assert WAVEFORM.frame_ms == 20.0
    assert FrameGrid(8000, 200, 80).frame_ms == 10.0


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 559, 560, 561, 16000])
def test_as_many_frames_as_fbank_and_convolutions_have(samples):
    fbank = Fbank(16000)(torch.zeros(1, samples), torch.tensor([samples]))[0]
    assert MFCC.num_frames(samples) == fbank.size(1)
    if samples >= 400:
        x = torch.zeros(1, 1, samples)
        for kernel, stride in [(10, 5), *[(3, 2)] * 4, *[(2, 2)] * 2]:  # HuBERT's
            x = torch.nn.functional.conv1d(x, torch.zeros(1, 1, kernel), stride=stride)
        assert WAVEFORM.num_frames(samples) == x.size(2)


def test_int_array_and_tensor_alike():
    counts = list(range(0, 3000, 37))
    expected = [LOG_MEL_X4.num_frames(count) for count in counts]
    assert all(type(value) is int for value in expected)
    array = LOG_MEL_X4.num_frames(np.array(counts))
    assert isinstance(array, np.ndarray) and array.tolist() == expected
    assert LOG_MEL_X4.num_frames(torch.tensor(counts)).tolist() == expected


def test_subsampled():
    # Two convolutions of kernel 3 and stride 2 on frames of 25 ms every 10 ms.
    assert MFCC.subsampled(3, 2).subsampled(3, 2) == LOG_MEL_X4
    # HuBERT's seven convolutions on samples.
    grid = FrameGrid(16000, 1, 1)
    for kernel, stride in [(10, 5), *[(3, 2)] * 4, *[(2, 2)] * 2]:
        grid = grid.subsampled(kernel, stride)
    assert grid == WAVEFORM


def test_every_second_mfcc_for_the_waveform_model():
    """HuBERT's rule for its first units."""
    frames = MFCC.nearest(WAVEFORM, num_samples=16000)
    np.testing.assert_array_equal(frames, np.arange(0, 98, 2))


def test_the_same_grid_is_the_identity():
    np.testing.assert_array_equal(MFCC.nearest(MFCC, num_samples=16000), np.arange(98))


def test_hand_worked():
    # Middles of the model: 680, 1320, …; of the labels: 200, 360, 520, 680, …
    assert MFCC.nearest(LOG_MEL_X4, num_samples=2000).tolist() == [3, 7]
    # From sample 80 on the first middle is 760, between 680 and 840: the later one.
    assert MFCC.nearest(LOG_MEL_X4, num_samples=1360, start_samples=80).tolist() == [4]
    # Labels of a coarse grid, middles …, 40, 680: 200 is nearest to that of frame -1, 360 lies between.
    assert LOG_MEL_X4.nearest(MFCC, num_samples=4000)[:3].tolist() == [-1, 0, 0]


grids = st.builds(
    FrameGrid, st.just(16000), st.integers(1, 90).map(lambda n: n * 10), st.integers(1, 700)
)


@given(grids, grids, st.integers(0, 9000), st.integers(0, 5000))
def test_against_brute_force(labels, model, num_samples, start):
    """Of all frames, numbers below 0 and beyond the end included, the nearest; the later of two."""
    frames = labels.nearest(model, num_samples=num_samples, start_samples=start)
    count = len(
        [j for j in range(9001) if j * model.shift_samples + model.window_samples <= num_samples]
    )
    assert len(frames) == count and frames.dtype == np.int64
    for j in {0, count // 2, count - 1} & set(range(count)):
        middle = start + j * model.shift_samples + model.window_samples / 2
        guess = int((middle - labels.window_samples / 2) / labels.shift_samples)
        candidates = range(guess - 3, guess + 4)
        distance = {
            i: abs(i * labels.shift_samples + labels.window_samples / 2 - middle)
            for i in candidates
        }
        best = min(distance.values())
        assert frames[j] == max(i for i in candidates if distance[i] == best)


@given(st.integers(400, 200_000), st.integers(0, 100_000))
def test_hardly_beyond_the_ends(num_samples, start):
    """What the caller clips away, for the grids in use."""
    for labels, model in [
        *[(MFCC, WAVEFORM), (MFCC, LOG_MEL_X4), (WAVEFORM, LOG_MEL_X4), (LOG_MEL_X4, WAVEFORM)]
    ]:
        frames = labels.nearest(model, num_samples=num_samples, start_samples=start)
        if len(frames):
            beyond = 1 if labels.window_samples > model.window_samples else 0
            assert frames.min() >= -beyond
            assert frames.max() <= labels.num_frames(start + num_samples) + beyond


def test_another_sample_rate_is_refused():
    with pytest.raises(InputError, match=r"16000 Hz for a model at 8000 Hz.*run\.sh --stage units"):
        MFCC.nearest(FrameGrid(8000, 200, 80), num_samples=8000)
