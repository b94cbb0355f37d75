"""CTC scores of prefixes for a beam search over tokens, in C++. decode/ctc_prefix.py says what they are and
has the same in torch, in logarithms."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_POINTER = ctypes.c_void_p
SCORE_ARGUMENTS = (*(_POINTER,) * 5, ctypes.c_int)
ADVANCE_ARGUMENTS = (*(_POINTER,) * 6, ctypes.c_int)
TOP = 960.0  # binary logarithm of a hypothesis' largest number, as in sources/ctc_prefix.cpp


class _Sizes(ctypes.Structure):
    """As `Sizes` in sources/ctc_prefix.cpp; `_State` is `State` there."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("utterances", "beam", "frames", "vocab", "eos", "candidates")
    )


class _State(ctypes.Structure):
    _fields_ = tuple((name, _POINTER) for name in ("any", "blank", "scale", "psi", "last"))


@dataclass(frozen=True, slots=True)
class PrefixState:
    """Of (utterances, beam) hypotheses, all float64 but `last`.

    γ after 0, 1, … frames, in paths of all kinds and in those that end in a blank, is kept divided by
    e^scale: plain numbers of which the largest is near 2^TOP.
    """

    any: Tensor  # (utterances, beam, frames + 1)
    blank: Tensor  # the same
    scale: Tensor  # (utterances, beam)
    psi: Tensor  # ψ of the hypotheses, a logarithm
    last: Tensor  # int64, newest token

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the fields in the order of `State`."""
        return self.any, self.blank, self.scale, self.psi, self.last

    def _struct(self) -> _State:
        return _State(*(x.data_ptr() for x in self.tensors()))


def _sizes(probs: Tensor, state: PrefixState, eos: int, candidates: int) -> _Sizes:
    utterances, vocab, frames = probs.shape
    return _Sizes(utterances, state.last.size(1), frames, vocab, eos, candidates)


def score(
    function: Callable[..., int],
    probs: Tensor,
    state: PrefixState,
    candidates: Tensor,
    *,
    eos: int,
) -> Tensor:
    """Return ψ(g·c) − ψ(g) of each candidate in float32, computed by the C++ `ctc_prefix`.

    Args:
        probs: (utterances, vocab, frames), float64, contiguous.
        candidates: (utterances, beam, candidates), int64.
    """
    candidates = candidates.contiguous()
    scores = torch.empty(candidates.shape)
    sizes, struct = _sizes(probs, state, eos, candidates.size(2)), state._struct()
    function(
        *(probs.data_ptr(), ctypes.addressof(struct), candidates.data_ptr(), scores.data_ptr()),
        ctypes.addressof(sizes),
        torch.get_num_threads(),
    )
    return scores


def advance(
    function: Callable[..., int],
    probs: Tensor,
    state: PrefixState,
    parents: Tensor,
    tokens: Tensor,
    *,
    eos: int,
) -> PrefixState:
    """Return the state of the hypotheses parents[u, k], each grown by its token, computed by the C++
    `ctc_prefix_advance`."""
    after = PrefixState(*(torch.empty_like(x) for x in state.tensors()))
    parents, tokens = parents.contiguous(), tokens.contiguous()
    sizes, before, grown = _sizes(probs, state, eos, 0), state._struct(), after._struct()
    function(
        *(probs.data_ptr(), ctypes.addressof(before), parents.data_ptr(), tokens.data_ptr()),
        *(ctypes.addressof(grown), ctypes.addressof(sizes)),
        torch.get_num_threads(),
    )
    return after
