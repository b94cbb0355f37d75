"""Alignment of a hypothesis with its reference as NIST sclite makes it, and the counts of it.

`align_all` is the one core of the scorer: WER, CER and TER differ only in the tokens they hand to it.
"""

import itertools
import math
import re
from collections import defaultdict
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


_RUNS = re.compile(f"{CORRECT}+|.")


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

    def runs(self) -> Iterator[tuple[str, int, int]]:
        """Yield `(steps, row, column)` of each run of correct tokens and of each error: its steps, and
        where in the reference and in the hypothesis it begins."""
        row = column = 0
        for run in _RUNS.finditer(self.steps):
            steps = run[0]
            yield steps, row, column
            if steps != INSERTED:
                row += len(steps)
            if steps != DELETED:
                column += len(steps)

    def error_columns(self) -> Iterator[tuple[str, str | None, str | None]]:
        """Yield those of `columns` that are errors."""
        for steps, row, column in self.runs():
            if steps[0] != CORRECT:
                yield (
                    steps,
                    None if steps == INSERTED else self.reference[row],
                    None if steps == DELETED else self.hypothesis[column],
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

    Pairs of like lengths are aligned together, in a band around the diagonal that grows until no
    path outside of it can be as cheap (Ukkonen, "Algorithms for approximate string matching",
    1985): some numpy calls for each row of all their tables and for each step of all their paths.
    """
    codes: dict[str, int] = defaultdict(itertools.count().__next__)  # a number for each new token
    pairs = [(tuple(reference), tuple(hypothesis)) for reference, hypothesis in pairs]
    tokens = itertools.chain.from_iterable(itertools.chain.from_iterable(pairs))
    numbers = np.fromiter(map(codes.__getitem__, tokens), np.int32)
    if len(codes) <= np.iinfo(np.int16).max:
        numbers = numbers.astype(np.int16)  # as a table's, so that both are compared faster
    tasks, start = [], 0
    for index, (reference, hypothesis) in enumerate(pairs):
        middle = start + len(reference)
        end = middle + len(hypothesis)
        tasks.append(_Task.of(index, numbers[start:middle], numbers[middle:end]))
        start = end
    found = [""] * len(pairs)
    while tasks:
        again = []
        for batch in _batches(tasks):
            for task, result in zip(batch, _paths(batch), strict=True):
                if isinstance(result, str):
                    found[task.index] = task.whole(result, *pairs[task.index])
                else:
                    task.reach = result
                    again.append(task)
        tasks = again
    return [Alignment(*pair, steps) for pair, steps in zip(pairs, found, strict=True)]


@dataclass(slots=True)
class _Task:
    """What is to align of a pair: all but the `head` equal tokens that it begins with and the `tail`
    that it ends with, as numbers (equal tokens, equal number).

    The band to look in goes `reach` diagonals beyond those of both ends.
    """

    index: int
    reference: np.ndarray
    hypothesis: np.ndarray
    head: int
    tail: int
    reach: int

    @classmethod
    def of(cls, index: int, reference: np.ndarray, hypothesis: np.ndarray) -> "_Task":
        """Return the task of a pair."""
        # A match at the end is always on the path that is read from the end.
        tail = _equal_at_the_start(reference[::-1], hypothesis[::-1])
        reference = reference[: len(reference) - tail]
        hypothesis = hypothesis[: len(hypothesis) - tail]
        head = _equal_at_the_start(reference, hypothesis)
        return cls(index, reference[head:], hypothesis[head:], head, tail, _FIRST_REACH)

    def whole(self, steps: str, reference: Sequence[str], hypothesis: Sequence[str]) -> str:
        """Return the steps of the whole pair, from those of what is between head and tail.

        The best path to any place (row, column) of which one is within the head gains min(row, column)
        matches. So the head changes no gain behind it, and within it, once the path is beside the
        diagonal, it is known without a table: read from the end, a match where there is one and else
        a step towards the diagonal. Only the first steps between, which go along the edge, belong to
        what is read so.
        """
        row = column = self.head
        for edge in (INSERTED, DELETED):
            rest = steps.lstrip(edge)
            if edge == INSERTED:
                column += len(steps) - len(rest)
            else:
                row += len(steps) - len(rest)
            if len(rest) < len(steps):
                break
        before = []
        while row != column and row and column:
            if reference[row - 1] == hypothesis[column - 1]:
                before.append(CORRECT)
                row, column = row - 1, column - 1
            elif column > row:
                before.append(INSERTED)
                column -= 1
            else:
                before.append(DELETED)
                row -= 1
        shared = min(row, column)
        first = CORRECT * shared + INSERTED * (column - shared) + DELETED * (row - shared)
        return first + "".join(reversed(before)) + rest + CORRECT * self.tail

    @property
    def surplus(self) -> int:
        """Return how many tokens more the hypothesis has."""
        return len(self.hypothesis) - len(self.reference)

    @property
    def rows(self) -> int:
        return len(self.reference) + 1

    @property
    def width(self) -> int:
        """Return how many diagonals the band has."""
        return 2 * self.reach + abs(self.surplus) + 1


def _equal_at_the_start(reference: np.ndarray, hypothesis: np.ndarray) -> int:
    shared = min(len(reference), len(hypothesis))
    differs = reference[:shared] != hypothesis[:shared]
    return int(differs.argmax()) if differs.any() else shared


_FIRST_REACH = 8
_CELLS = 1 << 22  # of the tables of a batch, two bytes each
_WIDTHS = 16  # so many widths of a band are aligned together


def _batches(tasks: Sequence[_Task]) -> Iterator[list[_Task]]:
    """Yield tasks to align together: those of like size."""
    by_width: dict[int, list[_Task]] = defaultdict(list)
    for task in tasks:
        by_width[-(-task.width // _WIDTHS)].append(task)
    for widths, alike in by_width.items():
        alike.sort(key=lambda task: task.rows)
        batch: list[_Task] = []
        for task in alike:
            if batch and task.rows * widths * _WIDTHS * (len(batch) + 1) > _CELLS:
                yield batch
                batch = []
            batch.append(task)
        yield batch


# With n reference and m hypothesis tokens a path costs 3D + 3I + 4S = 3(n + m) - 2(3C + S). So the
# cheapest path is the one of the highest gain 3C + S, where steps to the side gain nothing: a
# running maximum finds them for a whole row at once.
_MATCH_GAIN = (DELETION_COST + INSERTION_COST) // 2
_SUBSTITUTION_GAIN = (DELETION_COST + INSERTION_COST - SUBSTITUTION_COST) // 2
_BEFORE, _BEYOND = -1, -2  # what stands for tokens before the first and after the last
_NO_REFERENCE = -3


def _paths(batch: Sequence[_Task]) -> list[str | int]:
    """Return the steps of each task in time order; where a path that leaves the band might be as cheap
    as the best one within, a reach that no path as cheap can leave.

    The band of a task goes along the diagonal: place j of row r is column r + j − `left`.
    """
    rows = max(2, *(task.rows for task in batch))  # 2: so that there is a token to look at
    width = max(task.width for task in batch)
    left = np.array([task.reach + max(0, -task.surplus) for task in batch])
    number = batch[0].reference.dtype
    reference = np.full((rows - 1, len(batch)), _NO_REFERENCE, number)
    hypothesis = np.full((rows - 1 + width, len(batch)), _BEYOND, number)
    for index, task in enumerate(batch):
        reference[: len(task.reference), index] = task.reference
        hypothesis[: left[index], index] = _BEFORE
        last = min(left[index] + len(task.hypothesis), len(hypothesis))
        hypothesis[left[index] : last, index] = task.hypothesis[: last - left[index]]
    row = np.array([len(task.reference) for task in batch])
    surplus = np.array([task.surplus for task in batch])
    best = _best(reference, hypothesis, width)
    gain = best[row, 1 + surplus + left, np.arange(len(batch))]
    cost = DELETION_COST * row + INSERTION_COST * (row + surplus) - 2 * gain
    # To come to a diagonal outside and from there to the end takes so many steps to the side.
    aside = np.minimum(
        2 * (left + 1) + surplus,  # the diagonal −left − 1
        2 * (width - left) - surplus,
    )
    is_whole = (left >= row) & (width - left > row + surplus)
    is_decided = is_whole | (cost < DELETION_COST * aside)
    # The least reach with cost < DELETION_COST · (2 · (reach + 1) + |surplus|).
    results: list[str | int] = ((cost // DELETION_COST - np.abs(surplus)) // 2).tolist()
    chosen = np.flatnonzero(is_decided)
    found = _read_from_end(
        best,
        reference,
        hypothesis,
        pair=chosen,
        row=row[chosen],
        left=left[chosen],
        column=(row + surplus)[chosen],
    )
    for index, steps in zip(chosen, found, strict=True):
        results[index] = steps
    return results


def _best(reference: np.ndarray, hypothesis: np.ndarray, width: int) -> np.ndarray:
    """Return the highest gain of a path from the start to each place, (rows + 1, 1 + width, pairs),
    after a −1 that stands before the first place of each row.

    Before the first column there is no gain; what is beyond the end of a pair has no part in what
    is before it.
    """
    rows, pairs = reference.shape
    is_small = _MATCH_GAIN * (rows + 1) <= np.iinfo(np.int16).max
    best = np.zeros((rows + 1, 1 + width, pairs), np.int16 if is_small else np.int32)
    best[:, 0] = -1
    aside = np.where(hypothesis == _BEFORE, 0, _SUBSTITUTION_GAIN).astype(best.dtype)
    more = best.dtype.type(_MATCH_GAIN - _SUBSTITUTION_GAIN)
    for row in range(rows):
        here, above = best[row + 1, 1:], best[row, 1:]
        np.multiply(hypothesis[row : row + width] == reference[row], more, out=here)
        here += aside[row : row + width]
        here += above
        np.maximum(here[:-1], above[1:], out=here[:-1])
        step = 1  # the running maximum: of 2, 4, 8, … places
        while step < width:
            np.maximum(here[step:], here[:-step], out=here[step:])
            step *= 2
    return best


# By what is added to a place for each kind of step: deleted, inserted, substituted, correct.
_LETTERS = np.array([*map(ord, (DELETED, INSERTED, SUBSTITUTED, CORRECT))], np.uint8)
_ROWS_BACK, _COLUMNS_BACK = np.array([1, 0, 1, 1]), np.array([0, 1, 1, 1])


def _read_from_end(
    best: np.ndarray,
    reference: np.ndarray,
    hypothesis: np.ndarray,
    *,
    pair: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    left: np.ndarray,
) -> list[str]:
    """Return the steps in time order: diagonal before insertion before deletion, from the end.

    Args:
        pair: which ones of the batch to read.
        row, column: of the end of each of them.
        left: places of each of them to the left of the diagonal.
    """
    # All places are numbers of the flat arrays: of the best gain, and of the tokens before it.
    _, width, pairs = best.shape
    first = left * pairs
    at = (row * width + column - row + left + 1) * pairs + pair
    expected, found = (row - 1) * pairs + pair, (column - 1 + left) * pairs + pair
    back = (_ROWS_BACK * (width - 1) + _COLUMNS_BACK) * pairs
    rows_back, columns_back = _ROWS_BACK * pairs, _COLUMNS_BACK * pairs
    best, reference, hypothesis = best.ravel(), reference.ravel(), hypothesis.ravel()
    letters = []  # of the paths that are still inside, last step first
    inside = np.arange(len(pair))
    edge = np.zeros((len(pair), 2), np.int64)  # row and column where a path comes to an edge
    while True:
        is_inside = (expected >= 0) & (found >= first)
        if not is_inside.all():
            ended = ~is_inside
            edge[inside[ended], 0] = expected[ended] // pairs + 1
            edge[inside[ended], 1] = (found - first)[ended] // pairs + 1
            inside, first, at, expected, found = (
                x[is_inside] for x in (inside, first, at, expected, found)
            )
        if not len(inside):
            break
        here = best[at]
        is_equal = reference[expected] == hypothesis[found]
        gain = _SUBSTITUTION_GAIN + (_MATCH_GAIN - _SUBSTITUTION_GAIN) * is_equal
        is_diagonal = here == best[at - width * pairs] + gain
        kind = np.where(is_diagonal, 2 + is_equal, here == best[at - pairs])
        letters.append((inside, _LETTERS[kind]))
        at = at - back[kind]
        expected = expected - rows_back[kind]
        found = found - columns_back[kind]
    lines = np.zeros((len(pair), len(letters)), np.uint8)
    for number, (inside, letter) in enumerate(reversed(letters)):
        lines[inside, number] = letter
    return [
        INSERTED * column + DELETED * row + line.tobytes().lstrip(b"\0").decode("ascii")
        for (row, column), line in zip(edge.tolist(), lines, strict=True)
    ]
