"""CTC prefix beam search against all paths, a plain version with dictionaries, and hand-worked cases."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_lite.decode.greedy import ctc_greedy
from espnet_lite.decode.prefix_beam import ctc_prefix_beam

EVERYTHING = {"beam": 500, "token_beam": 9, "token_margin": math.inf}


def random_log_probs(*shape: int, seed: int, scale: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator)).log_softmax(dim=-1)


def enumerated(log_probs: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Return the log-probability of every reading: the sum over all its paths."""
    time, vocab = log_probs.shape
    sums: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(vocab), repeat=time):
        runs = [token for token, _ in itertools.groupby(path)]
        reading = tuple(token for token in runs if token != 0)
        probability = math.exp(sum(log_probs[t, token].item() for t, token in enumerate(path)))
        sums[reading] = sums.get(reading, 0.0) + probability
    return {reading: math.log(probability) for reading, probability in sums.items()}


def plain_prefix_beam(
    log_probs: torch.Tensor, *, beam: int, token_beam: int, token_margin: float, penalty: float
) -> list[tuple[tuple[int, ...], float]]:
    """Return (prefix, log-probability) best first: Hannun et al. 2014 with dictionaries."""
    prefixes = {(): (1.0, 0.0)}
    for frame in log_probs.double():
        best = sorted(range(1, len(frame)), key=lambda c: -frame[c].item())[:token_beam]
        floor = frame.max().item() - token_margin
        tokens = [c for c in best if frame[c].item() >= floor]
        grown: dict[tuple[int, ...], list[float]] = {}
        for prefix, (in_blank, in_token) in prefixes.items():
            stay = grown.setdefault(prefix, [0.0, 0.0])
            stay[0] += (in_blank + in_token) * frame[0].exp().item()
            for c in tokens:
                probability = frame[c].exp().item()
                longer = grown.setdefault((*prefix, c), [0.0, 0.0])
                if prefix and prefix[-1] == c:
                    stay[1] += in_token * probability
                    longer[1] += in_blank * probability
                else:
                    longer[1] += (in_blank + in_token) * probability
        ranked = sorted(
            ((p, v) for p, v in grown.items() if sum(v)),
            key=lambda item: -(math.log(sum(item[1])) + penalty * len(item[0])),
        )
        prefixes = {prefix: tuple(values) for prefix, values in ranked[:beam]}
    return [(prefix, math.log(sum(values))) for prefix, values in prefixes.items()]


@pytest.mark.parametrize(
    "time, vocab, seed", [(1, 2, 0), (2, 3, 1), (5, 3, 2), (4, 4, 3), (6, 2, 4)]
)
def test_wide_beam_finds_every_reading_with_the_sum_of_its_paths(time, vocab, seed):
    log_probs = random_log_probs(time, vocab, seed=seed)
    expected = enumerated(log_probs)
    (found,) = ctc_prefix_beam(log_probs[None], torch.tensor([time]), nbest=500, **EVERYTHING)
    assert len(found) == len(expected)
    for hypothesis in found:
        assert hypothesis.score == pytest.approx(expected[tuple(hypothesis.tokens)], abs=1e-6)
        assert hypothesis.parts == {"ctc": hypothesis.score}
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_the_best_path_need_not_be_the_best_reading():
    """Two frames, blank .6 and a .4: the path of blanks has .36, the paths to "a" have .64."""
    log_probs = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()
    lengths = torch.tensor([2])
    assert ctc_greedy(log_probs, lengths) == [[]]
    (found,) = ctc_prefix_beam(log_probs, lengths, nbest=9, **EVERYTHING)
    assert [h.tokens for h in found] == [[1], []]
    assert math.exp(found[0].score) == pytest.approx(0.64)
    assert math.exp(found[1].score) == pytest.approx(0.36)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    vocab=st.integers(2, 6),
    beam=st.integers(1, 6),
    token_beam=st.integers(1, 6),
    token_margin=st.sampled_from([math.inf, 3.0, 1.0]),
    penalty=st.sampled_from([0.0, 0.7, -0.4]),
    scale=st.sampled_from([0.5, 2.0, 4.0]),
    seed=st.integers(0, 2**31),
)
def test_equals_the_plain_version(
    lengths, vocab, beam, token_beam, token_margin, penalty, scale, seed
):
    log_probs = random_log_probs(len(lengths), 12, vocab, seed=seed, scale=scale)
    for row, length in enumerate(lengths):
        log_probs[row, length:] = torch.nan
    pruning = {"beam": beam, "token_beam": token_beam, "token_margin": token_margin}
    found = ctc_prefix_beam(
        log_probs, torch.tensor(lengths), **pruning, penalty=penalty, nbest=beam
    )
    for row, length in enumerate(lengths):
        expected = plain_prefix_beam(log_probs[row, :length], **pruning, penalty=penalty)
        assert [tuple(h.tokens) for h in found[row]] == [prefix for prefix, _ in expected]
        for hypothesis, (prefix, ctc) in zip(found[row], expected, strict=True):
            assert hypothesis.parts["ctc"] == pytest.approx(ctc, abs=1e-6)
            assert hypothesis.score == pytest.approx(ctc + penalty * len(prefix), abs=1e-6)
            if penalty:
                assert hypothesis.parts["length_bonus"] == len(prefix)


def test_no_frames_and_no_utterances():
    pruning = {"beam": 3, "token_beam": 2, "token_margin": 5.0}
    (found,) = ctc_prefix_beam(torch.zeros(1, 0, 4), torch.tensor([0]), **pruning)
    assert [(h.tokens, h.score) for h in found] == [([], 0.0)]
    assert ctc_prefix_beam(torch.zeros(0, 3, 4), torch.zeros(0, dtype=torch.int64), **pruning) == []


def test_a_table_of_the_blank_alone():
    (found,) = ctc_prefix_beam(
        torch.zeros(1, 3, 1), torch.tensor([3]), beam=2, token_beam=4, token_margin=1.0
    )
    assert [(h.tokens, h.score) for h in found] == [([], 0.0)]
