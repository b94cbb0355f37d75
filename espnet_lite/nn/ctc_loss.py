"""CTC's loss (Graves et al. 2006).

torch's takes the states of a frame one after the other on a CPU, with a call of exp and log for each:
with letters as tokens, and at three depths of a Squeezeformer, a tenth of a training step. Where the kernel is
not, on other devices and in other types, torch's is what runs.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from espnet_lite.kernels import ctc_loss as kernel


def ctc_loss(
    log_probs: Float[Tensor, "batch time vocab"],
    lengths: Int[Tensor, "batch"],
    tokens: Int[Tensor, "batch tokens"],
    token_lengths: Int[Tensor, "batch"],
) -> Float[Tensor, "batch"]:
    """Return −log P(tokens) of each utterance in nats, blank being token 0; 0, without a gradient,
    where it has too few frames.

    Args:
        log_probs: log-softmax of the frames.
        lengths: frames of each utterance.
        tokens: transcripts; what is behind their ends is not looked at but must be from 0 on.
        token_lengths: tokens of each transcript.

    Raises:
        ValueError: a length or a token that is out of range.
    """
    if kernel.is_possible(log_probs):
        return _CtcLoss.apply(log_probs, lengths, tokens, token_lengths)
    return functional.ctc_loss(
        log_probs.transpose(0, 1),
        tokens,
        lengths,
        token_lengths,
        reduction="none",
        zero_infinity=True,
    )


class _CtcLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, log_probs, lengths, tokens, token_lengths) -> Tensor:
        losses, gradients = kernel.losses_and_gradients(
            log_probs, lengths, tokens, token_lengths, has_gradients=ctx.needs_input_grad[0]
        )
        if gradients is not None:
            ctx.save_for_backward(gradients)
        return losses.masked_fill_(losses == torch.inf, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient) -> tuple[Tensor, None, None, None]:
        (of_log_probs,) = ctx.saved_tensors
        return of_log_probs * gradient[:, None, None], None, None, None
