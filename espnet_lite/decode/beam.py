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
from torch.nn import functional

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
        parts = torch.stack([take(total, best.parents) for total in parts]) + best.gained
        last = step + 1 >= longest
        ended = (best.scores > -torch.inf) & ((best.tokens == eos) | last[:, None])
        running = best.scores.masked_fill(ended, -torch.inf)
        is_result = ended & (step >= shortest)[:, None]
        history.add(utterances, best, best.scores.masked_fill(~is_result, -torch.inf), parts)
        if limits.max_ratio == 0:
            running[history.end_detected(utterances)] = -torch.inf
        active = (running > -torch.inf).any(dim=1)
        if not active.any():
            break
        for scorer in everyone:
            scorer.advance(best.parents, best.tokens)
        if active.sum() <= (1 - DROP_PART) * active.numel():
            kept = active.nonzero()[:, 0]
            utterances, running, parts = utterances[kept], running[kept], parts[:, kept]
            longest, shortest = longest[kept], shortest[kept]
            for scorer in everyone:
                scorer.keep(kept)
    return history.best(limits.nbest, eos=eos, with_bonus=LENGTH_BONUS in weights)


@dataclass(frozen=True, slots=True)
class _Best:
    """The best continuations of a step: their scores, what they continue and with which token."""

    scores: Float[Tensor, "utterances beam"]  # −∞ where there is none
    parents: Int[Tensor, "utterances beam"]
    tokens: Int[Tensor, "utterances beam"]
    gained: Float[Tensor, "scorers utterances beam"]  # by each scorer, without its weight


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
        self.eos = eos
        self.pre_beam = pre_beam if candidate_scorers and pre_beam < vocab else None

    def best(self, running: Float[Tensor, "utterances beam"]) -> _Best:
        """Return the best continuations of the hypotheses whose scores are `running`."""
        values = running.new_zeros(*running.shape, self.vocab)
        full, partial = [], []
        for name, scorer in self.scorers.items():
            full.append(scorer.score())
            values = values + self.weights[name] * full[-1]
        candidates = None
        forbidden = torch.arange(self.vocab) == BLANK
        if self.pre_beam is not None:
            # <sos/eos> is always scored: it stands in the last column, and only there.
            chosen = values.topk(self.pre_beam, dim=2).indices
            candidates = functional.pad(chosen, (0, 1), value=self.eos)
            values = values.gather(2, candidates)
            forbidden = candidates == BLANK
            forbidden[..., :-1] |= chosen == self.eos
        for name, scorer in self.candidate_scorers.items():
            partial.append(scorer.score(candidates))
            values = values + self.weights[name] * partial[-1]
        values = values + (running + self.bonus)[..., None]
        # What scorers say of a slot without a hypothesis may be no number.
        forbidden = forbidden | (running == -torch.inf)[..., None]
        values = values.masked_fill(forbidden, -torch.inf)
        scores, index = values.flatten(1).topk(running.size(1), dim=1)
        parents, tokens = index // values.size(2), index % values.size(2)
        if candidates is not None:
            tokens = candidates.flatten(1).gather(1, index)
        places = [parents * self.vocab + tokens] * len(full) + [index] * len(partial)
        gained = [
            score.flatten(1).gather(1, place)
            for score, place in zip(full + partial, places, strict=True)
        ]
        return _Best(scores, parents, tokens, torch.stack(gained))


class _History:
    """All steps of a search: where each hypothesis came from, and which of them ended."""

    def __init__(self, utterances: int, beam: int, names: Sequence[str]):
        self.names = names
        self.shape = (utterances, beam)
        self.steps: list[tuple[Tensor, Tensor]] = []  # parents, tokens
        self.ended: list[Tensor] = []  # score of what ended, −∞ of the rest
        self.parts: list[Tensor] = []
        self.best_ended = torch.full((utterances,), -torch.inf)

    def add(
        self,
        utterances: Int[Tensor, "kept"],
        best: _Best,
        ended: Float[Tensor, "kept beam"],
        parts: Float[Tensor, "scorers kept beam"],
    ) -> None:
        """Append a step of the utterances that are still searched."""
        everywhere = torch.zeros(self.shape, dtype=torch.int64)
        parents, tokens = (
            everywhere.index_copy(0, utterances, part) for part in (best.parents, best.tokens)
        )
        self.steps.append((parents, tokens))
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

    def best(self, nbest: int, *, eos: int, with_bonus: bool) -> list[list[Hypothesis]]:
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
                if with_bonus:
                    parts[LENGTH_BONUS] = float(len(reading))
                hypotheses.append(
                    Hypothesis(reading[: -1 if reading[-1] == eos else None], score, parts)
                )
            found.append(hypotheses)
        return found
