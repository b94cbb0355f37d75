"""Values in the tables of a data directory: segments of recordings and counts of samples."""

import math
from dataclasses import dataclass

from espnet_lite.errors import InputError

_MOST_SAMPLES = 2**62  # far beyond any recording; sums of some still fit in 64 bits


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a recording; `end_seconds` None means to its end."""

    recording: str
    start_seconds: float
    end_seconds: float | None


def parse_segment(value: str, *, where: str) -> Segment:
    """Return the segment of a line `recording start end` of a segments file.

    Raises:
        InputError: not three fields, not numbers, a negative start, or an end before the start.
    """
    fields = value.split()
    if len(fields) != 3:
        raise InputError(
            f"'{value}', expected '<utterance> <recording> <start> <end>'", where=where
        )
    try:
        start, end = float(fields[1]), float(fields[2])
    except ValueError:
        raise InputError(
            f"start '{fields[1]}' and end '{fields[2]}', expected seconds", where=where
        ) from None
    to_the_end = end == -1  # Kaldi's mark for "as long as the recording"
    if not (math.isfinite(start) and math.isfinite(end)) or start < 0:
        raise InputError(f"start {fields[1]} and end {fields[2]}, expected 0 ≤ start", where=where)
    if not to_the_end and end <= start:
        raise InputError(
            f"end {fields[2]} is not after start {fields[1]}, expected start < end in seconds",
            where=where,
        )
    return Segment(fields[0], start, None if to_the_end else end)


def parse_count(value: str, *, where: str) -> int:
    """Return a positive whole number.

    Raises:
        InputError: it is not one.
    """
    is_number = value.isascii() and value.isdigit()
    if not is_number or not 0 < int(value) <= _MOST_SAMPLES:
        raise InputError(f"'{value}', expected a positive number of samples", where=where)
    return int(value)
