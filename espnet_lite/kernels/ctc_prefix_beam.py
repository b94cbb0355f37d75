"""CTC prefix beam search in C++: whole utterances, a thread for each. decode/prefix_beam.py has what it
computes and the same in torch."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_POINTER = ctypes.c_void_p
ARGUMENTS = (*(_POINTER,) * 5, ctypes.c_int)


class _Sizes(ctypes.Structure):
    """As `Sizes` in sources/ctc_prefix_beam.cpp; so are those below."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("utterances", "frames", "token_beam", "beam", "nbest", "vocab")
    )


class _Frames(ctypes.Structure):
    _fields_ = tuple(
        (name, _POINTER) for name in ("blank", "tokens", "values", "gap", "has_gap", "trailing")
    )


class _Ngram(ctypes.Structure):
    _fields_ = (
        *((name, _POINTER) for name in ("words", "first_child", "word", "log_prob", "backoff")),
        *((name, _POINTER) for name in ("suffix", "state")),
        ("start", ctypes.c_int64),
    )


class _Weights(ctypes.Structure):
    _fields_ = (("penalty", ctypes.c_double), ("lm", ctypes.c_double))


class _Results(ctypes.Structure):
    _fields_ = tuple((name, _POINTER) for name in ("tokens", "lengths", "scores", "ctc", "lm"))


@dataclass(frozen=True)
class NgramTree:
    """An n-gram as arrays of its nodes (lm/ngram.py), with the word that stands for each token."""

    words: Tensor  # int64, of each token
    first_child: Tensor  # int32, of each node and one behind the last
    word: Tensor  # int32
    log_prob: Tensor  # float32
    backoff: Tensor  # float32
    suffix: Tensor  # int32
    state: Tensor  # int32
    start: int


@dataclass(frozen=True)
class FoundPrefixes:
    """Up to `nbest` prefixes of each utterance, best first; a length of −1: there are fewer."""

    tokens: Tensor  # int32 (utterances, nbest, frames)
    lengths: Tensor  # int32 (utterances, nbest)
    scores: Tensor  # float64 (utterances, nbest), and so ctc and lm
    ctc: Tensor
    lm: Tensor


def search(
    function: Callable[..., int],
    *,
    blank: Tensor,
    tokens: Tensor,
    values: Tensor,
    gap: Tensor,
    has_gap: Tensor,
    trailing: Tensor,
    beam: int,
    nbest: int,
    vocab: int,
    penalty: float,
    lm_weight: float,
    ngram: NgramTree | None,
) -> FoundPrefixes:
    """Return the best prefixes of pruned frames, computed by the C++ `function`.

    The tensors of frames are those of prefix_beam.PrunedFrames, `values` from high to low.
    """
    utterances, frames, token_beam = tokens.shape
    given = [x.contiguous() for x in (blank, tokens, values, gap, has_gap, trailing)]
    found = FoundPrefixes(
        tokens=torch.empty(utterances, nbest, frames, dtype=torch.int32),
        lengths=torch.empty(utterances, nbest, dtype=torch.int32),
        scores=torch.empty(utterances, nbest, dtype=torch.float64),
        ctc=torch.empty(utterances, nbest, dtype=torch.float64),
        lm=torch.empty(utterances, nbest, dtype=torch.float64),
    )
    sizes = _Sizes(utterances, frames, token_beam, beam, nbest, vocab)
    places = _Frames(*(x.data_ptr() for x in given))
    weights = _Weights(penalty, lm_weight)
    made = (found.tokens, found.lengths, found.scores, found.ctc, found.lm)
    results = _Results(*(x.data_ptr() for x in made))
    tree = None if ngram is None else _tree(ngram)
    failed = function(
        ctypes.addressof(sizes),
        ctypes.addressof(places),
        None if tree is None else ctypes.addressof(tree),
        ctypes.addressof(weights),
        ctypes.addressof(results),
        torch.get_num_threads(),
    )
    if failed:
        raise MemoryError("no memory for the beams of the CTC prefix search")
    return found


def _tree(ngram: NgramTree) -> _Ngram:
    arrays = (ngram.words, ngram.first_child, ngram.word, ngram.log_prob, ngram.backoff)
    arrays += (ngram.suffix, ngram.state)
    return _Ngram(*(x.data_ptr() for x in arrays), ngram.start)
