"""CTC greedy decoding: the best token of every frame, repeats merged, blanks removed."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from espnet_lite.decode.hypothesis import Hypothesis
from espnet_lite.nn.masks import valid_mask

BLANK = 0


def ctc_greedy_hypotheses(
    log_probs: Float[Tensor, "batch time vocab"], lengths: Int[Tensor, " batch"]
) -> list[Hypothesis]:
    """Return the best path of each utterance; frames at and beyond `lengths` are not looked at.

    Score and part `ctc`: sum over frames of the best log-probability, of this one path. An equal
    best goes to the lowest id. No frames give no tokens and the score 0.
    """
    if log_probs.size(1) == 0:
        return [Hypothesis([], 0.0, {"ctc": 0.0}) for _ in range(log_probs.size(0))]
    best, ids = log_probs.max(dim=-1)
    valid = valid_mask(lengths, log_probs.size(1))
    starts_run = torch.ones_like(valid)
    starts_run[:, 1:] = ids[:, 1:] != ids[:, :-1]
    kept = starts_run & (ids != BLANK) & valid
    tokens = ids[kept].split(kept.sum(dim=1).tolist())
    scores = best.masked_fill(~valid, 0.0).double().sum(dim=1)
    return [
        Hypothesis(part.tolist(), score, {"ctc": score})
        for part, score in zip(tokens, scores.tolist(), strict=True)
    ]


def ctc_greedy(
    log_probs: Float[Tensor, "batch time vocab"], lengths: Int[Tensor, " batch"]
) -> list[list[int]]:
    """Return the token ids of `ctc_greedy_hypotheses`."""
    return [hypothesis.tokens for hypothesis in ctc_greedy_hypotheses(log_probs, lengths)]
