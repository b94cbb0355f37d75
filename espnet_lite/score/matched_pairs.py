"""Matched pairs sentence-segment word error test (MAPSSWE) of two recognizers.

Errors of neighbouring words depend on each other, those of segments hardly do: an utterance is cut
where both systems have two words in a row right, and the differences of their errors in the
segments between are taken as independent (Gillick & Cox, "Some statistical issues in the comparison
of speech recognition algorithms", ICASSP 1989). Segments, mean, deviation and Z are those of NIST
`sc_stats -t mapsswe`.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from espnet_lite.score.alignment import CORRECT, INSERTED

_CORRECT_BETWEEN = 2  # words in a row that part two segments; of sc_stats


@dataclass(frozen=True)
class MatchedPairs:
    """What the test finds; errors of the first system minus those of the second.

    Attributes:
        segments: with an error of one of the systems at least.
        mean, deviation: of the differences; the deviation is that of a sample (n − 1).
        z: how many deviations of the mean it is from none; None where there is no deviation.
        p_value: two-sided, that of the normal distribution; 1 where no segment differs.
    """

    segments: int
    mean: float
    deviation: float
    z: float | None
    p_value: float


def matched_pairs(pairs: Iterable[tuple[str, str]]) -> MatchedPairs:
    """Return the test of `(steps of the first system, steps of the second)` of each utterance.

    Args:
        pairs: steps are letters of `CSDI`, both against the same reference.
    """
    differences = [first - second for pair in pairs for first, second in segments(*pair)]
    count = len(differences)
    if count < 2:
        mean = float(sum(differences))
        return MatchedPairs(count, mean, 0.0, None, 1.0)
    mean = sum(differences) / count
    deviation = math.sqrt(sum((one - mean) ** 2 for one in differences) / (count - 1))
    if deviation == 0:
        return MatchedPairs(count, mean, 0.0, None, 1.0 if mean == 0 else 0.0)
    z = mean / (deviation / math.sqrt(count))
    return MatchedPairs(count, mean, deviation, z, math.erfc(abs(z) / math.sqrt(2)))


def segments(first: str, second: str) -> Iterator[tuple[int, int]]:
    """Yield the errors of both systems in each segment of an utterance.

    A segment goes from an error of one of them to the next two words in a row that both have
    right, with nothing inserted between, or to the end.
    """
    errors, correct = None, 0
    for first_errors, second_errors, is_word in _places(first, second):
        if first_errors or second_errors:
            before = errors or (0, 0)
            errors, correct = (before[0] + first_errors, before[1] + second_errors), 0
        elif is_word:
            correct += 1
            if errors is not None and correct >= _CORRECT_BETWEEN:
                yield errors
                errors = None
    if errors is not None:
        yield errors


def _places(first: str, second: str) -> Iterator[tuple[int, int, bool]]:
    """Yield the errors of both at each place: gap, word, gap, ..., word, gap."""
    for (first_gap, first_word), (second_gap, second_word) in zip(
        _words(first), _words(second), strict=True
    ):
        yield first_gap, second_gap, False
        if first_word is not None and second_word is not None:
            yield int(first_word != CORRECT), int(second_word != CORRECT), True


def _words(steps: str) -> Iterator[tuple[int, str | None]]:
    """Yield for each reference word the insertions before it and its step; at last, with None,
    those after the last word."""
    inserted = 0
    for step in steps:
        if step == INSERTED:
            inserted += 1
        else:
            yield inserted, step
            inserted = 0
    yield inserted, None
