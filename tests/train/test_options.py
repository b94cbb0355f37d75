"""Options of the loop that make no sense are refused by name and value."""

import pytest

from espnet_lite.train.optimizers import AdamWConfig
from espnet_lite.train.options import TrainOptions
from espnet_lite.train.schedules import (
    TriStageConfig,
    WarmupCosineConfig,
    WarmupInverseRootConfig,
    WarmupLinearConfig,
)

COUNTS = ("updates", "accumulate", "log_every", "validate_every", "save_every", "average_best")


@pytest.mark.parametrize("key", [*COUNTS, "threads", "patience"])
def test_counts_are_at_least_one(key):
    assert getattr(TrainOptions(**{key: 1}), key) == 1
    with pytest.raises(ValueError, match=f"{key} 0 is not at least 1"):
        TrainOptions(**{key: 0})


@pytest.mark.parametrize(
    ("schema", "values", "message"),
    [
        (TrainOptions, {"seed": -1}, "seed -1 is not at least 0"),
        (TrainOptions, {"freeze_updates": -1}, "freeze_updates -1 is not at least 0"),
        (TrainOptions, {"freeze_updates": 9}, "freeze_updates 9, but freeze_parts names none"),
        (TrainOptions, {"clip": -1.0}, "clip -1.0 is not above 0"),
        (TrainOptions, {"clip": float("nan")}, "clip nan is not above 0"),
        (AdamWConfig, {"lr": -1.0}, "lr -1.0 is not above 0"),
        (AdamWConfig, {"lr": float("inf")}, "lr inf is not above 0"),
        (AdamWConfig, {"eps": 0.0}, "eps 0.0 is not above 0"),
        (AdamWConfig, {"weight_decay": -0.1}, "weight_decay -0.1 is not at least 0"),
        (AdamWConfig, {"betas": (0.9, 1.0)}, "betas 1.0 is not at least 0 and below 1"),
        (AdamWConfig, {"betas": (0.9,)}, r"betas \[0.9\] are not two numbers"),
        (AdamWConfig, {"layer_decay": 0.0}, "layer_decay 0.0 is not above 0 and at most 1"),
        (AdamWConfig, {"layer_decay": 1.1}, "layer_decay 1.1 is not above 0 and at most 1"),
        (WarmupCosineConfig, {"warmup_updates": -1}, "warmup_updates -1 is not at least 0"),
        (WarmupCosineConfig, {"floor": 1.5}, "floor 1.5 is not at least 0 and at most 1"),
        (WarmupLinearConfig, {"warmup_updates": -1}, "warmup_updates -1 is not at least 0"),
        (WarmupInverseRootConfig, {"warmup_updates": 0}, "warmup_updates 0 is not at least 1"),
        (TriStageConfig, {"warmup_part": -0.1}, "warmup_part -0.1 is not at least 0"),
        (TriStageConfig, {"start": 1.5}, "start 1.5 is not at least 0 and at most 1"),
        (TriStageConfig, {"warmup_part": 0.7}, "0.7 and hold_part 0.4 are more than the whole"),
    ],
)
def test_what_cannot_be_is_refused(schema, values, message):
    with pytest.raises(ValueError, match=message):
        schema(**values)


def test_a_clip_of_infinity_clips_nothing():
    assert TrainOptions(clip=float("inf")).clip == float("inf")


def test_an_unknown_precision_names_the_known():
    with pytest.raises(ValueError, match="precision 'fp16' is not one of auto, bf16, fp32"):
        TrainOptions(precision="fp16")
