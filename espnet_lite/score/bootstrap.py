"""Intervals of error rates and of their differences by bootstrap over speakers or utterances.

Utterances of a speaker err together, so whole speakers are drawn where there are enough of them
(Bisani & Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP
2004, with its paired form).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SPEAKERS, UTTERANCES = "speakers", "utterances"
# Of fewer speakers no draw tells how speakers differ, and an interval would be too short.
FEWEST_SPEAKERS = 10
DRAWS = 1000  # of a single rate; its bounds then move by some hundredths of their distance

_DRAWN_AT_ONCE = 1 << 22  # numbers: some ten MB


def bounds_text(low: float, high: float) -> str:
    """Return `[4.6, 8.7]`: the bounds of an interval in percent, as all tables show them."""
    return f"[{low:.1f}, {high:.1f}]"


@dataclass(frozen=True)
class Interval:
    """A value in percent, and the bounds that hold 95 % of the draws."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return `12.3 [11.0, 13.9]`."""
        return f"{self.value:.1f} {bounds_text(self.low, self.high)}"


@dataclass(frozen=True)
class PairedDifference:
    """Error rates of two systems on the same references, in percent, and first minus second.

    Attributes:
        improbability: share of draws in which the difference has the other sign, or is none.
    """

    first: Interval
    second: Interval
    difference: Interval
    improbability: float

    @property
    def p_value(self) -> float:
        """Return the two-sided significance level: twice the improbability, at most 1."""
        return min(1.0, 2 * self.improbability)


def drawn_sums(
    values: Sequence[Sequence[float | int]] | np.ndarray, *, draws: int, seed: int
) -> np.ndarray:
    """Return the sums of each row of `values` over draws of its n columns with replacement.

    Args:
        values: shape [rows, n]; a draw takes the same columns of all rows.

    Returns:
        float64 of shape [rows, draws].
    """
    values = np.asarray(values, dtype=np.float64)
    random = np.random.default_rng(seed)
    size = values.shape[1]
    sums = np.empty((len(values), draws))
    at_once = max(1, _DRAWN_AT_ONCE // size)
    for start in range(0, draws, at_once):
        stop = min(draws, start + at_once)
        drawn = random.integers(size, size=(stop - start, size), dtype=np.int32)
        for row, value in enumerate(values):
            sums[row, start:stop] = value[drawn].sum(axis=1)
    return sums


def rate_interval(
    errors: Sequence[int], tokens: Sequence[int], *, draws: int = DRAWS, seed: int = 0
) -> Interval | None:
    """Return the error rate in percent and its interval; None where there are no tokens, or one unit
    alone, of which there is but one draw.

    Args:
        errors, tokens: of each speaker, or of each utterance, shape [n].
    """
    if len(tokens) < 2 or sum(tokens) == 0:
        return None
    drawn_errors, drawn_tokens = drawn_sums([errors, tokens], draws=draws, seed=seed)
    with_tokens = drawn_tokens > 0
    rates = 100 * drawn_errors[with_tokens] / drawn_tokens[with_tokens]
    return _interval(100 * sum(errors) / sum(tokens), rates)


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
        first_errors, second_errors: of each speaker or utterance, for instance the mean over seeds,
            shape [n].
        tokens: of the same references, shape [n]; not all zero.
        draws: of n speakers or utterances each, with replacement.
        seed: of the draws.
    """
    values = np.asarray([first_errors, second_errors, tokens], dtype=np.float64)
    drawn = drawn_sums(values, draws=draws, seed=seed)
    drawn = drawn[:, drawn[2] > 0]
    first, second = 100 * drawn[:2] / drawn[2]
    whole = 100 * values[:2].sum(axis=1) / values[2].sum()
    value, difference = whole[0] - whole[1], first - second
    improbability = float(np.mean(difference <= 0 if value > 0 else difference >= 0))
    return PairedDifference(
        _interval(whole[0], first),
        _interval(whole[1], second),
        _interval(value, difference),
        improbability,
    )


def _interval(value: float, draws: np.ndarray) -> Interval:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))


def interval_to_plain(interval: Interval, *, over: str, drawn: int) -> dict:
    """Return the JSON form of the interval of a rate, in percent with 4 decimals.

    Args:
        over: what was drawn, SPEAKERS or UTTERANCES, and `drawn` how many of them.
    """
    return {
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
        "over": over,
        "drawn": drawn,
    }


def interval_of_speakers(speakers: Mapping[str, Sequence[int]]) -> dict | None:
    """Return the JSON form of the interval of `{speaker: (errors, tokens)}`.

    None where there are fewer than FEWEST_SPEAKERS, or no tokens.
    """
    if len(speakers) < FEWEST_SPEAKERS:
        return None
    errors, tokens = zip(*speakers.values(), strict=True)
    interval = rate_interval(errors, tokens)
    return interval and interval_to_plain(interval, over=SPEAKERS, drawn=len(speakers))
