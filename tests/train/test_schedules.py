"""Schedules at hand-worked points, and what all of them share."""

import math

import pytest

from espnet_lite.config import build_class
from espnet_lite.train.schedules import (
    SCHEDULES,
    TriStageConfig,
    WarmupCosineConfig,
    WarmupInverseRootConfig,
    WarmupLinearConfig,
)


@pytest.mark.parametrize(
    ("config", "points"),
    [
        (
            WarmupCosineConfig(warmup_updates=10, floor=0.2),
            {1: 0.1, 5: 0.5, 10: 1.0, 20: 0.2 + 0.8 * (2 + 2**0.5) / 4, 30: 0.6, 50: 0.2},
        ),
        (WarmupCosineConfig(warmup_updates=0), {25: 0.5, 50: 0.0}),
        (WarmupInverseRootConfig(warmup_updates=10), {1: 0.1, 10: 1.0, 40: 0.5}),
        (WarmupLinearConfig(warmup_updates=10), {5: 0.5, 10: 1.0, 30: 0.5, 50: 0.0}),
        (
            TriStageConfig(warmup_part=0.2, hold_part=0.4, floor=0.01),
            {1: 0.1, 10: 1.0, 20: 1.0, 30: 1.0, 40: 0.1, 50: 0.01},
        ),
        (
            TriStageConfig(warmup_part=0.2, hold_part=0.4, start=0.01),
            {1: 0.109, 5: 0.505, 9: 0.901, 10: 1.0, 30: 1.0, 40: 0.05**0.5, 50: 0.05},
        ),
    ],
)
def test_points_by_hand(config, points):
    factor = build_class(SCHEDULES, config)(config)
    for update, expected in points.items():
        assert factor(update, 50) == pytest.approx(expected, abs=1e-12), update


def fairseq_tri_stage(update, *, peak, phases, scale_start, scale_end) -> float:
    """Return the rate after `update` updates as fairseq's and torchaudio's schedulers define it."""
    warmup, hold, decay = phases
    if update < warmup:
        return peak * scale_start + update * (peak - peak * scale_start) / warmup
    if update < warmup + hold:
        return peak
    if update <= warmup + hold + decay:
        return peak * math.exp(math.log(scale_end) / decay * (update - warmup - hold))
    return peak * scale_end


def test_tri_stage_is_fairseqs():
    """Of HuBERT's fine-tuning: 2,000 of warm-up, 8,000 held, 10,000 of decay."""
    factor = build_class(SCHEDULES, TriStageConfig())(TriStageConfig(start=0.01))
    for update in (1, 2, 1999, 2000, 2001, 9999, 10000, 10001, 15000, 20000):
        expected = fairseq_tri_stage(
            update, peak=5e-5, phases=(2000, 8000, 10000), scale_start=0.01, scale_end=0.05
        )
        assert 5e-5 * factor(update, 20000) == pytest.approx(expected, rel=1e-9), update


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("updates", [1, 7, 5000])
def test_every_schedule_stays_between_0_and_the_peak(name, updates):
    schema, make = SCHEDULES[name]
    factor = make(schema())
    values = [factor(update, updates) for update in range(1, updates + 1)]
    assert all(0.0 <= value <= 1.0 and math.isfinite(value) for value in values)
    peak = values.index(max(values))
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)
