"""How often units are used."""

import math

import numpy as np
import pytest

from espnet_lite.report.unit_usage import perplexity, read_unit_usage


def test_counts_go_from_the_most_used_unit(recipe):
    [units] = read_unit_usage(recipe.exp)
    assert units["counts"] == [2, 1, 1, 0]  # of 2 0 2 1, four clusters
    assert (units["name"], units["features"]) == ("units_tiny", "mfcc")
    assert units["perplexity"] == round(2 ** (0.5 * 1 + 2 * 0.25 * 2), 2)  # entropy 1.5 bits


@pytest.mark.parametrize(
    ("counts", "expected"), [([7], 1), ([3, 3, 3], 3), ([0, 5, 0], 1), ([0, 0], 0), ([], 0)]
)
def test_perplexity(counts, expected):
    assert math.isclose(perplexity(np.array(counts, dtype=np.int64)), expected)
