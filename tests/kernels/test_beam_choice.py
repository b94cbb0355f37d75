"""The choices of a beam search at every level against sorted lists of all continuations."""

import math

import pytest
import torch

from espnet_lite.kernels.beam_choice import ARGUMENTS, BEST_ARGUMENTS, BeamChoice


@pytest.fixture
def functions(of_level):
    """Return the C functions of one level."""
    return (
        of_level("beam_choice", ARGUMENTS),
        of_level("beam_choice_best", BEST_ARGUMENTS),
    )


@pytest.mark.parametrize(
    ("utterances", "beam", "vocab", "pre_beam", "full", "partial"),
    [(1, 1, 3, 1, 1, 1), (3, 4, 9, 6, 2, 1), (2, 10, 500, 15, 1, 1), (40, 2, 30, 3, 1, 2)],
)
def test_the_best_of_all_continuations(functions, utterances, beam, vocab, pre_beam, full, partial):
    generator = torch.Generator().manual_seed(vocab)
    weights = [0.7, 0.3, 0.5][: full + partial]
    eos, bonus, columns = vocab - 1, 0.25, pre_beam + 1
    choice = BeamChoice(
        functions, weights=weights, full=full, vocab=vocab, pre_beam=pre_beam, eos=eos, bonus=bonus
    )
    shape = utterances, beam
    of_all = [torch.randn(*shape, vocab, generator=generator) for _ in range(full)]
    running = torch.randn(shape, generator=generator)
    if beam > 1:
        running[0, 1:] = -math.inf  # fewer continuations than the beam has room for
        of_all[0][0, 1] = math.nan
    tokens, sums = choice.candidates(of_all)
    weighted = sum(weight * one for weight, one in zip(weights, of_all, strict=False))
    wanted = weighted.nan_to_num(-math.inf).topk(pre_beam, dim=2)
    is_number = ~weighted.isnan().any(dim=2)
    assert torch.equal(tokens[..., :-1][is_number], wanted.indices[is_number])
    assert (tokens[..., -1] == eos).all()
    torch.testing.assert_close(sums[is_number], weighted.gather(2, tokens)[is_number])

    of_some = [torch.randn(*shape, columns, generator=generator) for _ in range(partial)]
    of_some[0][..., 0] = -math.inf  # impossible
    found = choice.best(of_all, of_some, tokens, sums, running)
    for u in range(utterances):
        expected = []
        for k in range(beam):
            for column in range(columns):
                token = int(tokens[u, k, column])
                if token == 0 or (token == eos and column < pre_beam):
                    continue
                parts = [float(one[u, k, token]) for one in of_all]
                parts += [float(one[u, k, column]) for one in of_some]
                total = (
                    float(running[u, k])
                    + bonus
                    + sum(w * x for w, x in zip(weights, parts, strict=True))
                )
                if total > -math.inf:
                    expected.append((total, k, token, parts))
        expected.sort(reverse=True)
        for place in range(beam):
            if place >= len(expected):
                assert found.scores[u, place] == -math.inf
                continue
            total, parent, token, parts = expected[place]
            assert found.scores[u, place].item() == pytest.approx(total, abs=1e-5)
            assert (int(found.parents[u, place]), int(found.tokens[u, place])) == (parent, token)
            assert found.gained[:, u, place].tolist() == pytest.approx(parts)


def test_scores_of_another_table_are_refused(functions):
    choice = BeamChoice(functions, weights=[1.0], full=1, vocab=9, pre_beam=3, eos=8, bonus=0.0)
    with pytest.raises(ValueError, match=r"\(1, 2, 8\).*\(1, 2, 9\)"):
        choice.candidates([torch.zeros(1, 2, 8)])
