"""The aligner against hand-worked cases, brute force, and 10,000 alignments that sclite made."""

import gzip
import itertools
import json
import random
from functools import cache
from pathlib import Path

import pytest

from espnet_lite.score import alignment
from espnet_lite.score.alignment import Alignment, Counts, align, align_all, percent_text

# Made by NIST sclite 2.10 (Debian sctk 2.4.10) with
# `python tools/benchmarks/sclite_parity.py --write_golden tests/golden/sclite_pairs.jsonl.gz`.
GOLDEN = Path(__file__).parents[1] / "golden" / "sclite_pairs.jsonl.gz"


def steps(reference: str, hypothesis: str) -> str:
    return align(reference.split(), hypothesis.split()).steps


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("", "", ""),
        ("a b", "", "DD"),
        ("", "a b", "II"),
        ("a b c", "a b c", "CCC"),
        ("a b c", "a x c", "CSC"),
        # one substitution (4) is cheaper than a deletion and an insertion (6)
        ("a", "b", "S"),
        # sub + sub + sub = 12, but keeping b and c costs a deletion and an insertion = 6
        ("a b c", "b c d", "DCCI"),
        # 2 substitutions = 8 against 1 deletion + 1 insertion around one match = 6
        ("a b", "b x", "DCI"),
        # of two equal matches the last one is taken
        ("a", "a a", "IC"),
        ("a a", "a", "DC"),
        # read from the end: the substitution is last, the deletion first
        ("a b", "c", "DS"),
        ("a", "c d", "IS"),
    ],
)
def test_hand_worked_alignments(reference, hypothesis, expected):
    assert steps(reference, hypothesis) == expected


def test_alignment_gives_its_tokens_back_in_columns():
    found = align(["a", "b", "c"], ["b", "c", "d"])
    assert list(found.columns()) == [
        ("D", "a", None),
        ("C", "b", "b"),
        ("C", "c", "c"),
        ("I", None, "d"),
    ]
    assert found.counts == Counts(1, 2, 0, 1, 1, 1)
    assert list(found.error_columns()) == [("D", "a", None), ("I", None, "d")]
    rng = random.Random(1)
    for _ in range(50):
        found = align(
            rng.choices("ab", k=rng.randint(0, 9)), rng.choices("ab", k=rng.randint(0, 9))
        )
        wrong = [column for column in found.columns() if column[0] != "C"]
        assert list(found.error_columns()) == wrong


def brute_force(reference: str, hypothesis: str) -> str:
    """Return the first of the cheapest paths in the order diagonal, insertion, deletion, from the
    end, by walking every path."""

    @cache
    def best(rows: int, columns: int) -> tuple[int, str]:
        paths = []
        if rows and columns:
            cost, before = best(rows - 1, columns - 1)
            equal = reference[rows - 1] == hypothesis[columns - 1]
            paths.append((cost + (0 if equal else 4), before + ("C" if equal else "S")))
        if columns:
            cost, before = best(rows, columns - 1)
            paths.append((cost + 3, before + "I"))
        if rows:
            cost, before = best(rows - 1, columns)
            paths.append((cost + 3, before + "D"))
        return min(paths, key=lambda path: path[0]) if paths else (0, "")

    return best(len(reference), len(hypothesis))[1]


def test_all_short_pairs_of_two_letters_match_brute_force():
    texts = ["".join(t) for n in range(5) for t in itertools.product("ab", repeat=n)]
    for reference, hypothesis in itertools.product(texts, texts):
        assert align(reference, hypothesis).steps == brute_force(reference, hypothesis)


def test_long_random_pairs_match_brute_force():
    rng = random.Random(5)
    for _ in range(30):
        reference = "".join(rng.choices("abcd", k=rng.randint(40, 90)))
        hypothesis = "".join(rng.choices("abcd", k=rng.randint(40, 90)))
        assert align(reference, hypothesis).steps == brute_force(reference, hypothesis)


def test_ten_thousand_alignments_of_nist_sclite():
    rows = [json.loads(line) for line in gzip.decompress(GOLDEN.read_bytes()).splitlines()]
    assert len(rows) == 10_000
    assert sum(not reference for reference, _, _ in rows) > 300
    assert sum(not hypothesis for _, hypothesis, _ in rows) > 300
    found = align_all((reference.split(), hypothesis.split()) for reference, hypothesis, _ in rows)
    assert [row for row, one in zip(rows, found, strict=True) if one.steps != row[2]] == []


@pytest.mark.parametrize("reach", [1, 2, 1000])
def test_any_first_band_and_any_batches_give_the_same(monkeypatch, reach):
    """Of two letters there are many paths of the same cost, also at the edge of a band."""
    rng = random.Random(reach)
    pairs = [
        (rng.choices("ab", k=rng.randint(0, 40)), rng.choices("ab", k=rng.randint(0, 40)))
        for _ in range(300)
    ]
    pairs += [(rng.choices("ab", k=30), rng.choices("bc", k=3)) for _ in range(20)]
    pairs += [(hypothesis, reference) for reference, hypothesis in pairs[-20:]]
    expected = [brute_force("".join(one), "".join(other)) for one, other in pairs]
    monkeypatch.setattr(alignment, "_FIRST_REACH", reach)
    monkeypatch.setattr(alignment, "_CELLS", 5000)
    assert [one.steps for one in align_all(pairs)] == expected
    assert align_all([]) == []


def test_tokens_are_literal_case_counts_and_markup_is_text():
    assert steps("A", "a") == "S"
    markup = "{ a / b } @ (c) %d e; \\f ** ;; * <unk>"
    assert steps(markup, markup) == "C" * len(markup.split())
    assert steps("{ a / b }", "a") == "DCDDD"
    assert steps("x", "@") == "S"
    # composed and decomposed accents are different text
    assert steps("\u00e9", "e\u0301") == "S"


def test_rates_of_hand_worked_counts():
    # 8 reference tokens: 5 correct, 2 substituted, 1 deleted; 1 inserted -> 4 errors of 8
    counts = Counts(3, 5, 2, 1, 1, 2)
    assert (counts.tokens, counts.errors) == (8, 4)
    assert counts.error_rate == 50.0
    assert counts.of_tokens(counts.correct) == 62.5
    assert counts.utterance_error_rate == pytest.approx(200 / 3)
    assert counts + Counts(1, 0, 0, 0, 2, 1) == Counts(4, 5, 2, 1, 3, 3)


def test_percent_is_rounded_as_sclite_prints_it():
    assert [percent_text(2, 32), percent_text(57, 400), percent_text(343, 400)] == [
        "6.3",
        "14.2",
        "85.8",
    ]
    assert percent_text(1, 3, decimals=2) == "33.33"
    assert (percent_text(0, 7), percent_text(14, 7), percent_text(3, 0)) == ("0.0", "200.0", None)


def test_rates_over_nothing_are_none_and_insertions_still_count_in_the_sum():
    empty = align([], ["x", "y"]).counts
    assert (empty.tokens, empty.errors, empty.error_rate) == (0, 2, None)
    assert empty.utterance_error_rate == 100.0
    assert align([], []).counts == Counts(utterances=1)
    assert Counts().utterance_error_rate is None
    # sclite's sum line of these two utterances: 2 words, Corr 50, Ins 100, Err 150
    total = empty + align(["x", "x"], ["x"]).counts
    assert (total.of_tokens(total.correct), total.of_tokens(total.inserted)) == (50.0, 100.0)
    assert total.error_rate == 150.0


def test_error_rate_may_exceed_a_hundred():
    assert align(["a"], ["b", "c", "d"]).counts.error_rate == 300.0


def test_alignment_holds_what_it_was_given():
    assert align(("a",), ["a"]) == Alignment(("a",), ("a",), "C")
