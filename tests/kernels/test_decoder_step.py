"""The kernel of a decoder's step at every level against the same in torch, in float64."""

import copy

import pytest
import torch

from espnet_lite.decode.decoder_scorer import StepDecoder
from espnet_lite.decode.fused_decoder import FusedDecoder
from espnet_lite.kernels.decoder_step import ARGUMENTS
from espnet_lite.nn.decoder import TransformerDecoder


@pytest.fixture
def function(of_level):
    """Return the C function of one level."""
    return of_level("decoder_step", ARGUMENTS)


def make_decoder(vocab: int, dim: int, heads: int, feed_forward: int) -> TransformerDecoder:
    """Return a decoder whose biases and norms count too."""
    with torch.random.fork_rng():
        torch.manual_seed(dim)
        decoder = TransformerDecoder(
            vocab=vocab, dim=dim, heads=heads, feed_forward=feed_forward, layers=2
        ).eval()
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("vocab", "dim", "heads", "feed_forward", "beam", "lengths"),
    [
        (37, 36, 3, 50, 4, (7, 2, 5)),  # nothing is whole panels
        (64, 64, 2, 96, 1, (33,)),
        (70, 32, 4, 300, 10, (32, 65)),
        (5, 144, 4, 32, 17, (1, 3)),
    ],
)
@torch.inference_mode()
def test_same_steps_as_in_torch(function, vocab, dim, heads, feed_forward, beam, lengths, threads):
    """While beams reorder, the pool is made anew and utterances leave."""
    decoder = make_decoder(vocab, dim, heads, feed_forward)
    encoded = random(len(lengths), max(lengths), dim, seed=1)
    generator = torch.Generator().manual_seed(2)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        exact = StepDecoder(copy.deepcopy(decoder).double())
        fused = FusedDecoder(function, StepDecoder(decoder))
        scorers = [
            made.start(given, torch.tensor(lengths), beam=beam, sos=vocab - 1)
            for made, given in ((exact, encoded.double()), (fused, encoded))
        ]
        utterances = len(lengths)
        for step in range(36):
            expected, found = (scorer.score() for scorer in scorers)
            torch.testing.assert_close(found, expected, rtol=0, atol=3e-5)
            parents = torch.randint(0, beam, (utterances, beam), generator=generator)
            tokens = torch.randint(0, vocab, (utterances, beam), generator=generator)
            for scorer in scorers:
                scorer.advance(parents, tokens)
            if step == 10 and utterances > 1:
                utterances -= 1
                for scorer in scorers:
                    scorer.keep(torch.arange(utterances).flip(0))
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def test_scores_that_are_not_numbers_stay_so(function):
    decoder = make_decoder(9, 16, 2, 24)
    encoded = random(2, 5, 16, seed=3)
    encoded[0] = torch.nan
    fused = FusedDecoder(function, StepDecoder(decoder))
    scorer = fused.start(encoded, torch.tensor([5, 4]), beam=2, sos=8)
    found = scorer.score()
    assert found[0].isnan().all() and found[1].isfinite().all()
