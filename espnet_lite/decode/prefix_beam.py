"""CTC prefix beam search without a lexicon, batched over utterances (Graves 2012, section 7.5.2;
Hannun et al. 2014, algorithm 1).

A beam holds prefixes, each with the probability of all paths that spell it, in two parts: paths
that end in a blank and paths that end in the prefix's last token. At a frame each prefix stays or
grows by a token; a grown prefix that is in the beam already is added to it. Of a frame count its
`token_beam` best tokens, and of those the ones within `token_margin` nats of the frame's best. A
frame in which the blank alone is left needs no search: its blank is multiplied into the next one.

A language model counts when a prefix grows, and once more for the end of the sentence after the last
frame (Hannun et al. 2014, eq. 3).

On a CPU the search is a C++ kernel (kernels/ctc_prefix_beam.py). Without one, and as what the kernel is
tested against, a frame is some forty operations over utterances, prefixes and tokens at once, so that a
batch takes little longer than one utterance. Prefixes are told apart by a 64-bit hash.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from espnet_lite.decode.greedy import BLANK
from espnet_lite.decode.history import STAYS, trace_back, traceable
from espnet_lite.decode.hypothesis import LENGTH_BONUS, Hypothesis
from espnet_lite.decode.ngram_scorer import TokenNgram
from espnet_lite.decode.scorers import take
from espnet_lite.kernels.ctc_prefix_beam import ARGUMENTS, FoundPrefixes, search
from espnet_lite.kernels.library import kernel
from espnet_lite.nn.masks import valid_mask

HASH_FACTOR = 6364136223846793005  # of Knuth's MMIX generator; products are modulo 2^64


@torch.inference_mode()
def ctc_prefix_beam(
    log_probs: Float[Tensor, "utterances time vocab"],
    lengths: Int[Tensor, "utterances"],
    *,
    beam: int,
    token_beam: int,
    token_margin: float,
    penalty: float = 0.0,
    nbest: int = 1,
    ngram: TokenNgram | None = None,
    lm_weight: float = 0.0,
) -> list[list[Hypothesis]]:
    """Return the `nbest` best hypotheses of each utterance, best first.

    Part `ctc` is the log-probability of all paths to it that were not pruned; `penalty` is added to
    the score for each token, and `lm_weight` times the part `lm`, the log-probability of the tokens
    and of the end after them. No frames give the empty hypothesis.
    """
    frames = prune_frames(log_probs, lengths, token_beam=token_beam, token_margin=token_margin)
    function = kernel("ctc_prefix_beam", ARGUMENTS)
    if function is not None:
        found = search(
            function,
            blank=frames.blank,
            tokens=frames.tokens,
            values=frames.values,
            gap=frames.gap,
            has_gap=frames.has_gap,
            trailing=frames.trailing,
            beam=beam,
            nbest=min(nbest, beam),
            vocab=log_probs.size(2),
            penalty=penalty,
            lm_weight=lm_weight,
            ngram=None if ngram is None else ngram.tree,
        )
        return _hypotheses(found, with_bonus=penalty != 0, with_lm=ngram is not None)
    return search_in_torch(
        frames, beam=beam, penalty=penalty, nbest=nbest, ngram=ngram, lm_weight=lm_weight
    )


def search_in_torch(
    frames: "PrunedFrames",
    *,
    beam: int,
    penalty: float,
    nbest: int,
    ngram: TokenNgram | None = None,
    lm_weight: float = 0.0,
) -> list[list[Hypothesis]]:
    """Return what the kernel finds, in plain torch."""
    beams = PrefixBeams(len(frames.trailing), beam, penalty, ngram=ngram, lm_weight=lm_weight)
    gaps = frames.has_gap.any(dim=0).tolist()
    for number, any_gap in enumerate(gaps):
        if any_gap:
            beams.add_blanks(frames.gap[:, number], frames.has_gap[:, number])
        beams.add_frame(frames.blank[:, number], frames.tokens[:, number], frames.values[:, number])
    return beams.best(nbest, frames.trailing)


def _hypotheses(found: FoundPrefixes, *, with_bonus: bool, with_lm: bool) -> list[list[Hypothesis]]:
    """Return the kernel's results as every search does."""
    rows = (found.lengths.tolist(), found.scores.tolist(), found.ctc.tolist(), found.lm.tolist())
    result = []
    for tokens, *columns in zip(found.tokens, *rows, strict=True):
        hypotheses = []
        for place, (length, score, ctc, lm) in enumerate(zip(*columns, strict=True)):
            if length < 0:
                break
            parts = {"ctc": ctc}
            if with_lm:
                parts["lm"] = lm
            if with_bonus:
                parts[LENGTH_BONUS] = float(length)
            hypotheses.append(Hypothesis(tokens[place, :length].tolist(), score, parts))
        result.append(hypotheses)
    return result


@dataclass(frozen=True, slots=True)
class PrunedFrames:
    """The frames of each utterance that need a search; behind the last one, sure blanks.

    values: log-probabilities of `tokens`, −∞ for those outside the margin.
    gap: sum of the blank's log-probabilities in the frames left out before each, and whether there
        were any; `trailing`: the same sum of those behind the last.
    """

    blank: Float[Tensor, "utterances searched"]
    tokens: Int[Tensor, "utterances searched token_beam"]
    values: Float[Tensor, "utterances searched token_beam"]
    gap: Float[Tensor, "utterances searched"]
    has_gap: Bool[Tensor, "utterances searched"]
    trailing: Float[Tensor, "utterances"]


def prune_frames(
    log_probs: Float[Tensor, "utterances time vocab"],
    lengths: Int[Tensor, "utterances"],
    *,
    token_beam: int,
    token_margin: float,
) -> PrunedFrames:
    """Return what the search looks at."""
    utterances, time, vocab = log_probs.shape
    valid = valid_mask(lengths, time)
    blank = log_probs[..., BLANK].double().masked_fill(~valid, 0.0)
    others = log_probs.masked_fill(torch.arange(vocab) == BLANK, -torch.inf)
    values, tokens = others.topk(min(token_beam, vocab - 1), dim=2)
    floor = torch.maximum(values[..., :1].double(), blank[..., None]) - token_margin
    values = values.double()
    values = values.masked_fill((values < floor) | ~valid[..., None], -torch.inf)
    searched = (values > -torch.inf).any(dim=2)
    longest = max(searched.sum(dim=1).tolist(), default=0)
    # Place of the n-th searched frame, and of the end for those that are behind the last one.
    order = torch.where(searched, torch.arange(time), time).sort(dim=1).values
    order = order[:, :longest]
    behind = order == time
    place = order.clamp_max(max(time - 1, 0))
    skipped = torch.nn.functional.pad(blank.masked_fill(searched, 0.0).cumsum(dim=1), (1, 0))
    before = skipped.gather(1, order)
    gap = before.diff(dim=1, prepend=before.new_zeros(utterances, 1))
    has_gap = order.diff(dim=1, prepend=order.new_full((utterances, 1), -1)) > 1
    index = place[..., None].expand(-1, -1, tokens.size(2))
    last = before[:, -1] if order.size(1) else before.new_zeros(utterances)
    return PrunedFrames(
        blank=blank.gather(1, place).masked_fill(behind, 0.0),
        tokens=tokens.gather(1, index),
        values=values.gather(1, index).masked_fill(behind[..., None], -torch.inf),
        gap=gap,
        has_gap=has_gap,
        trailing=skipped[:, -1] - last,
    )


class PrefixBeams:
    """The beam of each utterance: log-probabilities in float64, −∞ in a slot without a prefix."""

    def __init__(
        self,
        utterances: int,
        beam: int,
        penalty: float,
        *,
        ngram: TokenNgram | None = None,
        lm_weight: float = 0.0,
    ):
        """Start with the empty prefix, which ends in a blank for sure."""
        self.penalty = penalty
        self.ngram, self.lm_weight = ngram, lm_weight
        self.in_blank = torch.full((utterances, beam), -torch.inf, dtype=torch.float64)
        self.in_token = self.in_blank.clone()
        self.in_blank[:, 0] = 0.0
        self.lm = torch.zeros_like(self.in_blank)  # the language model's, of the tokens so far
        self.bonus = torch.zeros_like(self.in_blank)  # penalty and weighted `lm` of these
        if ngram is not None:
            self.states = torch.full((utterances, beam), ngram.start)
        self.last = torch.full((utterances, beam), BLANK)
        self.hash = torch.zeros_like(self.last)
        self.parent_hash = torch.full_like(self.last, STAYS)
        self.history: list[tuple[Tensor, Tensor]] = []  # (slot it came from, token or STAYS)

    def add_blanks(
        self, blank: Float[Tensor, "utterances"], present: Bool[Tensor, "utterances"]
    ) -> None:
        """Go through frames that hold nothing but blanks, in the utterances that have such."""
        ends = torch.logaddexp(self.in_blank, self.in_token) + blank[:, None]
        self.in_blank = torch.where(present[:, None], ends, self.in_blank)
        self.in_token = self.in_token.masked_fill(present[:, None], -torch.inf)

    def add_frame(
        self,
        blank: Float[Tensor, "utterances"],
        tokens: Int[Tensor, "utterances token_beam"],
        values: Float[Tensor, "utterances token_beam"],
    ) -> None:
        """Go through one frame and keep the best prefixes."""
        beam = self.last.size(1)
        total = torch.logaddexp(self.in_blank, self.in_token)
        repeats = tokens[:, None] == self.last[..., None]
        value_of_last = torch.where(repeats, values[:, None], -torch.inf).amax(dim=2)
        grown = torch.where(repeats, self.in_blank[..., None], total[..., None]) + values[:, None]
        # A prefix in the beam whose parent is there too takes over what grows into it.
        is_parent = self.parent_hash[..., None] == self.hash[:, None]
        is_parent &= (total > -torch.inf)[..., None]
        takes_over = (is_parent.mT.to(values.dtype) @ repeats.to(values.dtype)) > 0
        # Of paths that end in the parent's last token, a repeat needs those with a blank between.
        twice = self.last[..., None] == self.last[:, None]
        reaches = torch.where(twice, self.in_blank[:, None], total[:, None])
        from_parent = torch.where(is_parent, reaches, -torch.inf).amax(dim=2)
        stay_blank = total + blank[:, None]
        stay_token = torch.logaddexp(self.in_token, from_parent) + value_of_last
        stay = torch.logaddexp(stay_blank, stay_token) + self.bonus
        grown = grown.masked_fill(takes_over, -torch.inf)
        gained = self._gained_by(tokens)
        extra = self.penalty if gained is None else self.penalty + self.lm_weight * gained
        scores = torch.cat([stay, (grown + self.bonus[..., None] + extra).flatten(1)], dim=1)
        index = scores.topk(beam, dim=1).indices
        stays = index < beam
        parents = torch.where(stays, index, (index - beam) // tokens.size(1))
        added = tokens.gather(1, (index - beam).clamp_min(0) % tokens.size(1))
        self.in_token = torch.cat([stay_token, grown.flatten(1)], dim=1).gather(1, index)
        self.in_blank = take(stay_blank, parents).masked_fill(~stays, -torch.inf)
        self.bonus = take(self.bonus, parents) + self.penalty * (~stays).double()
        if gained is not None:
            gain = gained.flatten(1).gather(1, (index - beam).clamp_min(0)).masked_fill(stays, 0.0)
            self.lm = take(self.lm, parents) + gain
            self.bonus += self.lm_weight * gain
            states = take(self.states, parents)
            self.states = torch.where(stays, states, self.ngram.after(states, added))
        self.last = torch.where(stays, take(self.last, parents), added)
        hashes = take(self.hash, parents)
        self.parent_hash = torch.where(stays, take(self.parent_hash, parents), hashes)
        self.hash = torch.where(stays, hashes, hashes * HASH_FACTOR + added)
        self.history.append((parents, added.masked_fill(stays, STAYS)))

    def _gained_by(
        self, tokens: Int[Tensor, "utterances token_beam"]
    ) -> Float[Tensor, "utterances beam token_beam"] | None:
        """Return what the language model gives each prefix for each token, None without one."""
        if self.ngram is None:
            return None
        rows = self.ngram.rows(self.states)
        return rows.gather(2, tokens[:, None].expand(-1, rows.size(1), -1)).double()

    def best(self, nbest: int, trailing: Float[Tensor, "utterances"]) -> list[list[Hypothesis]]:
        """Return the best prefixes after frames of nothing but blanks."""
        total = torch.logaddexp(self.in_blank, self.in_token) + trailing[:, None]
        ended = total + self.bonus
        lm = self.lm
        if self.ngram is not None:
            end = self.ngram.rows(self.states)[..., -1].double()
            ended, lm = ended + self.lm_weight * end, lm + end
        scores, slots = ended.topk(min(nbest, total.size(1)), dim=1)
        ctc, lm = total.gather(1, slots).tolist(), lm.gather(1, slots).tolist()
        history = traceable(self.history)
        found = []
        for utterance, row in enumerate(zip(scores.tolist(), slots.tolist(), ctc, lm, strict=True)):
            hypotheses = []
            for score, slot, part, lm_part in zip(*row, strict=True):
                if score == -torch.inf:
                    break
                reading = trace_back(history, utterance, slot)
                parts = {"ctc": part}
                if self.ngram is not None:
                    parts["lm"] = lm_part
                if self.penalty:
                    parts[LENGTH_BONUS] = float(len(reading))
                hypotheses.append(Hypothesis(reading, score, parts))
            found.append(hypotheses)
        return found
