"""Options of the loop that make no sense are refused by name and value."""

import pytest

from espnet_lite.train.options import TrainOptions


@pytest.mark.parametrize(
    "key",
    ["updates", "accumulate", "log_every", "validate_every", "save_every", "average_best"],
)
def test_counts_are_at_least_one(key):
    assert getattr(TrainOptions(**{key: 1}), key) == 1
    with pytest.raises(ValueError, match=f"{key} 0 is not at least 1"):
        TrainOptions(**{key: 0})


def test_an_unknown_precision_names_the_known():
    with pytest.raises(ValueError, match="precision 'fp16' is not one of bf16, fp32"):
        TrainOptions(precision="fp16")
