"""What a student learns from its teacher: outputs and hidden states, on valid positions only.

All sums are over utterances, so that they join a recognizer's own loss (models.loss).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from espnet_lite.nn.masks import valid_mask


def divergence(
    student: Float[Tensor, "batch places vocab"],
    teacher: Float[Tensor, "batch places vocab"],
    valid: Bool[Tensor, "batch places"],
) -> Float[Tensor, ""]:
    """Return Σ KL(teacher ‖ student) of log-probabilities, over valid frames or tokens.

    Its gradient is that of the soft cross entropy at temperature 1 (BiT, section 2.3).
    """
    of_place = (teacher.exp() * (teacher - student)).sum(dim=-1)
    return torch.where(valid, of_place, 0.0).sum()


def hidden_error(
    student: Sequence[Float[Tensor, "batch time dim"]],
    teacher: Sequence[Float[Tensor, "batch time dim"]],
    lengths: Int[Tensor, "batch"],
) -> Float[Tensor, ""]:
    """Return Σ over utterances of frames · mean over layers of Σ‖s − t‖² / Σ‖t‖².

    BiT sums plain squared errors; divided by the teacher's own squares, a layer counts as much as
    another: the residual stream of pre-norm blocks grows tenfold with depth. Times its frames an utterance
    weighs as in the other losses.
    """
    valid = valid_mask(lengths, teacher[0].size(1))[..., None]
    parts = []
    for ours, theirs in zip(student, teacher, strict=True):
        theirs = torch.where(valid, theirs.float(), 0.0)
        error = torch.where(valid, ours.float() - theirs, 0.0).square().sum(dim=(1, 2))
        parts.append(error / theirs.square().sum(dim=(1, 2)).clamp_min(1.0e-6))
    return (torch.stack(parts).mean(dim=0) * lengths).sum()


def agreeing(
    student: Float[Tensor, "batch time vocab"],
    teacher: Float[Tensor, "batch time vocab"],
    lengths: Int[Tensor, "batch"],
) -> tuple[Int[Tensor, ""], Int[Tensor, ""]]:
    """Return (valid frames in which both find the same token the most probable, valid frames)."""
    same = student.argmax(dim=-1) == teacher.argmax(dim=-1)
    return (same & valid_mask(lengths, student.size(1))).sum(), lengths.sum()
