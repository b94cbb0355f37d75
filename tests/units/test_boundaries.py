"""Distances of word boundaries by hand."""

import numpy as np
import pytest

from espnet_lite.units.boundaries import boundary_errors, errors_to_plain


def test_silences_and_case_do_not_count_and_other_words_are_told():
    found = [(0.0, 0.1, ""), (0.1, 0.5, "The"), (0.5, 0.9, "cat"), (0.9, 1.0, "sil")]
    reference = [(0.15, 0.45, "the"), (0.45, 0.5, "<eps>"), (0.5, 1.0, "CAT")]
    errors = boundary_errors(found, reference)
    assert errors.starts == pytest.approx([-0.05, 0.0])
    assert errors.ends == pytest.approx([0.05, -0.1])
    assert boundary_errors(found, reference[:2]) is None
    assert boundary_errors(found, [(0.15, 0.45, "a"), (0.5, 1.0, "cat")]) is None
    assert len(boundary_errors([], []).starts) == 0


def test_numbers_by_hand():
    plain = errors_to_plain(np.array([-0.03, 0.01, 0.02, 0.2]))
    assert plain == {
        "median_ms": 25.0,
        "mean_ms": 65.0,
        "bias_ms": 15.0,
        "within_20_ms": 0.5,
        "within_50_ms": 0.75,
        "within_100_ms": 0.75,
    }
