"""Batches by seconds: utterances of like length together, the same for the same (seed, epoch)."""

from collections.abc import Sequence

import numpy as np

# Spread of the random factor on a length before sorting. Batches differ from epoch to epoch while
# the padding it costs stays below a twentieth of the batch on average.
LENGTH_JITTER = 0.05


def epoch_generator(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    """Return the random numbers of one purpose in one epoch, apart from those of any other."""
    return np.random.default_rng([seed, epoch, purpose])


def draw_seed(seed: int, epoch: int, position: int) -> int:
    """Return the seed (63 bits) of the batch at `position` of an epoch."""
    state = np.random.SeedSequence([seed, epoch, position]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def plan_batches(
    num_samples: Sequence[int] | np.ndarray,
    *,
    batch_samples: int,
    max_batch_utterances: int | None = None,
    generator: np.random.Generator | None = None,
    short_first: bool = False,
) -> list[list[int]]:
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
    """
    lengths = np.asarray(num_samples, dtype=np.int64)
    if lengths.size == 0:
        return []
    keys = lengths.astype(np.float64)
    if generator is not None:
        keys *= 1 + LENGTH_JITTER * (2 * generator.random(lengths.size) - 1)
    order = np.argsort(keys, kind="stable")
    batches: list[list[int]] = []
    batch: list[int] = []
    longest = 0
    for position in order.tolist():
        longest_with = max(longest, int(lengths[position]))
        is_full = max_batch_utterances is not None and len(batch) >= max_batch_utterances
        if batch and (is_full or longest_with * (len(batch) + 1) > batch_samples):
            batches.append(batch)
            batch, longest_with = [], int(lengths[position])
        batch.append(position)
        longest = longest_with
    batches.append(batch)
    if short_first:
        return batches
    if generator is None:
        return batches[::-1]
    return [batches[i] for i in np.argsort(generator.random(len(batches)), kind="stable")]


def shard(num_batches: int, *, rank: int = 0, world_size: int = 1) -> list[int]:
    """Return the positions of a rank's batches: every `world_size`-th one, from `rank` on.

    All ranks get equally many, or they would wait for each other for ever: the last round is
    filled up with the first batches again.
    """
    if num_batches == 0:
        return []
    rounds = -(-num_batches // world_size)
    return [(i * world_size + rank) % num_batches for i in range(rounds)]
