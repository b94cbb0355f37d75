"""CTC's loss of every level that this processor has against torch's in double precision."""

import pytest
import torch
from torch.nn import functional

from espnet_lite.kernels import ctc_loss as module
from espnet_lite.nn.ctc_loss import ctc_loss


@pytest.fixture(autouse=True)
def at_one_level(of_level, monkeypatch):
    """Let the loss take the C function of one level."""
    monkeypatch.setattr(module, "kernel", of_level)


def by_torch(log_probs, lengths, tokens, token_lengths) -> torch.Tensor:
    return functional.ctc_loss(
        *(log_probs.transpose(0, 1), tokens, lengths, token_lengths),
        reduction="none",
        zero_infinity=True,
    )


def utterances(batch: int, frames: int, tokens: int, vocab: int, scale: float, seed: int = 0):
    """Return logits, lengths, tokens and their lengths, the first utterance of full length."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, frames, vocab, generator=generator) * scale
    lengths = torch.randint(1, frames + 1, (batch,), generator=generator)
    texts = torch.randint(1, vocab, (batch, tokens), generator=generator)
    token_lengths = torch.randint(0, tokens + 1, (batch,), generator=generator)
    lengths[0], token_lengths[0] = frames, tokens
    return logits, lengths, texts, token_lengths


# Tokens around a whole vector of any level; transcripts that are too long; two tokens, so that neighbours
# are often equal; scores of a hundred nats and more between paths; more frames than fit a cache.
SIZES = [
    *((3, 40, tokens, 30, 1.0) for tokens in (0, 1, 3, 4, 7, 8, 15, 16, 17, 31)),
    (4, 1, 1, 5, 1.0),
    (4, 2, 2, 5, 1.0),
    (6, 30, 20, 3, 1.0),
    (3, 200, 90, 30, 10.0),
    (2, 1500, 200, 50, 3.0),
    (2, 60, 20, 3000, 1.0),
]


@pytest.mark.parametrize("sizes", SIZES)
def test_loss_and_gradient_are_those_of_torch_in_double_precision(sizes):
    logits, *rest = utterances(*sizes)
    weight = torch.rand(sizes[0])
    x, reference = logits.clone().requires_grad_(), logits.double().requires_grad_()
    losses = ctc_loss(x.log_softmax(dim=-1), *rest)
    expected = by_torch(reference.log_softmax(dim=-1), *rest)
    torch.testing.assert_close(losses, expected.float(), rtol=1e-6, atol=1e-5)
    (losses * weight).sum().backward()
    (expected * weight.double()).sum().backward()
    torch.testing.assert_close(x.grad, reference.grad.float(), rtol=0, atol=2e-3)
    with torch.no_grad():
        assert torch.equal(ctc_loss(logits.log_softmax(dim=-1), *rest), losses)


def test_gradient_is_nearer_to_double_precision_than_that_of_torch():
    logits, *rest = utterances(3, 400, 200, 30, 5.0)

    def gradient(function, x):
        x = x.requires_grad_()
        function(x.log_softmax(dim=-1), *rest).sum().backward()
        return x.grad.double()

    exact = gradient(by_torch, logits.double())
    ours = gradient(ctc_loss, logits.clone())
    theirs = gradient(by_torch, logits.clone())
    assert (ours - exact).abs().max() < (theirs - exact).abs().max()


def test_what_cannot_be_aligned_costs_nothing_and_has_no_gradient():
    logits, *_ = utterances(3, 4, 1, 5, 1.0)
    log_probs = logits.log_softmax(dim=-1).requires_grad_()
    # Three frames for four tokens; three, and four with the blank between, for two equal pairs.
    tokens = torch.tensor([[1, 2, 3, 4], [1, 1, 0, 0], [1, 1, 2, 2]])
    losses = ctc_loss(log_probs, torch.tensor([3, 3, 4]), tokens, torch.tensor([4, 2, 4]))
    losses.sum().backward()
    assert losses[0] == 0 and losses[2] == 0 and losses[1] > 0
    assert not log_probs.grad[0].any() and not log_probs.grad[2].any()
    torch.testing.assert_close(log_probs.grad[1].sum(dim=-1), torch.tensor([-1.0, -1, -1, 0]))


def test_padding_is_not_looked_at():
    logits, *_ = utterances(2, 9, 4, 6, 1.0)
    lengths, token_lengths = torch.tensor([9, 5]), torch.tensor([4, 2])
    tokens = torch.tensor([[1, 2, 3, 4], [2, 2, 5, 5]])
    x = logits.log_softmax(dim=-1)
    expected = ctc_loss(x, lengths, tokens, token_lengths)
    x[1, 5:], tokens[1, 2:] = torch.nan, 0
    padded = x.requires_grad_()
    losses = ctc_loss(padded, lengths, tokens, token_lengths)
    losses.sum().backward()
    assert torch.equal(losses, expected)
    assert not padded.grad[1, 5:].any() and padded.grad[1, :5].any()


def test_numbers_that_are_none_make_the_loss_none():
    logits, lengths, tokens, token_lengths = utterances(2, 20, 5, 6, 1.0)
    log_probs = logits.log_softmax(dim=-1)
    log_probs[0, 7] = torch.nan
    losses = ctc_loss(log_probs, lengths, tokens, token_lengths)
    assert losses[0].isnan() and losses[1].isfinite()


def test_impossible_tokens_are_as_rare_as_can_be():
    """−∞ is a probability of 0: alone a path around it counts."""
    log_probs = torch.full((1, 3, 3), -1.0)
    log_probs[0, 1, 2] = -torch.inf
    one = torch.tensor([3]), torch.tensor([[2]]), torch.tensor([1])
    losses = ctc_loss(log_probs, *one)
    torch.testing.assert_close(losses, by_torch(log_probs, *one))


@pytest.mark.parametrize(
    "length, token, token_length", [(5, 1, 1), (-1, 1, 1), (4, 7, 1), (4, -1, 1), (4, 1, 3)]
)
def test_what_is_out_of_range_is_refused(length, token, token_length):
    log_probs = torch.zeros(1, 4, 7).log_softmax(dim=-1)
    with pytest.raises(
        ValueError, match="not within 4 frames and 2 tokens, or a token not within 7"
    ):
        ctc_loss(
            log_probs,
            torch.tensor([length]),
            torch.tensor([[token, 1]]),
            torch.tensor([token_length]),
        )


def test_other_types_are_computed_by_torch():
    logits, *rest = utterances(2, 20, 5, 6, 1.0)
    x = logits.double().log_softmax(dim=-1)
    assert torch.equal(ctc_loss(x, *rest), by_torch(x, *rest))
