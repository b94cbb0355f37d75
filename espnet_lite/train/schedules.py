"""Learning-rate schedules by name: a factor of the peak as a function of the update."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from espnet_lite.config import check_numbers

Schedule = Callable[[int, int], float]  # (update counted from 1, updates in all) -> factor


@dataclass(frozen=True)
class WarmupCosineConfig:
    """Linear warm-up, then half a cosine down to `floor`."""

    warmup_updates: int = 1000  # 0: none
    floor: float = 0.0  # of the peak, at the last update

    def __post_init__(self):
        check_numbers(self, "warmup_updates", at_least=0)
        check_numbers(self, "floor", at_least=0, at_most=1)


@dataclass(frozen=True)
class WarmupInverseRootConfig:
    """Linear warm-up, then 1/√update (the Noam schedule, scaled to a peak of 1)."""

    warmup_updates: int = 2500

    def __post_init__(self):
        check_numbers(self, "warmup_updates", at_least=1)


@dataclass(frozen=True)
class WarmupLinearConfig:
    """Linear warm-up, then linear decay to 0 (HuBERT pre-training)."""

    warmup_updates: int = 1000  # 0: none

    def __post_init__(self):
        check_numbers(self, "warmup_updates", at_least=0)


@dataclass(frozen=True)
class TriStageConfig:
    """Warm-up, hold, exponential decay (wav2vec 2.0 and HuBERT fine-tuning), as parts of the run."""

    warmup_part: float = 0.1
    hold_part: float = 0.4
    start: float = 0.0  # of the peak, before the first update; fairseq's init_lr_scale is 0.01
    floor: float = 0.05  # of the peak, at the last update; fairseq's final_lr_scale

    def __post_init__(self):
        check_numbers(self, "warmup_part hold_part start floor", at_least=0, at_most=1)
        if self.warmup_part + self.hold_part > 1:
            parts = f"warmup_part {self.warmup_part} and hold_part {self.hold_part}"
            raise ValueError(f"{parts} are more than the whole training")


def warmup_cosine(config: WarmupCosineConfig) -> Schedule:
    """Return the factor of WarmupCosineConfig."""

    def factor(update: int, updates: int) -> float:
        if update <= config.warmup_updates:
            return update / config.warmup_updates
        done = (update - config.warmup_updates) / max(1, updates - config.warmup_updates)
        return config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor


def warmup_inverse_root(config: WarmupInverseRootConfig) -> Schedule:
    """Return the factor of WarmupInverseRootConfig."""

    def factor(update: int, updates: int) -> float:
        return min(update / config.warmup_updates, math.sqrt(config.warmup_updates / update))

    return factor


def warmup_linear(config: WarmupLinearConfig) -> Schedule:
    """Return the factor of WarmupLinearConfig."""

    def factor(update: int, updates: int) -> float:
        if update <= config.warmup_updates:
            return update / config.warmup_updates
        return max(0.0, (updates - update) / max(1, updates - config.warmup_updates))

    return factor


def tri_stage(config: TriStageConfig) -> Schedule:
    """Return the factor of TriStageConfig."""

    def factor(update: int, updates: int) -> float:
        warmup, hold = config.warmup_part * updates, config.hold_part * updates
        if update < warmup:
            return config.start + (1 - config.start) * update / warmup
        if update < warmup + hold:
            return 1.0
        done = (update - warmup - hold) / max(1.0, updates - warmup - hold)
        return config.floor ** min(1.0, done)

    return factor


SCHEDULES = {
    "warmup_cosine": (WarmupCosineConfig, warmup_cosine),
    "warmup_inverse_root": (WarmupInverseRootConfig, warmup_inverse_root),
    "warmup_linear": (WarmupLinearConfig, warmup_linear),
    "tri_stage": (TriStageConfig, tri_stage),
}
