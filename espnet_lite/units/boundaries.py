"""How far the word boundaries of two alignments of the same speech lie apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from espnet_lite.units.textgrid import SILENCE, Interval, phone_class

WITHIN_SECONDS = (0.02, 0.05, 0.1)


@dataclass(frozen=True)
class BoundaryErrors:
    """Errors of starts and ends of words, in seconds; positive: later than in the reference."""

    starts: np.ndarray
    ends: np.ndarray

    @property
    def all(self) -> np.ndarray:
        return np.concatenate([self.starts, self.ends])


def boundary_errors(
    found: Sequence[Interval], reference: Sequence[Interval]
) -> BoundaryErrors | None:
    """Return the errors of one utterance; None where the words are others, whatever their case.

    Intervals that are silent (no label, sil, sp, spn, <eps>) are no words.
    """
    found, reference = _words(found), _words(reference)
    if [word for _, _, word in found] != [word for _, _, word in reference]:
        return None
    if not found:
        return BoundaryErrors(np.zeros(0), np.zeros(0))
    differences = np.array([one[:2] for one in found]) - np.array([one[:2] for one in reference])
    return BoundaryErrors(differences[:, 0], differences[:, 1])


def _words(intervals: Sequence[Interval]) -> list[Interval]:
    return [
        (start, end, label.strip().casefold())
        for start, end, label in intervals
        if phone_class(label) != SILENCE
    ]


def errors_to_plain(errors: np.ndarray) -> dict[str, float]:
    """Return median and mean of the distances, the median of the errors (early or late), all in
    milliseconds, and the part of the boundaries within some distances."""
    distances = np.abs(errors)
    plain = {
        "median_ms": round(1000 * float(np.median(distances)), 1),
        "mean_ms": round(1000 * float(distances.mean()), 1),
        "bias_ms": round(1000 * float(np.median(errors)), 1),
    }
    for seconds in WITHIN_SECONDS:
        plain[f"within_{round(1000 * seconds)}_ms"] = round(float((distances <= seconds).mean()), 4)
    return plain
