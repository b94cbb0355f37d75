"""Intervals of error rates and of their differences by bootstrap over speakers.

Utterances of a speaker err together, so whole speakers are drawn (Bisani & Ney, "Bootstrap estimates
for confidence intervals in ASR performance evaluation", ICASSP 2004, with its paired form).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A value in percent, and the bounds that hold 95 % of the draws."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return `12.3 [11.0, 13.9]`."""
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True)
class PairedDifference:
    """Error rates of two systems on the same speakers, in percent, and first minus second."""

    first: Interval
    second: Interval
    difference: Interval
    improbability: float  # share of draws in which the difference has the other sign, or is none


def draw_speakers(speakers: int, *, draws: int, seed: int) -> np.ndarray:
    """Return how often each speaker is in each draw, int64 of shape [draws, speakers]."""
    random = np.random.default_rng(seed)
    return random.multinomial(speakers, np.full(speakers, 1 / speakers), size=draws)


def paired_difference(
    first_errors: Sequence[float | int] | np.ndarray,
    second_errors: Sequence[float | int] | np.ndarray,
    *,
    tokens: Sequence[int] | np.ndarray,
    draws: int = 10_000,
    seed: int = 0,
) -> PairedDifference:
    """Return the rates of two systems and of their difference.

    Args:
        first_errors, second_errors: of each speaker, for instance the mean over seeds, shape [n].
        tokens: of the references of each speaker, shape [n]; not all zero.
        draws: of n speakers each, with replacement.
        seed: of the draws.
    """
    tokens = np.asarray(tokens, dtype=np.float64)
    counts = draw_speakers(len(tokens), draws=draws, seed=seed)
    counts = counts[counts @ tokens > 0]
    drawn = counts @ tokens
    rates, whole = [], []
    for errors in (first_errors, second_errors):
        errors = np.asarray(errors, dtype=np.float64)
        rates.append(100 * (counts @ errors) / drawn)
        whole.append(100 * errors.sum() / tokens.sum())
    difference = rates[0] - rates[1]
    value = whole[0] - whole[1]
    improbability = float(np.mean(difference <= 0 if value > 0 else difference >= 0))
    return PairedDifference(
        _interval(whole[0], rates[0]),
        _interval(whole[1], rates[1]),
        _interval(value, difference),
        improbability,
    )


def _interval(value: float, draws: np.ndarray) -> Interval:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))
