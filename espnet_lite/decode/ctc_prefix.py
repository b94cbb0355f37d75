"""CTC scores of prefixes for a beam search over tokens (Watanabe et al. 2017, algorithm 2).

γ_t(g) is the log-probability that the first t frames spell exactly the prefix g; it is kept in two
parts, of paths that end in a blank and of paths that do not. The score of g·c is

    ψ(g·c) = log Σ_t exp(γ_{t−1}(g)) · p_t(c)          (eq. 49; for c = last(g): blank paths alone)

and needs no recursion over frames, so that all candidates are one product of matrices. Only for
hypotheses that the search keeps the recursions over frames are computed, each in closed form:

    r_t = log(exp(r_{t−1}) + exp(γ_{t−1})) + x_t   ⇒   r_t = X_t + logcumsumexp_{s≤t}(γ_{s−1} − X_{s−1})

with X_t the sum of x_1 … x_t. The sums reach thousands of nats: they are computed in float64, which
also holds exp(γ − max γ) and p_t(c) as plain numbers.

On a CPU both steps are a C++ kernel (kernels/ctc_prefix.py), in which the recursions run as they stand, on
plain numbers that are scaled once a token. Without a compiler, and as what the kernel is tested against,
they are computed in torch as above.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from espnet_lite.decode.greedy import BLANK
from espnet_lite.decode.scorers import CandidateScorer, take
from espnet_lite.kernels.ctc_prefix import (
    ADVANCE_ARGUMENTS,
    SCORE_ARGUMENTS,
    TOP,
    PrefixState,
    advance,
    score,
)
from espnet_lite.kernels.library import kernel
from espnet_lite.nn.masks import valid_mask

FLOOR = -700.0  # of a log-probability: exp of it is still a normal float64
ZERO = -600.0  # the score of a token that is as good as impossible: −∞
LOWEST = -1.0e9  # stands for −∞ where a number is subtracted


def ctc_prefix_scorer(
    log_probs: Float[Tensor, "utterances time vocab"],
    lengths: Int[Tensor, "utterances"],
    *,
    beam: int,
    eos: int,
) -> CandidateScorer:
    """Return a scorer of empty hypotheses: the kernel's where it can be had, else torch's."""
    scores = kernel("ctc_prefix", SCORE_ARGUMENTS)
    if scores is None or log_probs.device.type != "cpu":
        return CtcPrefixScorer(log_probs, lengths, beam=beam, eos=eos)
    advances = kernel("ctc_prefix_advance", ADVANCE_ARGUMENTS)
    return FusedCtcPrefixScorer((scores, advances), log_probs, lengths, beam=beam, eos=eos)


def _padded_in_blanks(
    log_probs: Float[Tensor, "utterances time vocab"], lengths: Int[Tensor, "utterances"]
) -> Float[Tensor, "utterances time vocab"]:
    """Return finite log-probabilities in float64. Frames beyond the end emit a blank for sure: what
    holds at `time` held at `lengths`."""
    valid = valid_mask(lengths, log_probs.size(1))[..., None]
    log_probs = log_probs.double().clamp_min(FLOOR).masked_fill(~valid, FLOOR)
    log_probs[..., BLANK].masked_fill_(~valid[..., 0], 0.0)
    return log_probs


class CtcPrefixScorer:
    """A CandidateScorer: the probability that a path begins with, or for <sos/eos> is, the prefix."""

    def __init__(
        self,
        log_probs: Float[Tensor, "utterances time vocab"],
        lengths: Int[Tensor, "utterances"],
        *,
        beam: int,
        eos: int,
    ):
        """Start with empty hypotheses; each utterance has a frame or more."""
        utterances = len(log_probs)
        self.eos = eos
        log_probs = _padded_in_blanks(log_probs, lengths)
        self.probs = log_probs.transpose(1, 2).exp().contiguous()  # (utterances, vocab, time)
        self.blank_sums = _sums(log_probs[:, None, :, BLANK])
        in_blank = self.blank_sums.expand(-1, beam, -1)
        self._keep(torch.full_like(in_blank, -torch.inf), in_blank)
        self.last = torch.full((utterances, beam), eos, device=log_probs.device)
        self.scores = torch.zeros_like(in_blank[..., 0])  # ψ of the hypotheses themselves

    def _keep(
        self,
        in_token: Float[Tensor, "utterances beam points"],
        in_blank: Float[Tensor, "utterances beam points"],
    ) -> None:
        """Keep γ, whose point t of time + 1 is after t frames, as numbers of which the largest is 1."""
        self.in_blank = in_blank
        self.in_any = torch.logaddexp(in_token, in_blank)
        # A prefix that no path spells has γ = −∞ throughout.
        self.largest = self.in_any.amax(dim=-1, keepdim=True).clamp_min(LOWEST)
        self.weights = (self.in_any[..., :-1] - self.largest).exp()

    def score(
        self, candidates: Int[Tensor, "utterances beam candidates"] | None
    ) -> Float[Tensor, "utterances beam scored"]:
        """Return ψ(g·c) − ψ(g) in float32; for <sos/eos>, γ(g) at the end − ψ(g); −∞ for blank."""
        if candidates is None:
            vocab = self.probs.size(1)
            sums = self.weights @ self.probs.transpose(1, 2)
            candidates = torch.arange(vocab, device=sums.device).expand_as(sums)
        else:
            sums = (self._probs_of(candidates) @ self.weights[..., None])[..., 0]
        repeating = (self.in_blank[..., :-1] - self.largest).exp() * self._probs_of(self.last)
        repeats = candidates == self.last[..., None]
        psi = torch.where(repeats, repeating.sum(dim=-1, keepdim=True), sums).log() + self.largest
        psi = torch.where(candidates == self.eos, self.in_any[..., -1:], psi)
        gained = psi - self.scores[..., None]
        return gained.masked_fill((candidates == BLANK) | (gained < ZERO), -torch.inf).float()

    def advance(
        self, parents: Int[Tensor, "utterances beam"], tokens: Int[Tensor, "utterances beam"]
    ) -> None:
        """Compute γ of the hypotheses that the search keeps."""
        repeats = (tokens == take(self.last, parents))[..., None]
        before = torch.where(repeats, take(self.in_blank, parents), take(self.in_any, parents))
        sums = _sums(self._probs_of(tokens).log())
        in_token = _recursion(before, sums)
        self.scores = (before[..., :-1] + sums.diff(dim=-1)).logsumexp(dim=-1)
        self.last = tokens
        self._keep(in_token, _recursion(in_token, self.blank_sums))

    def keep(self, utterances: Int[Tensor, "kept"]) -> None:
        """Drop all utterances but these."""
        self.probs, self.blank_sums = self.probs[utterances], self.blank_sums[utterances]
        self.in_blank, self.in_any = self.in_blank[utterances], self.in_any[utterances]
        self.largest, self.weights = self.largest[utterances], self.weights[utterances]
        self.last, self.scores = self.last[utterances], self.scores[utterances]

    def _probs_of(
        self, tokens: Int[Tensor, "utterances *tokens"]
    ) -> Float[Tensor, "utterances *tokens time"]:
        """Return the probability of each token in each frame."""
        utterances, vocab, time = self.probs.shape
        shape = (utterances, *[1] * (tokens.ndim - 1))
        rows = tokens + vocab * torch.arange(utterances, device=tokens.device).view(shape)
        return self.probs.view(-1, time).index_select(0, rows.flatten()).view(*tokens.shape, time)


class FusedCtcPrefixScorer:
    """The same scores from a kernel."""

    def __init__(
        self,
        functions: tuple[Callable[..., int], Callable[..., int]],
        log_probs: Float[Tensor, "utterances time vocab"],
        lengths: Int[Tensor, "utterances"],
        *,
        beam: int,
        eos: int,
    ):
        """`functions`: ctc_prefix and ctc_prefix_advance; else as CtcPrefixScorer."""
        self.functions, self.eos = functions, eos
        log_probs = _padded_in_blanks(log_probs, lengths)
        self.probs = log_probs.transpose(1, 2).exp().contiguous()
        scale = log_probs.new_full((len(log_probs), beam), -TOP * math.log(2))
        blank_sums = _sums(log_probs[:, None, :, BLANK]).expand(-1, beam, -1)
        blank = (blank_sums - scale[..., None]).exp()
        self.state = PrefixState(
            any=blank,
            blank=blank,
            scale=scale,
            psi=torch.zeros_like(scale),
            last=torch.full(scale.shape, eos),
        )

    def score(
        self, candidates: Int[Tensor, "utterances beam candidates"] | None
    ) -> Float[Tensor, "utterances beam scored"]:
        """As CtcPrefixScorer.score."""
        if candidates is None:
            vocab = self.probs.size(1)
            candidates = torch.arange(vocab).expand(*self.state.last.shape, vocab)
        return score(self.functions[0], self.probs, self.state, candidates, eos=self.eos)

    def advance(
        self, parents: Int[Tensor, "utterances beam"], tokens: Int[Tensor, "utterances beam"]
    ) -> None:
        """Compute γ of the hypotheses that the search keeps."""
        self.state = advance(
            self.functions[1], self.probs, self.state, parents, tokens, eos=self.eos
        )

    def keep(self, utterances: Int[Tensor, "kept"]) -> None:
        """Drop all utterances but these."""
        self.probs = self.probs[utterances]
        self.state = PrefixState(*(x[utterances] for x in self.state.tensors()))


def _sums(
    x: Float[Tensor, "utterances beam time"],
) -> Float[Tensor, "utterances beam points"]:
    """Return 0 and the sums of the first 1, 2, … frames."""
    return torch.nn.functional.pad(x.cumsum(dim=-1), (1, 0))


def _recursion(
    before: Float[Tensor, "utterances beam points"],
    sums: Float[Tensor, "utterances #beam points"],
) -> Float[Tensor, "utterances beam points"]:
    """Return r with r_0 = −∞ and r_t = log(exp(r_{t−1}) + exp(before_{t−1})) + x_t; `sums`: of x."""
    inner = (before - sums)[..., :-1].logcumsumexp(dim=-1) + sums[..., 1:]
    return torch.nn.functional.pad(inner, (1, 0), value=-torch.inf)
