"""Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998, section 3), as KenLM's lmplz has it
(Heafield et al. 2013): adjusted counts, three discounts an order, unigrams interpolated with 1/vocabulary.

For an n-gram h w of adjusted count a, with c the n-grams that follow h:

    p(w | h) = max(a(h w) − D(a), 0) / Σ_c a(c) + γ(h) p(w | h without its first word)
    γ(h) = (D₁ N₁(h) + D₂ N₂(h) + D₃₊ N₃₊(h)) / Σ_c a(c)

a is the count in the text for the longest n-grams and for those that begin with <s>, and else the number
of different words before the n-gram. Pruned n-grams give their counts to γ.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from espnet_lite.errors import InputError
from espnet_lite.lm.ngram import BEGIN, END, NEVER, SPECIAL_WORDS, Level, NgramModel

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)  # lmplz's, of adjusted counts 1, 2 and more
MAX_ORDER = 10


@dataclass(frozen=True)
class Estimate:
    """A model and what a record of it says.

    Attributes:
        discounts: of each order, for adjusted counts 1, 2 and more.
        fallbacks: orders whose counts give no discounts, so that they have FALLBACK_DISCOUNTS: of
            tokens as few as characters none is rare.
    """

    model: NgramModel
    discounts: list[tuple[float, float, float]]
    fallbacks: list[int]


@dataclass(frozen=True)
class _Counts:
    """The n-grams of one order, sorted by (parent, word).

    parent and suffix (the n-gram without its first word) are numbers within the order below.
    """

    parent: np.ndarray
    word: np.ndarray
    suffix: np.ndarray
    count: np.ndarray  # in the text
    begins: np.ndarray  # whether with <s>


def estimate(
    sentences: Sequence[Sequence[int]],
    words: Sequence[str],
    *,
    order: int,
    prune: Sequence[int] = (),
) -> Estimate:
    """Return the n-gram model of sentences of word numbers, without <s> and </s>.

    Args:
        words: the vocabulary, SPECIAL_WORDS first; a word that no sentence has gets the probability of
            an unknown one.
        prune: for unigrams, bigrams, …, the count up to which an n-gram is left out; the last number
            holds for longer ones too, and unigrams are always kept.

    Raises:
        InputError: no sentences, or a senseless order or pruning.
    """
    if not 1 <= order <= MAX_ORDER:
        raise InputError(f"order {order}, expected 1 to {MAX_ORDER}")
    thresholds = [*prune, *[prune[-1] if prune else 0] * order][:order]
    if thresholds != sorted(thresholds) or thresholds[0] != 0:
        raise InputError(
            f"prune {list(prune)}, expected counts that never fall, 0 for the unigrams first"
        )
    if not sentences:
        raise InputError("no sentences to count, expected one or more")
    counts = _count(sentences, len(words), order=order)
    discounts, fallbacks, levels = [], [], []
    numbers = np.arange(len(words))  # of each kept n-gram of the order below, −1 of a pruned one
    lower = np.full(1, 1.0 / (len(words) - 1))  # p without any context: <s> is never predicted
    for place, (found, threshold) in enumerate(zip(counts, thresholds, strict=True)):
        adjusted = _adjusted(counts, place)
        amounts = discounts_of(adjusted)
        if amounts is None:
            amounts = FALLBACK_DISCOUNTS
            fallbacks.append(place + 1)
        discounts.append(amounts)
        kept = (found.count > threshold) if place else np.ones(len(words), dtype=bool)
        gamma = _gamma(found.parent, adjusted, kept, amounts)
        if levels:
            levels[-1] = _with_backoff(levels[-1], gamma, numbers)
        total = np.bincount(found.parent, adjusted, minlength=len(gamma))
        own = adjusted - np.array([0.0, *amounts])[np.minimum(adjusted, 3)]
        probability = np.maximum(own, 0.0) / np.maximum(total, 1)[found.parent]
        probability += gamma[found.parent] * lower[found.suffix]
        with np.errstate(divide="ignore"):
            log_prob = np.log(probability)
        if place == 0:
            log_prob[SPECIAL_WORDS.index(BEGIN)] = NEVER
            parent = found.parent
        else:
            parent = numbers[found.parent[kept]]
        levels.append(Level(parent, found.word[kept], log_prob[kept], np.zeros(kept.sum())))
        numbers = np.where(kept, np.cumsum(kept) - 1, -1)
        lower = probability
    return Estimate(NgramModel.from_levels(words, levels), discounts, fallbacks)


def discounts_of(adjusted: np.ndarray) -> tuple[float, float, float] | None:
    """Return the discounts of adjusted counts 1, 2 and more (Chen and Goodman 1998, eq. 26), None where
    the counts of an order give none."""
    _, n1, n2, n3, n4 = np.bincount(np.minimum(adjusted, 5), minlength=5)[:5].tolist()
    if 0 in (n1, n2, n3):
        return None
    y = n1 / (n1 + 2 * n2)
    amounts = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    fits = all(0 < amount <= count for count, amount in enumerate(amounts, start=1))
    return amounts if fits else None


def _count(sentences: Sequence[Sequence[int]], vocab: int, *, order: int) -> list[_Counts]:
    """Return the n-grams of each order; the unigrams are all words."""
    begin, end = SPECIAL_WORDS.index(BEGIN), SPECIAL_WORDS.index(END)
    lengths = np.array([len(sentence) + 2 for sentence in sentences])
    text = np.empty(lengths.sum(), dtype=np.int64)
    ends = np.cumsum(lengths)
    inner = np.ones(len(text), dtype=bool)
    inner[ends - lengths] = inner[ends - 1] = False
    text[inner] = np.fromiter((word for sentence in sentences for word in sentence), dtype=np.int64)
    text[ends - lengths], text[ends - 1] = begin, end
    left = np.repeat(ends, lengths) - np.arange(len(text))  # words up to the end of the sentence
    # number[i]: of the n-gram that begins at i, within its order.
    number = text.copy()
    every = np.arange(vocab)
    found = [
        _Counts(
            parent=np.zeros_like(every),
            word=every,
            suffix=np.zeros_like(every),
            count=np.bincount(text, minlength=vocab),
            begins=every == begin,
        )
    ]
    places = np.arange(len(text))
    for length in range(2, order + 1):
        places = places[left[places] >= length]
        keys = number[places] * vocab + text[places + length - 1]
        unique, first, inverse, count = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        parent = unique // vocab
        found.append(
            _Counts(
                parent=parent,
                word=unique % vocab,
                suffix=number[places[first] + 1],
                count=count,
                begins=found[-1].begins[parent],
            )
        )
        longer = np.full(len(text), -1)
        longer[places] = inverse
        number = longer
    return found


def _adjusted(counts: Sequence[_Counts], place: int) -> np.ndarray:
    """Return the adjusted count of each n-gram of an order."""
    found = counts[place]
    adjusted = found.count
    if place + 1 < len(counts):
        before = np.bincount(counts[place + 1].suffix, minlength=len(found.word))
        adjusted = np.where(found.begins, found.count, before)
    if place == 0:
        adjusted = np.where(found.begins, 0, adjusted)
    return adjusted


def _gamma(
    parent: np.ndarray, adjusted: np.ndarray, kept: np.ndarray, amounts: tuple[float, ...]
) -> np.ndarray:
    """Return the weight of the lower order after each context, 1 where nothing follows."""
    contexts = int(parent.max(initial=0)) + 1
    discount = np.array([0.0, *amounts])[np.minimum(adjusted, 3)]
    given = np.bincount(parent, np.where(kept, discount, adjusted), minlength=contexts)
    total = np.bincount(parent, adjusted, minlength=contexts)
    return np.divide(given, total, out=np.ones(contexts), where=total > 0)


def _with_backoff(level: Level, gamma: np.ndarray, numbers: np.ndarray) -> Level:
    """Return an order with the weights of what follows each of its n-grams."""
    backoff = np.zeros(len(level.word))
    kept = numbers[: len(gamma)] >= 0
    backoff[numbers[: len(gamma)][kept]] = np.log(gamma[kept])
    return Level(level.parent, level.word, level.log_prob, backoff)
