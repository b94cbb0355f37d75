"""The kernel of CTC prefix scores at every level against the same in torch, in logarithms of float64."""

import math

import pytest
import torch

from espnet_lite.decode.ctc_prefix import CtcPrefixScorer, FusedCtcPrefixScorer
from espnet_lite.kernels.ctc_prefix import ADVANCE_ARGUMENTS, SCORE_ARGUMENTS


@pytest.fixture
def functions(of_level):
    """Return the C functions of one level."""
    return (
        of_level("ctc_prefix", SCORE_ARGUMENTS),
        of_level("ctc_prefix_advance", ADVANCE_ARGUMENTS),
    )


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Where the reference has no number, a slot holds no hypothesis and nothing is asked."""
    found = torch.where(expected.isnan(), expected, found)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize(
    ("frames", "vocab", "beam", "sharpness"),
    [(1, 4, 2, 1.0), (7, 5, 3, 2.0), (33, 11, 4, 1.0), (250, 40, 5, 8.0), (1500, 30, 3, 12.0)],
)
@torch.inference_mode()
def test_same_scores_as_in_torch(functions, frames, vocab, beam, sharpness):
    """While beams reorder, tokens repeat, hypotheses outgrow the frames and utterances leave."""
    generator = torch.Generator().manual_seed(frames)
    eos = vocab - 1
    logits = sharpness * torch.randn(3, frames, vocab, generator=generator)
    lengths = torch.tensor([frames, max(1, frames // 2), max(1, frames - 3)])
    given = logits.log_softmax(dim=-1), lengths
    fused = FusedCtcPrefixScorer(functions, *given, beam=beam, eos=eos)
    plain = CtcPrefixScorer(*given, beam=beam, eos=eos)
    for step in range(12):
        utterances = len(plain.last)
        candidates = torch.randint(0, vocab, (utterances, beam, 6), generator=generator)
        candidates[..., -1] = eos
        candidates[..., 0] = plain.last
        for asked in (candidates, None):
            assert_same(fused.score(asked), plain.score(asked))
        # The likeliest tokens, as a search takes them, and the parent's own again.
        best = plain.score(None)[..., :eos].nan_to_num(-math.inf).topk(2, dim=2).indices
        parents = torch.randint(0, beam, (utterances, beam), generator=generator)
        parents[:, 0] = 0
        which = torch.randint(0, 2, (utterances, beam, 1), generator=generator)
        tokens = best.gather(2, which)[..., 0].gather(1, parents)
        if step % 3 == 2:
            tokens = plain.last.gather(1, parents)
        for scorer in (fused, plain):
            scorer.advance(parents, tokens)
        if step == 5:
            for scorer in (fused, plain):
                scorer.keep(torch.tensor([2, 0]))


@torch.inference_mode()
def test_a_long_silence_and_impossible_tokens(functions):
    """Scores of a prefix stay exact where a path through all frames is e^-10000 of the best one."""
    frames, vocab, eos = 2000, 6, 5
    log_probs = torch.full((1, frames, vocab), -50.0)
    log_probs[..., 0] = -1e-9
    for frame, token in ((5, 1), (900, 2), (901, 2), (1990, 3)):
        log_probs[0, frame] = -50.0
        log_probs[0, frame, token] = -1e-9
    log_probs[0, 400:600, 0] = -30.0  # speech that nobody has a token for
    log_probs[0, :, 4] = -math.inf
    given = log_probs, torch.tensor([frames])
    fused = FusedCtcPrefixScorer(functions, *given, beam=2, eos=eos)
    plain = CtcPrefixScorer(*given, beam=2, eos=eos)
    parents = torch.tensor([[0, 0]])
    for tokens in ([1, 2], [2, 1], [3, 2], [4, 4]):
        assert_same(fused.score(None), plain.score(None))
        for scorer in (fused, plain):
            scorer.advance(parents, torch.tensor([tokens]))
    assert_same(fused.score(None), plain.score(None))
    assert (fused.score(None) == -torch.inf).any()


@torch.inference_mode()
def test_threads_give_the_same(functions):
    log_probs = torch.randn(5, 50, 9, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            scorer = FusedCtcPrefixScorer(functions, log_probs, torch.full((5,), 50), beam=3, eos=8)
            scorer.advance(torch.zeros(5, 3, dtype=torch.int64), torch.tensor([[1, 2, 3]] * 5))
            found.append(scorer.score(None))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
