"""Label-synchronous beam search over tokens with any scorers, batched over utterances.

The n-best is that of ESPnet's BatchBeamSearch: scores add linearly, candidates for the CTC prefix
scores are chosen by the other scorers (1.5 times the beam), a hypothesis that took <sos/eos> leaves
the beam, and without a limit on the length the search ends by the rule of Watanabe et al. 2017
(eq. 50). Differences: <blank>, which a decoder also has a score for, is never a token of a
hypothesis, and what has the probability 0 is none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from espnet_lite.decode.greedy import BLANK
from espnet_lite.decode.history import trace_back, traceable
from espnet_lite.decode.hypothesis import LENGTH_BONUS, Hypothesis
from espnet_lite.decode.scorers import CandidateScorer, Scorer, take

PRE_BEAM = 1.5  # candidates of each hypothesis as a multiple of the beam (ESPnet)
END_STEPS = 3  # the search ends when at so many lengths running
END_SCORE = -10.0  # the best ended hypothesis is so much worse than the best of all (nats)
DROP_PART = 0.25  # utterances leave the batch when this part of it has ended: leaving costs a copy


@dataclass(frozen=True, slots=True)
class BeamLimits:
    """Size of the beam, and bounds on the tokens of a hypothesis in parts of the encoder's frames.

    As in ESPnet, a negative ratio is a number of tokens, and `max_ratio` 0 means as many tokens as
    frames and detection of the end.
    """

    beam: int
    nbest: int = 1
    max_ratio: float = 0.0
    min_ratio: float = 0.0

    def longest(self, frames: int) -> int:
        """Return the largest number of tokens of an utterance, <sos/eos> not counted."""
        if self.max_ratio == 0:
            return frames
        return -int(self.max_ratio) if self.max_ratio < 0 else max(1, int(self.max_ratio * frames))

    def shortest(self, frames: int) -> int:
        """Return the smallest number of tokens of an utterance."""
        return -int(self.min_ratio) if self.min_ratio < 0 else int(self.min_ratio * frames)


def beam_search(
    scorers: Mapping[str, Scorer],
    candidate_scorers: Mapping[str, CandidateScorer],
    *,
    weights: Mapping[str, float],
    frames: Sequence[int],
    vocab: int,
    eos: int,
    limits: BeamLimits,
) -> list[list[Hypothesis]]:
    """Return the `limits.nbest` best hypotheses of each utterance, best first.

    The list of an utterance is empty where all hypotheses ended before the smallest length.

    Args:
        scorers: name -> scorer of all tokens, ready for a batch of `len(frames)` utterances.
        candidate_scorers: name -> scorer of few tokens; of all where `scorers` is empty.
        weights: of each scorer, and of LENGTH_BONUS for each token (default 0).
        frames: encoder frames of each utterance, for the limits on the length.
        vocab: tokens of the table.
        eos: the token that ends a hypothesis.
    """
    everyone = [*scorers.values(), *candidate_scorers.values()]
    longest = torch.tensor([limits.longest(count) for count in frames])
    shortest = torch.tensor([limits.shortest(count) for count in frames])
    history = _History(len(frames), limits.beam, [*scorers, *candidate_scorers])
    utterances = torch.arange(len(frames))  # those still in the batch
    running = torch.full((len(frames), limits.beam), -torch.inf)
    running[:, 0] = 0.0  # −∞: no hypothesis in this slot
    parts = torch.zeros(len(everyone), len(frames), limits.beam)
    pre_beam = int(PRE_BEAM * limits.beam)
    for step in range(int(longest.max())):
        candidates = None
        values = running.new_zeros(*running.shape, vocab)
        scores = []
        for name, scorer in scorers.items():
            scores.append(scorer.score())
            values = values + weights[name] * scores[-1]
        if scorers and candidate_scorers and pre_beam < vocab:
            candidates = _candidates(values, pre_beam, eos)
            values = values.gather(2, candidates)
        for name, scorer in candidate_scorers.items():
            scores.append(scorer.score(candidates))
            values = values + weights[name] * scores[-1]
        values = values + (running + weights.get(LENGTH_BONUS, 0.0))[..., None]
        best, parents, tokens, index = _best(values, running, candidates, eos)
        parts = torch.stack(
            [
                take(total, parents) + gained.flatten(1).gather(1, place)
                for total, gained, place in zip(
                    parts,
                    scores,
                    [parents * vocab + tokens] * len(scorers) + [index] * len(candidate_scorers),
                    strict=True,
                )
            ]
        )
        last = step + 1 >= longest
        ended = (best > -torch.inf) & ((tokens == eos) | last[:, None])
        counted = ended & (step >= shortest)[:, None]
        history.add(utterances, tokens, parents, best.masked_fill(~counted, -torch.inf), parts)
        running = best.masked_fill(ended, -torch.inf)
        if limits.max_ratio == 0:
            running[history.end_detected(utterances)] = -torch.inf
        active = (running > -torch.inf).any(dim=1)
        if not active.any():
            break
        for scorer in everyone:
            scorer.advance(parents, tokens)
        if active.sum() <= (1 - DROP_PART) * active.numel():
            kept = active.nonzero()[:, 0]
            utterances, running, parts = utterances[kept], running[kept], parts[:, kept]
            longest, shortest = longest[kept], shortest[kept]
            for scorer in everyone:
                scorer.keep(kept)
    return history.best(limits.nbest, eos=eos, bonus=LENGTH_BONUS in weights)


def _candidates(
    values: Float[Tensor, "utterances beam vocab"], count: int, eos: int
) -> Int[Tensor, "utterances beam candidates"]:
    """Return the best `count` tokens of each hypothesis and <sos/eos>, which is always the last."""
    best = values.topk(count, dim=2).indices
    return torch.nn.functional.pad(best, (0, 1), value=eos)


def _best(values, running, candidates, eos: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return score, parent, token and place in a row of `values` of the best hypotheses."""
    width = values.size(2)
    forbidden = (running == -torch.inf)[..., None]
    if candidates is None:
        columns = torch.arange(width)
        forbidden = forbidden | (columns == BLANK)
    else:
        forbidden = forbidden | (candidates == BLANK)
        forbidden = forbidden.clone()
        forbidden[..., :-1] |= candidates[..., :-1] == eos  # it stands in the last column too
    best, index = values.masked_fill(forbidden, -torch.inf).flatten(1).topk(values.size(1), dim=1)
    parents = index // width
    tokens = index % width if candidates is None else candidates.flatten(1).gather(1, index)
    return best, parents, tokens, index


class _History:
    """All steps of a search: where each hypothesis came from, and which of them ended."""

    def __init__(self, utterances: int, beam: int, names: Sequence[str]):
        self.names = names
        self.shape = (utterances, beam)
        self.steps: list[tuple[Tensor, Tensor]] = []  # parents, tokens
        self.ended: list[Tensor] = []  # score of what ended, −∞ of the rest
        self.parts: list[Tensor] = []
        self.best_ended = torch.full((utterances,), -torch.inf)

    def add(self, utterances, tokens, parents, ended, parts) -> None:
        """Append a step of the utterances that are still searched."""
        everywhere = torch.zeros(self.shape, dtype=torch.int64)
        self.steps.append(
            tuple(everywhere.index_copy(0, utterances, part) for part in (parents, tokens))
        )
        nowhere = torch.full(self.shape, -torch.inf)
        self.ended.append(nowhere.index_copy(0, utterances, ended))
        self.parts.append(parts.new_zeros(len(parts), *self.shape).index_copy(1, utterances, parts))
        self.best_ended = torch.maximum(self.best_ended, self.ended[-1].amax(dim=1))

    def end_detected(self, utterances: Int[Tensor, "kept"]) -> Bool[Tensor, "kept"]:
        """Return True where longer hypotheses no longer come near the best that ended.

        ESPnet counts <sos> too, so the newest two steps are not looked at.
        """
        newest = len(self.ended) - 2
        if newest < END_STEPS:
            return torch.zeros(len(utterances), dtype=torch.bool)
        recent = torch.stack(self.ended[newest - END_STEPS : newest]).amax(dim=2)
        behind = (recent > -torch.inf) & (recent - self.best_ended < END_SCORE)
        return behind.all(dim=0)[utterances]

    def best(self, nbest: int, *, eos: int, bonus: bool) -> list[list[Hypothesis]]:
        """Return the best of what ended, traced back to their beginnings."""
        ended = torch.stack(self.ended, dim=1).flatten(1)
        scores, places = ended.topk(min(nbest, ended.size(1)), dim=1)
        steps = traceable(self.steps)
        found = []
        for utterance, row in enumerate(zip(scores.tolist(), places.tolist(), strict=True)):
            hypotheses = []
            for score, place in zip(*row, strict=True):
                if score == -torch.inf:
                    break
                last, slot = divmod(place, self.shape[1])
                totals = self.parts[last][:, utterance, slot].tolist()
                parts = dict(zip(self.names, totals, strict=True))
                reading = trace_back(steps, utterance, slot, last)
                if bonus:
                    parts[LENGTH_BONUS] = float(len(reading))
                hypotheses.append(
                    Hypothesis(reading[: -1 if reading[-1] == eos else None], score, parts)
                )
            found.append(hypotheses)
        return found
