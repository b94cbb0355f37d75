"""Alignment of a hypothesis with its reference as NIST sclite makes it, and the counts of it.

`align_all` is the one core of the scorer: WER, CER and TER differ only in the tokens they hand to it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# sclite's costs (sctk `sclite`, option `-i`: word alignment by dynamic programming).
SUBSTITUTION_COST = 4
INSERTION_COST = 3
DELETION_COST = 3

CORRECT, SUBSTITUTED, DELETED, INSERTED = "CSDI"  # sclite's own letters


@dataclass(frozen=True, slots=True)
class Counts:
    """Token counts of one utterance or, added up, of a speaker or a set."""

    utterances: int = 0
    correct: int = 0
    substituted: int = 0
    deleted: int = 0
    inserted: int = 0
    wrong_utterances: int = 0  # utterances with at least one error

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.utterances + other.utterances,
            self.correct + other.correct,
            self.substituted + other.substituted,
            self.deleted + other.deleted,
            self.inserted + other.inserted,
            self.wrong_utterances + other.wrong_utterances,
        )

    @property
    def tokens(self) -> int:
        """Return the number of reference tokens."""
        return self.correct + self.substituted + self.deleted

    @property
    def errors(self) -> int:
        return self.substituted + self.deleted + self.inserted

    def of_tokens(self, count: int) -> float | None:
        """Return `count` in percent of the reference tokens; None if there are no such tokens.

        A rate over nothing is no number. jiwer gives 0 or an error for it, sclite prints the bare
        count with a star for a speaker and 0.0 for the sum, which hides the insertions.
        """
        return 100.0 * count / self.tokens if self.tokens else None

    @property
    def error_rate(self) -> float | None:
        """Return WER, CER or TER in percent, above 100 where insertions are many."""
        return self.of_tokens(self.errors)

    @property
    def utterance_error_rate(self) -> float | None:
        """Return sclite's S.Err: percent of the utterances with at least one error."""
        return 100.0 * self.wrong_utterances / self.utterances if self.utterances else None


def half_up(value: int | float, *, decimals: int = 1) -> float:
    """Return `value` rounded with sclite's arithmetic, doubles included: halves go up."""
    scale = 10**decimals
    return math.floor(value * scale + 0.5) / scale


def percent_text(part: int, whole: int, *, decimals: int = 1) -> str | None:
    """Return `part` in percent of `whole` as text; None if there is no whole.

    Every digit is the one that sclite prints: 2 of 32 is 6.3, where Python's format gives 6.2, and
    57 of 400 is 14.2 as 57 / 400 * 100 comes out below 14.25.
    """
    if not whole:
        return None
    return f"{half_up(part / whole * 100, decimals=decimals):.{decimals}f}"


@dataclass(frozen=True, slots=True)
class Alignment:
    """The best path through one pair: a letter of `CSDI` for each step, in time order."""

    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]
    steps: str

    @property
    def counts(self) -> Counts:
        correct = self.steps.count(CORRECT)
        return Counts(
            utterances=1,
            correct=correct,
            substituted=self.steps.count(SUBSTITUTED),
            deleted=self.steps.count(DELETED),
            inserted=self.steps.count(INSERTED),
            wrong_utterances=int(correct != len(self.steps)),
        )

    def columns(self) -> Iterator[tuple[str, str | None, str | None]]:
        """Yield `(step, reference token or None, hypothesis token or None)`."""
        reference, hypothesis = iter(self.reference), iter(self.hypothesis)
        for step in self.steps:
            yield (
                step,
                None if step == INSERTED else next(reference),
                None if step == DELETED else next(hypothesis),
            )


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> Alignment:
    """Return the alignment of one pair, as `align_all` makes it."""
    return align_all([(reference, hypothesis)])[0]


def align_all(pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> list[Alignment]:
    """Return for each (reference, hypothesis) the alignment of lowest cost (sub 4, ins 3, del 3)
    that sclite would print.

    Tokens are compared literally: case counts, no character is markup. Of several paths of the same
    cost sclite takes the one that, read from the end, steps diagonally before it inserts and
    inserts before it deletes (found by comparing the six orders in both directions with sclite's
    output; kaldialign's `sclite_mode` has sclite's costs but another order: other counts for one
    random pair in a hundred, see tools/benchmarks/sclite_parity.py).

    Pairs of like lengths are aligned together, a numpy call for each row of all their tables and
    some for each step of all their paths (`tools/benchmarks/scoring.py`).
    """
    known: dict[str, int] = {}
    pairs = [(tuple(reference), tuple(hypothesis)) for reference, hypothesis in pairs]
    codes = [
        tuple(
            np.array([known.setdefault(token, len(known)) for token in side], np.int32)
            for side in pair
        )
        for pair in pairs
    ]
    # A match at the end is always on the path that is read from the end: no table needed for it.
    tails = [_equal_at_the_end(*sides) for sides in codes]
    heads = [
        (reference[: len(reference) - tail], hypothesis[: len(hypothesis) - tail])
        for (reference, hypothesis), tail in zip(codes, tails, strict=True)
    ]
    steps = [""] * len(pairs)
    for batch in _batches([(len(reference), len(hypothesis)) for reference, hypothesis in heads]):
        found = _paths(*([heads[index][side] for index in batch] for side in (0, 1)))
        for index, path in zip(batch, found, strict=True):
            steps[index] = path
    return [
        Alignment(*pair, path + CORRECT * tail)
        for pair, path, tail in zip(pairs, steps, tails, strict=True)
    ]


def _equal_at_the_end(reference: np.ndarray, hypothesis: np.ndarray) -> int:
    shared = min(len(reference), len(hypothesis))
    if shared == 0:
        return 0
    differs = reference[len(reference) - shared :] != hypothesis[len(hypothesis) - shared :]
    return int(differs[::-1].argmax()) if differs.any() else shared


_CELLS = 1 << 20  # of the tables of a batch: as int16 they stay in the processor's cache


def _batches(sizes: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """Yield the indexes of pairs to align together, those with an empty side in none.

    Args:
        sizes: reference and hypothesis tokens of each pair.
    """
    batch: list[int] = []
    rows = columns = 0
    for index in sorted(range(len(sizes)), key=sizes.__getitem__):
        row, column = sizes[index]
        if row == column == 0:
            continue
        cells = (max(rows, row) + 1) * (max(columns, column) + 1)
        if batch and cells * (len(batch) + 1) > _CELLS:
            yield batch
            batch, rows, columns = [], 0, 0
        batch.append(index)
        rows, columns = max(rows, row), max(columns, column)
    if batch:
        yield batch


# With n reference and m hypothesis tokens a path costs 3D + 3I + 4S = 3(n + m) - 2(3C + S). So the
# cheapest path is the one of the highest gain 3C + S, where steps to the side gain nothing: a
# running maximum finds them for a whole row at once.
_MATCH_GAIN = (DELETION_COST + INSERTION_COST) // 2
_SUBSTITUTION_GAIN = (DELETION_COST + INSERTION_COST - SUBSTITUTION_COST) // 2


def _padded(sides: Sequence[np.ndarray], *, padding: int) -> np.ndarray:
    """Return the codes as columns of one array, (longest, pairs)."""
    padded = np.full((max(map(len, sides)), len(sides)), padding, np.int32)
    for index, side in enumerate(sides):
        padded[: len(side), index] = side
    return padded


def _paths(references: Sequence[np.ndarray], hypotheses: Sequence[np.ndarray]) -> list[str]:
    """Return the steps of each pair of codes, in time order."""
    reference, hypothesis = _padded(references, padding=-1), _padded(hypotheses, padding=-2)
    best = _best(reference, hypothesis)
    row = np.array([len(side) for side in references])
    column = np.array([len(side) for side in hypotheses])
    return _read_from_end(best, reference, hypothesis, row=row, column=column)


def _best(reference: np.ndarray, hypothesis: np.ndarray) -> np.ndarray:
    """Return the highest gain of a path from the start to each cell, (rows + 1, columns + 1, pairs).

    What is beyond the end of a pair has no part in what is before it.
    """
    rows, (columns, pairs) = len(reference), hypothesis.shape
    is_small = _MATCH_GAIN * min(rows, columns) <= np.iinfo(np.int16).max
    best = np.zeros((rows + 1, columns + 1, pairs), np.int16 if is_small else np.int32)
    gains = np.array([_SUBSTITUTION_GAIN, _MATCH_GAIN], best.dtype)
    for row in range(1, rows + 1):
        here, above = best[row, 1:], best[row - 1]
        np.add(above[:-1], gains[(hypothesis == reference[row - 1]).view(np.int8)], out=here)
        np.maximum(here, above[1:], out=here)
        np.maximum.accumulate(here, axis=0, out=here)
    return best


def _read_from_end(
    best: np.ndarray,
    reference: np.ndarray,
    hypothesis: np.ndarray,
    *,
    row: np.ndarray,
    column: np.ndarray,
) -> list[str]:
    """Return the steps in time order: diagonal before insertion before deletion, from the end.

    Args:
        row, column: number of reference and hypothesis tokens of each pair.
    """
    pair = np.arange(len(row))
    columns = []  # of letters, last step first; 0 where a path has come to its start
    while (row | column).any():
        above, left = np.maximum(row - 1, 0), np.maximum(column - 1, 0)
        is_inside = (row > 0) & (column > 0)
        is_equal = np.zeros(len(row), bool)
        if len(reference) and len(hypothesis):
            is_equal = reference[above, pair] == hypothesis[left, pair]
        gain = np.where(is_equal, _MATCH_GAIN, _SUBSTITUTION_GAIN)
        here = best[row, column, pair]
        diagonal = is_inside & (here == best[above, left, pair] + gain)
        inserted = ~diagonal & (column > 0) & ((row == 0) | (here == best[row, left, pair]))
        deleted = ~diagonal & ~inserted & (row > 0)
        letters = np.where(is_equal, ord(CORRECT), ord(SUBSTITUTED)) * diagonal
        letters += ord(INSERTED) * inserted + ord(DELETED) * deleted
        columns.append(letters.astype(np.uint8))
        row = row - (diagonal | deleted)
        column = column - (diagonal | inserted)
    letters = np.stack(columns[::-1], axis=1)
    return [line.tobytes().lstrip(b"\0").decode("ascii") for line in letters]
