"""Estimation against lmplz's models of the same text, a plain version with dictionaries, and sums to 1."""

import gzip
import itertools
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from espnet_lite.errors import InputError
from espnet_lite.lm.arpa import read_arpa
from espnet_lite.lm.kneser_ney import FALLBACK_DISCOUNTS, discounts_of, estimate
from espnet_lite.lm.ngram import BEGIN, END, SPECIAL_WORDS, NgramModel

GOLDEN = Path(__file__).parents[1] / "golden"
TEXT = [line.split() for line in (GOLDEN / "lm_text.txt").read_text().splitlines()]
TOY = [list("abca"), list("abab"), list("cab"), [], list("a"), list("bbbb")]


def numbered(sentences, extra=()):
    words = [*SPECIAL_WORDS, *sorted({w for s in sentences for w in s} | set(extra))]
    ids = {word: number for number, word in enumerate(words)}
    return [[ids[word] for word in sentence] for sentence in sentences], words


def estimated(sentences, *, extra=(), **options):
    numbers, words = numbered(sentences, extra)
    return estimate(numbers, words, **options)


def as_entries(model: NgramModel) -> dict[tuple[str, ...], tuple[float, float]]:
    """Return n-gram -> (log probability, log back-off weight)."""
    texts = [()]
    for node in range(1, len(model)):
        texts.append((*texts[model.parent[node]], model.words[model.word[node]]))
    values = zip(model.log_prob.tolist(), model.backoff.tolist(), strict=True)
    return dict(zip(texts[1:], list(values)[1:], strict=True))


@pytest.mark.parametrize(
    ("name", "order", "prune"), [("lmplz_3", 3, (0,)), ("lmplz_4_pruned", 4, (0, 0, 1, 1))]
)
def test_equals_lmplz(name, order, prune):
    """lmplz of KenLM 0.3.0 made these files; they have seven digits."""
    expected = as_entries(read_arpa(GOLDEN / f"{name}.arpa.gz"))
    found = as_entries(estimated(TEXT, order=order, prune=prune).model)
    assert found.keys() == expected.keys()
    for ngram, values in found.items():
        if ngram != (BEGIN,):  # probability 1 there, 10^-99 here: nothing asks for it
            assert values == pytest.approx(expected[ngram], abs=3e-6), ngram
    assert found[BEGIN,][1] == pytest.approx(expected[BEGIN,][1], abs=3e-6)


def plain_kneser_ney(sentences, vocabulary, order, prune):
    """Return p(word | context) with dictionaries: Chen and Goodman 1998, by the definitions."""
    raw = defaultdict(Counter)
    for sentence in sentences:
        padded = (BEGIN, *sentence, END)
        for n in range(1, order + 1):
            for i in range(len(padded) - n + 1):
                raw[n][padded[i : i + n]] += 1
    counts = {n: dict(raw[n]) for n in raw}
    for n in range(1, order):
        left = defaultdict(set)
        for ngram in raw[n + 1]:
            left[ngram[1:]].add(ngram[0])
        counts[n] = {g: raw[n][g] if g[0] == BEGIN else len(left[g]) for g in raw[n]}
    counts[1].pop((BEGIN,), None)
    amounts = {}
    for n in range(1, order + 1):
        of = Counter(min(c, 5) for c in counts[n].values())
        if 0 in (of[1], of[2], of[3]):
            amounts[n] = FALLBACK_DISCOUNTS
            continue
        y = of[1] / (of[1] + 2 * of[2])
        amounts[n] = tuple(k - (k + 1) * y * of[k + 1] / of[k] for k in (1, 2, 3))
        if not all(0 < amount <= k for k, amount in enumerate(amounts[n], start=1)):
            amounts[n] = FALLBACK_DISCOUNTS

    def probability(word, context):
        n = len(context) + 1
        lower = 1 / (len(vocabulary) + 2) if n == 1 else probability(word, context[1:])
        followers = {g: c for g, c in counts[n].items() if g[:-1] == context}
        if not followers:
            return lower
        total = sum(followers.values())
        given = own = 0.0
        for ngram, count in followers.items():
            is_kept = n == 1 or raw[n][ngram] > prune[n - 1]
            discount = amounts[n][min(count, 3) - 1] if is_kept else count
            given += discount
            if ngram[-1] == word and is_kept:
                own = count - discount
        return own / total + given / total * lower

    return probability


@pytest.mark.parametrize(
    ("order", "prune"), [(1, (0,)), (2, (0, 0)), (3, (0, 0, 0)), (3, (0, 0, 1)), (4, (0, 1, 1, 2))]
)
@pytest.mark.parametrize("sentences", [TOY, TEXT[:40]], ids=["toy", "text"])
def test_equals_the_definitions(sentences, order, prune):
    made = estimated(sentences, extra=["zz"], order=order, prune=prune).model
    words = made.words[3:]
    exact = plain_kneser_ney(sentences, words, order, prune)
    shown = words if len(words) < 9 else [*words[:6], "zz"]
    for context in itertools.product([BEGIN, *shown], repeat=order - 1):
        if BEGIN in context[1:]:
            continue
        # Only the words after <s> count, where it stands in the context.
        state = made.start if context[:1] == (BEGIN,) else 0
        for word in context[context[:1] == (BEGIN,) :]:
            _, state = made.score(np.array(state), np.array(made.ids[word]))
        scores, _ = made.score(np.array(state), np.arange(len(made.words)))
        for word in (*shown, END, "<unk>"):
            expected = exact(word, context)
            assert math.exp(scores[made.ids[word]]) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_after_every_context_sum_to_one(order):
    for sentences in (TOY, TEXT):
        model = estimated(sentences, order=order, prune=(0, 0, 1)).model
        scores, _ = model.score(np.arange(len(model))[:, None], np.arange(len(model.words)))
        predicted = np.array([word != BEGIN for word in model.words])
        sums = np.exp(scores[:, predicted].astype(np.float64)).sum(axis=1)
        np.testing.assert_allclose(sums, 1.0, atol=2e-6)


def test_discounts_of_hand_counted_counts():
    """n1 8, n2 4, n3 2, n4 1: y = 1/2; D = 1 − 2·½·4/8, 2 − 3·½·2/4, 3 − 4·½·1/2."""
    counts = np.array([1] * 8 + [2] * 4 + [3] * 2 + [4] + [9] * 3)
    assert discounts_of(counts) == (0.5, 1.25, 2.0)
    assert discounts_of(np.array([5, 9])) is None
    assert estimated(TOY, order=2).fallbacks == [1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 0}, "order 0, expected 1 to 10"),
        ({"order": 3, "prune": (0, 2, 1)}, r"prune \[0, 2, 1\], expected counts that never fall"),
        ({"order": 2, "prune": (1,)}, r"prune \[1\], expected .* 0 for the unigrams first"),
    ],
)
def test_senseless_options(options, message):
    with pytest.raises(InputError, match=message):
        estimated(TOY, **options)
    with pytest.raises(InputError, match="no sentences"):
        estimate([], list(SPECIAL_WORDS), order=2)


def test_kenlm_agrees_on_sentences(tmp_path):
    kenlm = pytest.importorskip("kenlm")
    from espnet_lite.lm.arpa import write_arpa
    from espnet_lite.lm.perplexity import ngram_log_probs, ngram_perplexity

    made = estimated(TEXT, order=3).model
    write_arpa(tmp_path / "lm.arpa", made)
    model = kenlm.Model(str(tmp_path / "lm.arpa"))
    unseen = [["BEN", "SEES", "BEN"], [], ["NOBODY", "CALLS"], *TEXT[:20]]
    numbers = [[made.ids.get(word, 0) for word in sentence] for sentence in unseen]
    expected = [model.score(" ".join(sentence)) * math.log(10) for sentence in unseen]
    np.testing.assert_allclose(ngram_log_probs(made, numbers), expected, atol=1e-4)
    joined = ngram_perplexity(made, numbers[:1], words=3)
    assert joined.per_word == pytest.approx(model.perplexity("BEN SEES BEN"), rel=1e-5)


def test_golden_files_are_whole():
    for path in GOLDEN.glob("lmplz_*.arpa.gz"):
        assert gzip.decompress(path.read_bytes()).endswith(b"\\end\\\n")
