"""Greedy CTC against hand-worked paths and a plain Python version."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_lite.decode.greedy import ctc_greedy, ctc_greedy_hypotheses


def log_probs_of_path(path: list[int], vocab: int = 4, *, best: float = 0.7) -> torch.Tensor:
    """Return (time, vocab) log-probabilities whose best path is `path`, each step with `best`."""
    probs = torch.full((len(path), vocab), (1 - best) / (vocab - 1))
    probs[torch.arange(len(path)), torch.tensor(path, dtype=torch.int64)] = best
    return probs.log()


def plain_greedy(frames: list[list[float]]) -> tuple[list[int], float]:
    tokens, previous, score = [], None, 0.0
    for frame in frames:
        best = frame.index(max(frame))
        score += max(frame)
        if best != previous and best != 0:
            tokens.append(best)
        previous = best
    return tokens, score


@pytest.mark.parametrize(
    ("path", "tokens"),
    [
        ([1, 1, 2], [1, 2]),  # a repeat is one token
        ([1, 0, 1], [1, 1]),  # a blank between makes it two
        ([0, 0, 0], []),
        ([0, 3, 3, 0, 0, 3, 2, 2], [3, 3, 2]),
        ([2], [2]),
    ],
)
def test_hand_worked_paths(path, tokens):
    log_probs = log_probs_of_path(path)[None]
    (hypothesis,) = ctc_greedy_hypotheses(log_probs, torch.tensor([len(path)]))
    assert hypothesis.tokens == tokens
    assert hypothesis.score == pytest.approx(len(path) * math.log(0.7), abs=1e-5)


def test_frames_beyond_the_length_are_not_read():
    log_probs = log_probs_of_path([1, 2, 3, 3])[None].repeat(3, 1, 1)
    log_probs[1, 2:] = float("nan")  # attention over nothing but padding may give this
    log_probs[2] = float("nan")
    found = ctc_greedy_hypotheses(log_probs, torch.tensor([4, 2, 0]))
    assert [hypothesis.tokens for hypothesis in found] == [[1, 2, 3], [1, 2], []]
    assert found[1].score == pytest.approx(2 * math.log(0.7), abs=1e-5)
    assert found[2].score == 0.0


def test_no_frames_and_no_utterances():
    assert ctc_greedy(torch.zeros(2, 0, 5), torch.tensor([0, 0])) == [[], []]
    assert ctc_greedy(torch.zeros(0, 3, 5), torch.zeros(0, dtype=torch.int64)) == []


def test_an_equal_best_goes_to_the_lowest_id():
    assert ctc_greedy(torch.zeros(1, 3, 5), torch.tensor([3])) == [[]]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    vocab=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_equals_the_plain_version(lengths, vocab, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(len(lengths), 9, vocab, generator=generator)
    log_probs = logits.log_softmax(-1)
    found = ctc_greedy_hypotheses(log_probs, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        tokens, score = plain_greedy(log_probs[row, :length].tolist())
        assert found[row].tokens == tokens
        assert found[row].score == pytest.approx(score, abs=1e-4)
