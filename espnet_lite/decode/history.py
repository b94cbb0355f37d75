"""How the hypotheses of a beam came to be: where each slot came from at each step, and with what."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

STAYS = -1  # in the place of a token: the hypothesis did not grow

Step = tuple[Int[Tensor, "utterances beam"], Int[Tensor, "utterances beam"]]  # parents, tokens
Lists = list[list[list[list[int]]]]


def traceable(steps: Sequence[Step]) -> Lists:
    """Return the steps as nested lists [step][parents or tokens][utterance][slot]."""
    return torch.stack([torch.stack(step) for step in steps]).tolist() if steps else []


def trace_back(steps: Lists, utterance: int, slot: int, last: int | None = None) -> list[int]:
    """Return the tokens of the hypothesis in `slot` after step `last` (default: the last one)."""
    reading = []
    for parents, tokens in reversed(steps[: None if last is None else last + 1]):
        if tokens[utterance][slot] != STAYS:
            reading.append(tokens[utterance][slot])
        slot = parents[utterance][slot]
    reading.reverse()
    return reading
