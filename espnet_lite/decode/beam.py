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
from espnet_lite.decode.scorers import CandidateScorer, Scorer
from espnet_lite.kernels.beam_choice import ARGUMENTS, BEST_ARGUMENTS, BeamChoice, Continuations
from espnet_lite.kernels.library import kernel

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


@torch.inference_mode()
def beam_search(
    scorers: Mapping[str, Scorer],
    candidate_scorers: Mapping[str, CandidateScorer],
    *,
    weights: Mapping[str, float],
    frames: Sequence[int],
    vocab: int,
    eos: int,
    limits: BeamLimits,
    choose_candidates: bool = True,
) -> list[list[Hypothesis]]:
    """Return the `limits.nbest` best hypotheses of each utterance, best first; runs on the CPU.

    The list of an utterance is empty where all hypotheses ended before the smallest length, or
    where scores are not numbers.

    Args:
        scorers: name -> scorer of all tokens, ready for a batch of `len(frames)` utterances.
        candidate_scorers: name -> scorer of few tokens; of all where `scorers` is empty.
        weights: of each scorer, and of LENGTH_BONUS for each token (default 0).
        frames: encoder frames of each utterance, for the limits on the length.
        vocab: tokens of the table.
        eos: the token that ends a hypothesis.
        choose_candidates: let `scorers` choose what the candidate scorers look at; else they score
            all tokens.
    """
    pre_beam = int(PRE_BEAM * limits.beam) if choose_candidates and scorers else vocab
    proposer = _Proposer(scorers, candidate_scorers, weights, pre_beam, vocab, eos)
    everyone = [*scorers.values(), *candidate_scorers.values()]
    longest = torch.tensor([limits.longest(count) for count in frames])
    shortest = torch.tensor([limits.shortest(count) for count in frames])
    history = _History(len(frames), limits.beam, [*scorers, *candidate_scorers])
    utterances = torch.arange(len(frames))  # those still in the batch
    running = torch.full((len(frames), limits.beam), -torch.inf)
    running[:, 0] = 0.0  # −∞: no hypothesis in this slot
    parts = torch.zeros(len(everyone), len(frames), limits.beam)
    for step in range(int(longest.max())):
        best = proposer.best(running)
        parts = parts.gather(2, best.parents.expand_as(parts)).add_(best.gained)
        last = step + 1 >= longest
        ended = (best.scores > -torch.inf) & ((best.tokens == eos) | last[:, None])
        running = best.scores.masked_fill(ended, -torch.inf)
        is_result = ended & (step >= shortest)[:, None]
        results = best.scores.masked_fill(~is_result, -torch.inf)
        history.steps.append(_Step(utterances, best.parents, best.tokens, results, parts))
        if limits.max_ratio == 0:
            running[history.end_detected(utterances)] = -torch.inf
        active = (running > -torch.inf).any(dim=1)
        remaining = int(active.sum())
        if not remaining:
            break
        for scorer in everyone:
            scorer.advance(best.parents, best.tokens)
        if remaining <= (1 - DROP_PART) * len(active):
            kept = active.nonzero()[:, 0]
            utterances, running, parts = utterances[kept], running[kept], parts[:, kept]
            longest, shortest = longest[kept], shortest[kept]
            for scorer in everyone:
                scorer.keep(kept)
    return history.best(limits.nbest, eos=eos, with_bonus=LENGTH_BONUS in weights)


class _Proposer:
    """Asks the scorers for what may follow, and chooses."""

    def __init__(
        self,
        scorers: Mapping[str, Scorer],
        candidate_scorers: Mapping[str, CandidateScorer],
        weights: Mapping[str, float],
        pre_beam: int,
        vocab: int,
        eos: int,
    ):
        self.scorers = scorers
        self.candidate_scorers = candidate_scorers
        self.weights = weights
        self.bonus = weights.get(LENGTH_BONUS, 0.0)
        self.vocab = vocab
        self.eos = torch.tensor([[[eos]]])
        self.pre_beam = pre_beam if candidate_scorers and pre_beam < vocab else None
        self.is_forbidden = torch.zeros(vocab, dtype=torch.bool)
        self.is_forbidden[BLANK] = True
        if self.pre_beam is not None:
            self.is_forbidden[eos] = True  # but in its own column
        self.choice = None
        functions = kernel("beam_choice", ARGUMENTS), kernel("beam_choice_best", BEST_ARGUMENTS)
        if self.pre_beam is not None and functions[0] is not None:
            self.choice = BeamChoice(
                functions,
                weights=[weights[name] for name in (*scorers, *candidate_scorers)],
                full=len(scorers),
                vocab=vocab,
                pre_beam=self.pre_beam,
                eos=eos,
                bonus=self.bonus,
            )

    def best(self, running: Float[Tensor, "utterances beam"]) -> Continuations:
        """Return the best continuations of the hypotheses whose scores are `running`."""
        full = [scorer.score() for scorer in self.scorers.values()]
        if self.choice is not None:
            candidates, sums = self.choice.candidates(full)
            partial = [scorer.score(candidates) for scorer in self.candidate_scorers.values()]
            return self.choice.best(full, partial, candidates, sums, running)
        values = sum(self.weights[name] * one for name, one in zip(self.scorers, full, strict=True))
        partial = []
        candidates, forbidden = None, self.is_forbidden
        if self.pre_beam is not None:
            # <sos/eos> is always scored: it stands in the last column, and only there.
            chosen = values.topk(self.pre_beam, dim=2, sorted=False).indices
            candidates = torch.cat([chosen, self.eos.expand(*running.shape, 1)], dim=2)
            values = values.gather(2, candidates)
            forbidden = self.is_forbidden[candidates]
            forbidden[..., -1] = False
        for name, scorer in self.candidate_scorers.items():
            partial.append(scorer.score(candidates))
            values = values + self.weights[name] * partial[-1]
        values = values + (running + self.bonus)[..., None]
        # What scorers say of a slot without a hypothesis may be no number.
        forbidden = forbidden | (running == -torch.inf)[..., None]
        values = values.masked_fill_(forbidden, -torch.inf)
        scores, index = values.flatten(1).topk(running.size(1), dim=1)
        parents, tokens = index // values.size(2), index % values.size(2)
        if candidates is not None:
            tokens = candidates.flatten(1).gather(1, index)
        gained = [score.flatten(1).gather(1, index) for score in partial]
        if full:
            index = parents * self.vocab + tokens
            gained = [*(score.flatten(1).gather(1, index) for score in full), *gained]
        return Continuations(scores, parents, tokens, torch.stack(gained))


@dataclass(frozen=True, slots=True)
class _Step:
    """What a step left, of the utterances that were still searched."""

    utterances: Int[Tensor, "kept"]
    parents: Int[Tensor, "kept beam"]
    tokens: Int[Tensor, "kept beam"]
    ended: Float[Tensor, "kept beam"]  # scores of what ended, −∞ of the rest
    parts: Float[Tensor, "scorers kept beam"]


class _History:
    """All steps of a search: where each hypothesis came from, and which of them ended."""

    def __init__(self, utterances: int, beam: int, names: Sequence[str]):
        self.names = names
        self.shape = (utterances, beam)
        self.steps: list[_Step] = []
        self.best_ended = torch.full((utterances,), -torch.inf)

    def end_detected(self, utterances: Int[Tensor, "kept"]) -> Bool[Tensor, "kept"]:
        """Return True where longer hypotheses no longer come near the best that ended; asked after
        every step.

        ESPnet counts <sos> too, so the newest two steps are not looked at.
        """
        best_now = self._everywhere(self.steps[-1], self.steps[-1].ended.amax(dim=1))
        self.best_ended = torch.maximum(self.best_ended, best_now)
        newest = len(self.steps) - 2
        if newest < END_STEPS:
            return torch.zeros(len(utterances), dtype=torch.bool)
        recent = torch.stack(
            [
                self._everywhere(step, step.ended.amax(dim=1))
                for step in self.steps[newest - END_STEPS : newest]
            ]
        )
        behind = (recent > -torch.inf) & (recent - self.best_ended < END_SCORE)
        return behind.all(dim=0)[utterances]

    def _everywhere(self, step: _Step, values: Tensor, empty: float | int = -torch.inf) -> Tensor:
        """Return `values` (kept, …) of a step with a row for each utterance."""
        everywhere = values.new_full((self.shape[0], *values.shape[1:]), empty)
        return everywhere.index_copy_(0, step.utterances, values)

    def best(self, nbest: int, *, eos: int, with_bonus: bool) -> list[list[Hypothesis]]:
        """Return the best of what ended, traced back to their beginnings."""
        ended = torch.stack([self._everywhere(s, s.ended) for s in self.steps], dim=1).flatten(1)
        scores, places = ended.topk(min(nbest, ended.size(1)), dim=1)
        steps = traceable(
            [
                (self._everywhere(s, s.parents, 0), self._everywhere(s, s.tokens, 0))
                for s in self.steps
            ]
        )
        rows = [{u: row for row, u in enumerate(s.utterances.tolist())} for s in self.steps]
        found = []
        for utterance, row in enumerate(zip(scores.tolist(), places.tolist(), strict=True)):
            hypotheses = []
            for score, place in zip(*row, strict=True):
                if score == -torch.inf:
                    break
                last, slot = divmod(place, self.shape[1])
                totals = self.steps[last].parts[:, rows[last][utterance], slot].tolist()
                parts = dict(zip(self.names, totals, strict=True))
                reading = trace_back(steps, utterance, slot, last)
                if with_bonus:
                    parts[LENGTH_BONUS] = float(len(reading))
                hypotheses.append(
                    Hypothesis(reading[: -1 if reading[-1] == eos else None], score, parts)
                )
            found.append(hypotheses)
        return found
