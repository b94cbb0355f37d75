"""What a beam search asks of its scorers: batched over utterances and hypotheses, state by index.

A scorer is made for one batch and holds the state of `beam` hypotheses of each utterance, at first
those of the empty one. Hypothesis 0 alone counts then; the others may hold anything, as slots whose
hypothesis has ended may later. Scores are natural logarithms and add up over the tokens.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class Scorer(Protocol):
    """Scores every token of the table after each hypothesis: a decoder, a language model."""

    def score(self) -> Float[Tensor, "utterances beam vocab"]:
        """Return the score of each next token; called once between two calls of `advance`."""

    def advance(
        self, parents: Int[Tensor, "utterances beam"], tokens: Int[Tensor, "utterances beam"]
    ) -> None:
        """Make slot (u, k) the hypothesis that stood at (u, parents[u, k]), with a token more."""

    def keep(self, utterances: Int[Tensor, "kept"]) -> None:
        """Drop all utterances but these, which are numbered by their order from now on."""


@runtime_checkable
class CandidateScorer(Protocol):
    """Scores a few tokens after each hypothesis, those that the scorers of all tokens like best."""

    def score(
        self, candidates: Int[Tensor, "utterances beam candidates"] | None
    ) -> Float[Tensor, "utterances beam scored"]:
        """Return the score of each candidate, or of every token where `candidates` is None."""

    def advance(
        self, parents: Int[Tensor, "utterances beam"], tokens: Int[Tensor, "utterances beam"]
    ) -> None:
        """As Scorer.advance."""

    def keep(self, utterances: Int[Tensor, "kept"]) -> None:
        """As Scorer.keep."""


def take(
    values: Float[Tensor, "utterances beam *rest"] | Int[Tensor, "utterances beam *rest"],
    parents: Int[Tensor, "utterances beam"],
) -> Float[Tensor, "utterances beam *rest"] | Int[Tensor, "utterances beam *rest"]:
    """Return `values` with the row of (u, parents[u, k]) at (u, k)."""
    utterances, beam = parents.shape
    first = beam * torch.arange(utterances, device=parents.device)[:, None]
    return values.flatten(0, 1).index_select(0, (first + parents).flatten()).view(values.shape)
