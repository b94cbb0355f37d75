"""Alignment of a hypothesis with its reference as NIST sclite makes it, and the counts of it.

`align` is the one core of the scorer: WER, CER and TER differ only in the tokens they hand to it.
"""

import math
from collections.abc import Iterator, Sequence
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


def percent_text(part: int, whole: int, *, decimals: int = 1) -> str | None:
    """Return `part` in percent of `whole` as text; None if there is no whole.

    Rounded with sclite's arithmetic, doubles included, so that every digit is the one it prints:
    halves go up (2 of 32 is 6.3, where Python's format gives 6.2), and 57 of 400 is 14.2 as
    57 / 400 * 100 comes out below 14.25.
    """
    if not whole:
        return None
    scale = 10**decimals
    return f"{math.floor(part / whole * 100 * scale + 0.5) / scale:.{decimals}f}"


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
    """Return the alignment of lowest cost (sub 4, ins 3, del 3) that sclite would print.

    Tokens are compared literally: case counts, no character is markup. Of several paths of the same
    cost sclite takes the one that, read from the end, steps diagonally before it inserts and
    inserts before it deletes (found by comparing the six orders in both directions with sclite's
    output; kaldialign's `sclite_mode` has sclite's costs but another order: other counts for one
    random pair in a hundred, see tools/benchmarks/sclite_parity.py).

    One row of the table is three numpy calls: about 3 us for each reference token.
    """
    reference, hypothesis = tuple(reference), tuple(hypothesis)
    rows, columns = len(reference), len(hypothesis)
    # A match at the end is always on the path that is read from the end: no table needed for it.
    while rows and columns and reference[rows - 1] == hypothesis[columns - 1]:
        rows, columns = rows - 1, columns - 1
    tail = CORRECT * (len(reference) - rows)
    if rows == 0 or columns == 0:
        return Alignment(reference, hypothesis, DELETED * rows + INSERTED * columns + tail)
    gains = _gains(_codes(reference[:rows], hypothesis[:columns]), rows)
    return Alignment(reference, hypothesis, _path_from_end(gains, _best(gains)) + tail)


def _codes(reference: tuple[str, ...], hypothesis: tuple[str, ...]) -> np.ndarray:
    """Return both token sequences, one after the other, as numbers (equal tokens, equal number)."""
    known: dict[str, int] = {}
    codes = [known.setdefault(token, len(known)) for token in (*reference, *hypothesis)]
    return np.array(codes, dtype=np.int32)


# With n reference and m hypothesis tokens a path costs 3D + 3I + 4S = 3(n + m) - 2(3C + S). So the
# cheapest path is the one of the highest gain 3C + S, where steps to the side gain nothing: a
# running maximum finds them for a whole row at once.
_MATCH_GAIN = (DELETION_COST + INSERTION_COST) // 2
_SUBSTITUTION_GAIN = (DELETION_COST + INSERTION_COST - SUBSTITUTION_COST) // 2


def _gains(codes: np.ndarray, rows: int) -> np.ndarray:
    """Return what a diagonal step gains at each pair of tokens, (rows, columns)."""
    equal = codes[:rows, None] == codes[None, rows:]
    return np.where(equal, np.int32(_MATCH_GAIN), np.int32(_SUBSTITUTION_GAIN))


def _best(gains: np.ndarray) -> np.ndarray:
    """Return the highest gain of a path from the start to each cell, (rows + 1, columns + 1)."""
    rows, columns = gains.shape
    best = np.zeros((rows + 1, columns + 1), dtype=np.int32)
    for row in range(1, rows + 1):
        here, above = best[row, 1:], best[row - 1]
        np.add(above[:-1], gains[row - 1], out=here)
        np.maximum(here, above[1:], out=here)
        np.maximum.accumulate(here, out=here)
    return best


def _path_from_end(gains: np.ndarray, best: np.ndarray) -> str:
    """Return the steps in time order: diagonal before insertion before deletion, from the end."""
    row, column = gains.shape
    steps = []
    while row and column:
        gain = gains.item(row - 1, column - 1)
        here = best.item(row, column)
        if here == best.item(row - 1, column - 1) + gain:
            row, column = row - 1, column - 1
            steps.append(CORRECT if gain == _MATCH_GAIN else SUBSTITUTED)
        elif here == best.item(row, column - 1):
            column -= 1
            steps.append(INSERTED)
        else:
            row -= 1
            steps.append(DELETED)
    return DELETED * row + INSERTED * column + "".join(reversed(steps))
