"""CTC's losses with their gradients in C++, on a CPU; nn/ctc_loss.py makes torch's autograd of them."""

import ctypes

import torch
from torch import Tensor

from espnet_lite.kernels.library import kernel

_ARGUMENTS = (*(ctypes.c_void_p,) * 9, ctypes.c_int)
_LANES = 16  # at most, in a vector


class _Sizes(ctypes.Structure):
    """As `Sizes` in sources/ctc_loss.cpp."""

    _fields_ = tuple(
        (name, ctypes.c_int64) for name in ("utterances", "frames", "vocab", "tokens", "room")
    )


def is_possible(log_probs: Tensor) -> bool:
    """Return whether the kernel is there and takes such numbers: fp32 on a CPU."""
    if log_probs.device.type != "cpu" or log_probs.dtype != torch.float32:
        return False
    return not torch.compiler.is_compiling() and kernel("ctc_loss", _ARGUMENTS) is not None


def losses_and_gradients(
    log_probs: Tensor,
    lengths: Tensor,
    tokens: Tensor,
    token_lengths: Tensor,
    *,
    has_gradients: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return −log P of each utterance, ∞ where it has too few frames, and their gradients with respect
    to `log_probs`, 0 there.

    The gradients are made along with the losses: most of what they take is there. Arguments are
    those of `nn.ctc_loss`, and `log_probs` one for which `is_possible`.

    Raises:
        ValueError: a length or a token that is out of range.
    """
    batch, frames, vocab = log_probs.shape
    longest = tokens.size(1)
    losses = torch.empty(batch)
    gradients = torch.zeros(batch, frames, vocab) if has_gradients else None
    rows = (frames + 1 if has_gradients else 2) + 4
    sizes = _Sizes(batch, frames, vocab, longest, rows * 2 * (longest + 1 + 2 * _LANES))
    # Named, or their memory would be given back before the call.
    inputs = [log_probs.contiguous()]
    inputs += [x.long().contiguous() for x in (lengths, tokens, token_lengths)]
    memory = torch.empty(batch * sizes.room), torch.empty(batch * frames, dtype=torch.float64)
    failed = kernel("ctc_loss", _ARGUMENTS)(
        *(x.data_ptr() for x in inputs),
        losses.data_ptr(),
        None if gradients is None else gradients.data_ptr(),
        *(x.data_ptr() for x in memory),
        ctypes.addressof(sizes),
        torch.get_num_threads(),
    )
    if failed:
        raise ValueError(
            f"a length is not within {frames} frames and {longest} tokens, "
            f"or a token not within {vocab}"
        )
    return losses, gradients
