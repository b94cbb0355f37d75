"""What a beam search keeps at a step, in C++: candidates after each hypothesis, and the best of all of them.
decode/beam.py has the same in torch, a score of small operations that take longer than what they compute."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class _Given:
    """What has to live as long as a call."""

    kept: list[Tensor]
    pointers: ctypes.Array
    of: _Scores
    sizes: _Sizes


@dataclass(frozen=True, slots=True)
class Continuations:
    """The best continuations of a step, the best first; scores are −∞ where there is none."""

    scores: Tensor  # (utterances, beam)
    parents: Tensor  # (utterances, beam) int64, what they continue
    tokens: Tensor  # (utterances, beam) int64, with which token
    gained: Tensor  # (scorers, utterances, beam), by each scorer, without its weight


class BeamChoice:
    """The kernel with what stays the same from step to step."""

    def __init__(
        self,
        functions: tuple[Callable[..., int], Callable[..., int]],
        *,
        weights: Sequence[float],
        full: int,
        vocab: int,
        pre_beam: int,
        eos: int,
        bonus: float,
    ):
        """`functions`: beam_choice and beam_choice_best.

        Args:
            weights: of the `full` scorers of all tokens and of the scorers of candidates.
            vocab: tokens that each of them has a score for.
            pre_beam: candidates of a hypothesis beside <sos/eos>.
            bonus: of each token.
        """
        self.functions = functions
        self.weights = (ctypes.c_float * len(weights))(*weights)
        self.full, self.vocab, self.columns = full, vocab, pre_beam + 1
        self.eos, self.bonus = eos, bonus

    def _given(self, scores: Sequence[Tensor], running: tuple[int, int]) -> "_Given":
        """Return scores of hypotheses (utterances, beam) as the kernel takes them.

        Raises:
            ValueError: scores of another shape.
        """
        utterances, beam = running
        shapes = [(utterances, beam, self.vocab)] * self.full
        shapes += [(utterances, beam, self.columns)] * (len(scores) - self.full)
        if [tuple(x.shape) for x in scores] != shapes:
            raise ValueError(f"scores of {[tuple(x.shape) for x in scores]}, expected {shapes}")
        kept = [x.float().contiguous() for x in scores]
        pointers = (_POINTER * len(kept))(*(x.data_ptr() for x in kept))
        of = _Scores(ctypes.addressof(pointers), ctypes.addressof(self.weights))
        partial = len(kept) - self.full
        sizes = _Sizes(
            *(utterances, beam, self.vocab, self.columns, self.eos, self.full, partial), self.bonus
        )
        return _Given(kept, pointers, of, sizes)

    def candidates(self, full: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the best tokens after each hypothesis by the weighted sum of `full`, with <sos/eos> last,
        and their sums; (utterances, beam, columns).

        full: of each scorer (utterances, beam, vocab).
        """
        utterances, beam, _ = full[0].shape
        tokens = torch.empty(utterances, beam, self.columns, dtype=torch.int64)
        sums = torch.empty(tokens.shape)
        given = self._given(full, (utterances, beam))
        self.functions[0](
            *(ctypes.addressof(given.of), tokens.data_ptr(), sums.data_ptr()),
            *(ctypes.addressof(given.sizes), torch.get_num_threads()),
        )
        return tokens, sums

    def best(
        self,
        full: Sequence[Tensor],
        partial: Sequence[Tensor],
        candidates: Tensor,
        sums: Tensor,
        running: Tensor,
    ) -> Continuations:
        """Return the best continuations.

        No blank, no <sos/eos> but in its own column, nothing after a hypothesis of −∞ and no score that
        is not a number.

        Args:
            partial: of each scorer of candidates (utterances, beam, columns).
            candidates, sums: of `candidates`.
            running: (utterances, beam), scores of the hypotheses.
        """
        running = running.float().contiguous()
        found = Continuations(
            scores=torch.empty(running.shape),
            parents=torch.empty(running.shape, dtype=torch.int64),
            tokens=torch.empty(running.shape, dtype=torch.int64),
            gained=torch.empty(len(full) + len(partial), *running.shape),
        )
        given = self._given([*full, *partial], tuple(running.shape))
        made = (found.scores, found.parents, found.tokens, found.gained)
        self.functions[1](
            ctypes.addressof(given.of),
            *(x.data_ptr() for x in (candidates, sums, running, *made)),
            ctypes.addressof(given.sizes),
        )
        return found
