"""Batches by seconds: utterances of like length together, the same for the same (seed, epoch)."""

from collections.abc import Sequence
from typing import overload

import numpy as np

# Spread of the random factor on a length before sorting. Batches differ from epoch to epoch while
# the padding it costs stays below a twentieth of the batch on average.
LENGTH_JITTER = 0.05

_LENGTHS_AT_A_TIME = 65536  # as Python numbers, which take several times the memory of an array


def epoch_generator(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    """Return the random numbers of one purpose in one epoch, apart from those of any other."""
    return np.random.default_rng([seed, epoch, purpose])


def batch_generator(seed: int, epoch: int, position: int, purpose: int) -> np.random.Generator:
    """Return the random numbers of one purpose (> 0) in the batch at `position` of an epoch.

    Four numbers, the last not 0: never the state of `epoch_generator` or `draw_seed`.
    """
    return np.random.default_rng([seed, epoch, position, purpose])


def draw_seed(seed: int, epoch: int, position: int) -> int:
    """Return the seed (63 bits) of the batch at `position` of an epoch."""
    state = np.random.SeedSequence([seed, epoch, position]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


class BatchPlan(Sequence[np.ndarray]):
    """Batches of utterance positions: batch i is an int64 array.

    A million utterances take 8 MB and some for the batches, where lists would take ten times that.
    """

    def __init__(self, order: np.ndarray, starts: np.ndarray, turn: np.ndarray):
        """Hold the arrays of a plan.

        Args:
            order: positions of the utterances, batch after batch, shape [utterances].
            starts: first place of each batch in `order`, and its length, shape [batches + 1].
            turn: which of these batches comes first, second, …, shape [batches].
        """
        self._order = order
        self._starts = starts
        self._turn = turn

    def __len__(self) -> int:
        return len(self._turn)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        batch = self._turn[index]
        return self._order[self._starts[batch] : self._starts[batch + 1]]

    def tolist(self) -> list[list[int]]:
        """Return the batches as lists."""
        return [batch.tolist() for batch in self]


def plan_batches(
    num_samples: Sequence[int] | np.ndarray,
    *,
    batch_samples: int,
    max_batch_utterances: int | None = None,
    generator: np.random.Generator | None = None,
    short_first: bool = False,
    min_samples: int = 0,
    max_samples: int | None = None,
) -> BatchPlan:
    """Return batches of utterance positions, every utterance in exactly one.

    A batch costs its longest utterance × its number of utterances, so padding is paid for; the
    cost stays ≤ `batch_samples`, except for an utterance that is longer and goes alone.

    Args:
        num_samples: samples of each utterance as the model will see them.
        batch_samples: budget of a batch in samples, padding included.
        max_batch_utterances: most utterances in a batch; None = no limit.
        generator: jitters the lengths before sorting and shuffles the batches; None = exact
            lengths, longest first, so that a batch too large for memory shows at once.
        short_first: batches from short to long instead of shuffled or long to short.
        min_samples, max_samples: utterances shorter or longer than these are in no batch.
    """
    lengths = np.asarray(num_samples, dtype=np.int64)
    keys = lengths.astype(np.float64)
    if generator is not None:
        keys *= 1 + LENGTH_JITTER * (2 * generator.random(lengths.size) - 1)
    order = np.argsort(keys, kind="stable")
    if min_samples > 0:
        order = order[lengths[order] >= min_samples]
    if max_samples is not None:
        order = order[lengths[order] <= max_samples]
    most = lengths.size if max_batch_utterances is None else max_batch_utterances
    starts = _batch_starts(lengths[order], batch_samples=batch_samples, most=most)
    turn = np.arange(len(starts) - 1)
    if not short_first:
        shuffled = generator is not None
        turn = np.argsort(generator.random(len(turn)), kind="stable") if shuffled else turn[::-1]
    return BatchPlan(order, starts, turn)


def _batch_starts(lengths: np.ndarray, *, batch_samples: int, most: int) -> np.ndarray:
    """Return where batches begin that are filled one after the other, and the number of lengths."""
    starts: list[int] = []
    longest = count = 0
    for first in range(0, len(lengths), _LENGTHS_AT_A_TIME):
        part = lengths[first : first + _LENGTHS_AT_A_TIME].tolist()
        for place, length in enumerate(part, start=first):
            longest = max(longest, length)
            if not starts or count >= most or longest * (count + 1) > batch_samples:
                starts.append(place)
                longest, count = length, 0
            count += 1
    return np.array([*starts, len(lengths)], dtype=np.int64)
