"""CTC prefix beam search, in C++ and in torch, against all paths, a plain version with dictionaries, and
hand-worked cases; without a language model and with one."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_lite.decode.greedy import ctc_greedy
from espnet_lite.decode.ngram_scorer import TokenNgram
from espnet_lite.decode.prefix_beam import ctc_prefix_beam
from espnet_lite.kernels.library import LEVEL, TORCH, chosen_level, kernel
from espnet_lite.lm.kneser_ney import estimate
from espnet_lite.lm.ngram import SPECIAL_WORDS

EVERYTHING = {"beam": 500, "token_beam": 9, "token_margin": math.inf}


@pytest.fixture(params=["kernel", TORCH], autouse=True)
def how(request, monkeypatch):
    """Run each test with the C++ kernel and in torch."""
    if request.param == TORCH:
        monkeypatch.setenv(LEVEL, TORCH)
    elif chosen_level() == TORCH:
        pytest.skip("no C++ compiler here")
    for cached in (chosen_level, kernel):
        cached.cache_clear()
    yield request.param
    for cached in (chosen_level, kernel):
        cached.cache_clear()


def random_ngram(vocab: int, *, seed: int, order: int = 3) -> TokenNgram:
    """Return an n-gram of the tokens 2 … vocab − 2 that has seen some of them."""
    tokens = ["<blank>", "<unk>", *"abcdefgh"[: vocab - 3], "<sos/eos>"]
    words = [*SPECIAL_WORDS, *tokens[2:-1]]
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 6, (12,), generator=generator).tolist()
    seen = [0, *range(3, len(words))][: max(1, vocab - 3)]  # not the last token
    sentences = [
        [seen[i] for i in torch.randint(0, len(seen), (length,), generator=generator).tolist()]
        for length in lengths
    ]
    return TokenNgram(estimate(sentences, words, order=order).model, tokens)


def lm_score(ngram: TokenNgram, reading: tuple[int, ...], *, ended: bool) -> float:
    """Return the log-probability of a reading token by token, from the model itself."""
    total, state = 0.0, torch.tensor(ngram.start)
    for token in (*reading, *([len(ngram.words) - 1] if ended else [])):
        score, after = ngram.model.score(state.numpy(), np.array(ngram.words[token]))
        total, state = total + float(score), torch.tensor(int(after))
    return total


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
    log_probs: torch.Tensor,
    *,
    beam: int,
    token_beam: int,
    token_margin: float,
    penalty: float,
    ngram: TokenNgram | None = None,
    lm_weight: float = 0.0,
) -> list[tuple[tuple[int, ...], float]]:
    """Return (prefix, log-probability) best first: Hannun et al. 2014 with dictionaries."""

    def extra(prefix, *, ended=False):
        lm = lm_weight * lm_score(ngram, prefix, ended=ended) if ngram is not None else 0.0
        return penalty * len(prefix) + lm

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
            key=lambda item: -(math.log(sum(item[1])) + extra(item[0])),
        )
        prefixes = {prefix: tuple(values) for prefix, values in ranked[:beam]}
    found = [(prefix, math.log(sum(values))) for prefix, values in prefixes.items()]
    return sorted(found, key=lambda item: -(item[1] + extra(item[0], ended=True)))


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
    lm_weight=st.sampled_from([0.0, 0.8]),
    scale=st.sampled_from([0.5, 2.0, 4.0]),
    seed=st.integers(0, 2**31),
)
def test_equals_the_plain_version(
    lengths, vocab, beam, token_beam, token_margin, penalty, lm_weight, scale, seed
):
    log_probs = random_log_probs(len(lengths), 12, vocab, seed=seed, scale=scale)
    for row, length in enumerate(lengths):
        log_probs[row, length:] = torch.nan
    pruning = {"beam": beam, "token_beam": token_beam, "token_margin": token_margin}
    if vocab < 3:  # no table of tokens is so small
        lm_weight = 0.0
    lm = {"ngram": random_ngram(vocab, seed=seed) if lm_weight else None, "lm_weight": lm_weight}
    found = ctc_prefix_beam(
        log_probs, torch.tensor(lengths), **pruning, **lm, penalty=penalty, nbest=beam
    )
    for row, length in enumerate(lengths):
        expected = plain_prefix_beam(log_probs[row, :length], **pruning, **lm, penalty=penalty)
        assert [tuple(h.tokens) for h in found[row]] == [prefix for prefix, _ in expected]
        for hypothesis, (prefix, ctc) in zip(found[row], expected, strict=True):
            score = ctc + penalty * len(prefix)
            assert hypothesis.parts["ctc"] == pytest.approx(ctc, abs=1e-6)
            if lm_weight:
                part = lm_score(lm["ngram"], prefix, ended=True)
                assert hypothesis.parts["lm"] == pytest.approx(part, abs=1e-5)
                score += lm_weight * part
            assert hypothesis.score == pytest.approx(score, abs=1e-5)
            if penalty:
                assert hypothesis.parts["length_bonus"] == len(prefix)


def test_with_a_language_model_every_reading_has_its_sum():
    """A wide beam finds log Σ paths + weight · log p(tokens and the end), for every reading."""
    log_probs, ngram = random_log_probs(5, 4, seed=8), random_ngram(4, seed=3, order=2)
    expected = enumerated(log_probs)
    (found,) = ctc_prefix_beam(
        log_probs[None],
        torch.tensor([5]),
        nbest=500,
        ngram=ngram,
        lm_weight=1.5,
        **EVERYTHING,
    )
    assert {tuple(h.tokens) for h in found} == set(expected)
    for hypothesis in found:
        reading = tuple(hypothesis.tokens)
        lm = lm_score(ngram, reading, ended=True)
        assert hypothesis.parts == pytest.approx({"ctc": expected[reading], "lm": lm}, abs=1e-5)
        assert hypothesis.score == pytest.approx(expected[reading] + 1.5 * lm, abs=1e-5)


def test_kernel_equals_torch_on_many_frames(how, monkeypatch):
    """Real sizes: 40 tokens, beam 20, gaps of blanks, several utterances."""
    if how == TORCH:
        pytest.skip("compared once")
    log_probs = random_log_probs(3, 60, 40, seed=5, scale=3.0)
    log_probs[:, 10:20, 0] = 0.0
    log_probs[:, 10:20, 1:] = -50.0
    tokens = ["<blank>", "<unk>", *map(str, range(37)), "<sos/eos>"]
    words = [*SPECIAL_WORDS, *tokens[2:-1]]
    generator = torch.Generator().manual_seed(0)
    sentences = (3 + torch.randint(0, 37, (200, 12), generator=generator)).tolist()
    ngram = TokenNgram(estimate(sentences, words, order=4).model, tokens)
    options = {"beam": 20, "token_beam": 12, "token_margin": 9.0, "penalty": 0.4, "nbest": 20}
    lengths = torch.tensor([60, 31, 1])
    for lm in ({}, {"ngram": ngram, "lm_weight": 0.6}):
        found = ctc_prefix_beam(log_probs, lengths, **options, **lm)
        with monkeypatch.context() as patched:
            patched.setenv(LEVEL, TORCH)
            for cached in (chosen_level, kernel):
                cached.cache_clear()
            expected = ctc_prefix_beam(log_probs, lengths, **options, **lm)
        for cached in (chosen_level, kernel):
            cached.cache_clear()
        for ours, theirs in zip(found, expected, strict=True):
            assert [h.tokens for h in ours] == [h.tokens for h in theirs]
            for one, other in zip(ours, theirs, strict=True):
                assert one.score == pytest.approx(other.score, abs=1e-9)
                assert one.parts == pytest.approx(other.parts, abs=1e-9)


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
