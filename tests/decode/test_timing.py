"""From frames to seconds: the nearest middle, halves of gaps, and the ends of the audio."""

import math

import pytest

from espnet_lite.decode.forced import ForcedPath
from espnet_lite.decode.timing import TimedLabel, ctm_lines, token_times, word_times
from espnet_lite.features.frame_grid import FrameGrid

GRID = FrameGrid(1000, window_samples=60, shift_samples=40)  # middles at 30, 70, 110 ms, ...


def test_a_frame_stands_for_the_time_nearest_to_its_middle():
    path = ForcedPath([0, 2], [1, 4], [math.log(0.5), math.log(0.25)], -3.0)
    first, second = token_times(path, ["a", "b"], GRID, num_samples=160)
    # frame 0: 10 to 50 ms, frames 2 and 3: 90 to 170 ms, but the audio ends at 160
    assert (first.label, first.start_seconds, first.end_seconds) == ("a", 0.01, 0.05)
    assert (second.start_seconds, second.end_seconds) == (0.09, 0.16)
    assert (first.confidence, second.confidence) == pytest.approx((0.5, 0.25))


def test_words_take_half_of_a_gap_but_no_pause():
    spans = [("a", 0.03, 0.10), (" ", 0.10, 0.14), ("b", 0.16, 0.20), ("c", 0.22, 0.24)]
    spans += [("d", 0.50, 0.99)]
    tokens = [TimedLabel(label, start, end, 0.5) for label, start, end in spans]
    words = word_times(
        tokens, ["a", "bc", "d"], [0, None, 1, 1, 2], end_seconds=1.0, reach_seconds=0.04
    )
    times = [(word.start_seconds, word.end_seconds) for word in words]
    # 0.10 | 0.13 | 0.16: the middle; a pause from 0.24 to 0.50; the audio's begin and end
    expected = [(0.0, 0.13), (0.13, 0.28), (0.46, 1.0)]
    assert [pytest.approx(pair) for pair in expected] == times
    assert [word.label for word in words] == ["a", "bc", "d"]


def test_the_confidence_of_a_word_weighs_its_tokens_by_their_length():
    tokens = [TimedLabel("a", 0.0, 0.3, 0.2), TimedLabel("b", 0.3, 0.4, 0.8)]
    [word] = word_times(tokens, ["ab"], [0, 0], end_seconds=0.4)
    assert word.confidence == pytest.approx((0.2**3 * 0.8) ** 0.25)


def test_ctm_lines():
    text = ctm_lines("u-1", [TimedLabel("hé", 0.5, 0.8, 0.25)])
    assert text == "u-1 1 0.500 0.300 hé 0.2500\n"
