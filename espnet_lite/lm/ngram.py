"""A back-off n-gram model as one tree in five arrays, queried for many states and words at once.

A node is an n-gram; node 0 is the empty one, its children are the unigrams, in the order of the
vocabulary, theirs the bigrams, and so on. Nodes stand order by order, each order sorted by (parent,
word): the children of a node lie side by side, and a node is found by bisection. The suffix of a node
is the longest n-gram of the model that it ends with, itself not counted.

    log p(w | h) = log_prob(h w) where the model has h w, else backoff(h) + log p(w | suffix of h)

A state is the node of the longest context that can matter to what follows. All logarithms are natural.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from espnet_lite.errors import InputError

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"  # words 0, 1 and 2 of every vocabulary
SPECIAL_WORDS = (UNKNOWN, BEGIN, END)
NEVER = -99.0 * np.log(10.0)  # log-probability of <s>, which is never predicted (SRILM's -99)


@dataclass(frozen=True)
class Level:
    """The n-grams of one order, sorted by (parent, word)."""

    parent: np.ndarray  # number within the order below; 0 for unigrams
    word: np.ndarray  # last word
    log_prob: np.ndarray
    backoff: np.ndarray  # log; 0 where nothing follows


class NgramModel:
    """Probabilities of words after words.

    Attributes:
        words: the vocabulary, SPECIAL_WORDS first.
        order: words of the longest n-gram.
        level_starts: first node of the unigrams, bigrams, …, and the number of nodes.
        parent, word, log_prob, backoff, suffix, state: of each node; int32 and float32. `state` is its
            longest suffix, itself counted, that can matter to what follows.
        first_child: of each node, and one behind the last; the children of n are those from
            first_child[n] to first_child[n + 1].
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        level_starts: np.ndarray,
        parent: np.ndarray,
        word: np.ndarray,
        log_prob: np.ndarray,
        backoff: np.ndarray,
    ):
        self.words = list(words)
        self.level_starts = level_starts
        self.order = len(level_starts) - 1
        self.parent, self.word = parent, word
        self.log_prob, self.backoff = log_prob, backoff
        self.first_child = (
            np.searchsorted(parent[1:], np.arange(len(parent) + 1)).astype(np.int32) + 1
        )
        self._keys = parent.astype(np.int64) * len(words) + word
        self.suffix = self._suffixes()
        self.state = self._states()

    @classmethod
    def from_levels(cls, words: Sequence[str], levels: Sequence[Level]) -> "NgramModel":
        """Return the model of the n-grams of each order, unigrams of all words first."""
        sizes = [len(level.word) for level in levels]
        starts = np.cumsum([1, *sizes])
        # First node of the order below; that of the unigrams is the root.
        below = [0, *starts[: len(levels) - 1]]
        root = [np.zeros(1)]
        parents = [level.parent + first for level, first in zip(levels, below, strict=True)]
        return cls(
            words,
            level_starts=starts,
            parent=np.concatenate([*root, *parents]).astype(np.int32),
            word=np.concatenate([*root, *(level.word for level in levels)]).astype(np.int32),
            log_prob=_joined([level.log_prob for level in levels]),
            backoff=_joined([level.backoff for level in levels]),
        )

    def __len__(self) -> int:
        """Return the number of nodes, the root counted."""
        return len(self.parent)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Return the place of each word in the vocabulary."""
        return {word: number for number, word in enumerate(self.words)}

    @property
    def start(self) -> int:
        """Return the state at the beginning of a sentence."""
        return int(self.state[1 + self.ids[BEGIN]])

    def score(self, states: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return log p(word | state), float32, and the states after the words; shapes broadcast."""
        node, words = np.broadcast_arrays(states, words)
        node, shape = node.ravel().astype(np.int64), node.shape
        words = words.ravel().astype(np.int64)
        total = np.zeros(len(node), dtype=np.float32)
        after = np.zeros(len(node), dtype=np.int64)
        searching = np.arange(len(node))
        while len(searching):
            child = self._child(node, words)
            found = child >= 0
            done = searching[found]
            after[done] = child[found]
            total[done] += self.log_prob[child[found]]
            missing = ~found
            searching, node, words = searching[missing], node[missing], words[missing]
            total[searching] += self.backoff[node]
            node = self.suffix[node].astype(np.int64)
        return total.reshape(shape), self.state[after].reshape(shape)

    def counts(self) -> list[int]:
        """Return the number of n-grams of each order."""
        return np.diff(self.level_starts).tolist()

    def _child(self, node: np.ndarray, word: np.ndarray) -> np.ndarray:
        """Return the node of each n-gram (words of `node`, word), −1 where the model has none."""
        keys = node * len(self.words) + word
        place = np.searchsorted(self._keys[1:], keys) + 1
        place[place == len(self._keys)] = 0  # beyond the last: no key of a child is the root's
        return np.where((self._keys[place] == keys) & (place > 0), place, -1)

    def _suffixes(self) -> np.ndarray:
        suffix = np.zeros(len(self.parent), dtype=np.int32)
        for first, last in zip(self.level_starts[1:-1], self.level_starts[2:], strict=True):
            nodes = np.arange(first, last)
            context = suffix[self.parent[nodes]].astype(np.int64)
            while len(nodes):
                child = self._child(context, self.word[nodes].astype(np.int64))
                found = child >= 0  # at the root at the latest: it has every word
                suffix[nodes[found]] = child[found]
                nodes, context = nodes[~found], suffix[context[~found]].astype(np.int64)
        return suffix

    def _states(self) -> np.ndarray:
        """Return for each node the longest suffix, itself counted, that something follows."""
        has_child = np.zeros(len(self.parent), dtype=bool)
        has_child[self.parent[1:]] = True
        matters = has_child | (self.backoff != 0)
        state = np.arange(len(self.parent), dtype=np.int32)
        for first, last in zip(self.level_starts[:-1], self.level_starts[1:], strict=True):
            level = state[first:last]
            shorter = state[self.suffix[first:last]]
            level[:] = np.where(matters[first:last], level, shorter)
        return state


def check_vocabulary(words: Sequence[str], *, where: object = None) -> None:
    """Raise an InputError unless `words` are distinct and begin with SPECIAL_WORDS."""
    if tuple(words[:3]) != SPECIAL_WORDS:
        raise InputError(
            f"a vocabulary that begins with {' '.join(words[:3])}, expected {' '.join(SPECIAL_WORDS)}",
            where=where,
        )
    if len(set(words)) < len(words):
        raise InputError("a word stands twice in the vocabulary", where=where)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the values of all nodes, the root's first."""
    return np.concatenate([np.zeros(1), *parts]).astype(np.float32)
