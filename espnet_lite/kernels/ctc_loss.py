"""CTC's loss (Graves et al. 2006) with its gradient, in C++ on a CPU.

torch's takes the states of a frame one after the other, with a call of exp and log for each; with
letters as tokens, and at three depths of an encoder, that is a fifth of a training step. On other
devices, in other types and without a compiler torch's is what runs.
"""

import ctypes

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from espnet_lite.kernels.library import kernel

BLANK = 0
_ARGUMENTS = (*(ctypes.c_void_p,) * 9, ctypes.c_int)
_LANES = 16  # at most, in a vector


class _Sizes(ctypes.Structure):
    """As `Sizes` in sources/ctc_loss.cpp."""

    _fields_ = tuple(
        (name, ctypes.c_int64) for name in ("utterances", "frames", "vocab", "tokens", "room")
    )


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
    function = None
    if log_probs.device.type == "cpu" and log_probs.dtype == torch.float32:
        function = None if torch.compiler.is_compiling() else kernel("ctc_loss", _ARGUMENTS)
    if function is None:
        return functional.ctc_loss(
            log_probs.transpose(0, 1),
            tokens,
            lengths,
            token_lengths,
            blank=BLANK,
            reduction="none",
            zero_infinity=True,
        )
    return _CtcLoss.apply(log_probs, lengths, tokens, token_lengths, function)


class _CtcLoss(torch.autograd.Function):
    """The gradient is made along with the loss, where one is wanted: most of what it takes is there."""

    @staticmethod
    def forward(ctx, log_probs, lengths, tokens, token_lengths, function) -> Tensor:
        batch, frames, vocab = log_probs.shape
        has_gradient = ctx.needs_input_grad[0]
        gradients = torch.zeros(batch, frames, vocab) if has_gradient else None
        losses = torch.empty(batch)
        width = tokens.size(1) + 1 + _LANES
        rows = frames + 1 if has_gradient else 2
        room = (rows + 4) * (2 * width + 2 * _LANES)
        sizes = _Sizes(batch, frames, vocab, tokens.size(1), room)
        # Named, or their memory would be given back before the call.
        inputs = [log_probs.contiguous(), *(x.long().contiguous() for x in (lengths, tokens))]
        inputs.append(token_lengths.long().contiguous())
        memory = torch.empty(batch * room), torch.empty(batch * frames, dtype=torch.float64)
        failed = function(
            *(x.data_ptr() for x in inputs),
            losses.data_ptr(),
            None if gradients is None else gradients.data_ptr(),
            *(x.data_ptr() for x in memory),
            ctypes.addressof(sizes),
            torch.get_num_threads(),
        )
        if failed:
            raise ValueError(
                f"a length is not within {frames} frames and {tokens.size(1)} tokens, or a token not "
                f"within {vocab}"
            )
        if has_gradient:
            ctx.save_for_backward(gradients)
        return losses.masked_fill_(losses == torch.inf, 0.0)

    @staticmethod
    def backward(ctx, gradient) -> tuple[Tensor, None, None, None, None]:
        (of_log_probs,) = ctx.saved_tensors
        return of_log_probs * gradient[:, None, None], None, None, None, None
