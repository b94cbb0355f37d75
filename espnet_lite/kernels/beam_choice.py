"""What a beam search keeps at a step, in C++: candidates after each hypothesis, and the best of all of them.
decode/beam.py has the same in torch, a score of small operations that take longer than what they compute."""

import ctypes
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_POINTER = ctypes.c_void_p
ARGUMENTS = (*(_POINTER,) * 4, ctypes.c_int)
BEST_ARGUMENTS = (_POINTER,) * 9


class _Sizes(ctypes.Structure):
    """As `Sizes` in sources/beam_choice.cpp; `_Scores` is `Scores` there."""

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in ("utterances", "beam", "vocab", "columns", "eos", "full", "partial")
        ),
        ("bonus", ctypes.c_float),
    )


class _Scores(ctypes.Structure):
    _fields_ = (("of", _POINTER), ("weights", _POINTER))


class BeamChoice:
    """The kernel with what stays the same from step to step."""

    def __init__(
        self,
        functions: tuple[Callable[..., int], Callable[..., int]],
        *,
        weights: Sequence[float],
        full: int,
        pre_beam: int,
        eos: int,
        bonus: float,
    ):
        """`functions`: beam_choice and beam_choice_best.

        Args:
            weights: of the `full` scorers of all tokens and of the scorers of candidates.
            pre_beam: candidates of a hypothesis beside <sos/eos>.
            bonus: of each token.
        """
        self.functions = functions
        self.weights = (ctypes.c_float * len(weights))(*weights)
        self.full, self.columns, self.eos, self.bonus = full, pre_beam + 1, eos, bonus

    def _given(self, scores: Sequence[Tensor], shape: Sequence[int]) -> tuple:
        """Return what has to live as long as the call: pointers to scores, and both structures."""
        pointers = (_POINTER * len(scores))(*(x.data_ptr() for x in scores))
        of = _Scores(ctypes.addressof(pointers), ctypes.addressof(self.weights))
        partial = len(scores) - self.full
        sizes = _Sizes(*shape, self.columns, self.eos, self.full, partial, self.bonus)
        return pointers, of, sizes

    def candidates(self, full: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the best tokens after each hypothesis by the weighted sum of `full`, with <sos/eos> last,
        and their sums; (utterances, beam, columns).

        full: of each scorer (utterances, beam, vocab), fp32, contiguous.
        """
        shape = full[0].shape
        tokens = torch.empty(*shape[:2], self.columns, dtype=torch.int64)
        sums = torch.empty(tokens.shape)
        _pointers, of, sizes = self._given(full, shape)
        self.functions[0](
            *(ctypes.addressof(of), tokens.data_ptr(), sums.data_ptr(), ctypes.addressof(sizes)),
            torch.get_num_threads(),
        )
        return tokens, sums

    def best(
        self,
        full: Sequence[Tensor],
        partial: Sequence[Tensor],
        candidates: Tensor,
        sums: Tensor,
        running: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return scores, parents and tokens (utterances, beam) of the best continuations, the best first,
        and what each scorer gave them (scorers, utterances, beam).

        No blank, no <sos/eos> but in its own column, nothing after a hypothesis of −∞ and no score that
        is not a number; where fewer are left, −∞.

        Args:
            partial: of each scorer of candidates (utterances, beam, columns), fp32, contiguous.
            candidates, sums: of `candidates`.
            running: (utterances, beam), fp32, contiguous.
        """
        scores = torch.empty(running.shape)
        parents = torch.empty(running.shape, dtype=torch.int64)
        tokens = torch.empty_like(parents)
        gained = torch.empty(len(full) + len(partial), *running.shape)
        _pointers, of, sizes = self._given([*full, *partial], full[0].shape)
        given = [x.data_ptr() for x in (candidates, sums, running)]
        made = [x.data_ptr() for x in (scores, parents, tokens, gained)]
        self.functions[1](ctypes.addressof(of), *given, *made, ctypes.addressof(sizes))
        return scores, parents, tokens, gained
