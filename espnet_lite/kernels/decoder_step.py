"""A Transformer decoder for one token more of every hypothesis of a beam search, in C++: pre-norm blocks of
self-attention, attention to the encoder's frames and feed-forward, then log-probabilities.

decode/decoder_scorer.py has the same in torch. What differs is how memory is gone through: weights lie in
the order in which they are read, in panels of 32 columns; so do keys and values of the encoder's frames;
and of the tokens so far each hypothesis visits its own alone.
"""

import ctypes
import mmap
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from espnet_lite.kernels.lowbit_linear import ACTIVATIONS

PANEL = 32  # columns side by side
_POINTER = ctypes.c_void_p
ARGUMENTS = (*(_POINTER,) * 3, ctypes.c_int)


def padded(columns: int) -> int:
    """Return the columns of whole panels."""
    return -(-columns // PANEL) * PANEL


def linear_panels(weight: Tensor, bias: Tensor) -> Tensor:
    """Return a Linear of `weight` (inputs, columns) as the kernel reads it, flat."""
    more = padded(len(bias)) - len(bias)
    return torch.cat([functional.pad(bias, (0, more)), column_panels(weight).flatten()])


def norm_columns(weight: Tensor, bias: Tensor) -> Tensor:
    """Return the numbers of a LayerNorm as the kernel reads them, flat."""
    more = padded(len(bias)) - len(bias)
    return torch.cat([functional.pad(x, (0, more)) for x in (weight, bias)])


def column_panels(x: Tensor) -> Tensor:
    """Return `x` (…, inputs, columns) as (…, panels, inputs, PANEL), with zeros behind the columns."""
    columns = x.size(-1)
    whole = functional.pad(x, (0, padded(columns) - columns))
    return whole.unflatten(-1, (-1, PANEL)).transpose(-3, -2).contiguous()


def on_large_pages(x: Tensor) -> Tensor:
    """Return a copy of flat fp32 `x` in memory whose pages are of 2 MB where the system has them: to
    look up thousands of small ones takes a tenth of a step."""
    memory = mmap.mmap(-1, x.numel() * x.element_size(), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if sys.platform == "linux":
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.float32).copy_(x)


class _Sizes(ctypes.Structure):
    """As `Sizes` in sources/decoder_step.cpp; so are `_Input` and `_Room`."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            *("utterances", "beam", "dim", "heads", "feed_forward", "layers", "vocab"),
            *("frames", "nodes", "room", "activation", "scratch"),
        )
    )


class _Input(ctypes.Structure):
    _fields_ = (
        *((name, _POINTER) for name in ("weights", "embedding", "position", "tokens")),
        *((name, _POINTER) for name in ("ancestors", "keys", "values", "lengths")),
        *((name, ctypes.c_float) for name in ("scale", "epsilon")),
    )


class _Room(ctypes.Structure):
    _fields_ = tuple(
        (name, _POINTER)
        for name in ("pool", "x", "joint", "mixed", "hidden", "logits", "normed", "scratch", "out")
    )


@dataclass(frozen=True)
class StepWeights:
    """A decoder as the kernel reads it.

    Attributes:
        packed: of each block norm, project (query, key, value; the query scaled), out; norm, query
            (scaled), out of the attention to frames; norm, expand, contract; at the end norm and
            output. By linear_panels and norm_columns.
        embedding: (vocab, dim), fp32, contiguous; multiplied by `scale`.
        epsilon: of every LayerNorm.
        activation: of the feed-forward, one of lowbit_linear.ACTIVATIONS.
    """

    packed: Tensor
    embedding: Tensor
    scale: float
    heads: int
    feed_forward: int
    layers: int
    activation: str
    epsilon: float


@dataclass(frozen=True)
class Memory:
    """Keys and values of the encoder's frames, by column_panels of keysᵀ and of values."""

    keys: Tensor  # (layers, utterances, heads, padded(frames) / PANEL, head_dim, PANEL)
    values: Tensor  # (layers, utterances, heads, padded(head_dim) / PANEL, frames, PANEL)
    lengths: Tensor  # (utterances,) int64, frames of each

    def keep(self, utterances: Tensor) -> "Memory":
        """Return that of some utterances."""
        return Memory(
            self.keys.index_select(1, utterances),
            self.values.index_select(1, utterances),
            self.lengths[utterances],
        )


class DecoderStep:
    """The kernel with its weights and its room for so many hypotheses."""

    def __init__(self, function: Callable[..., int], weights: StepWeights, *, rows: int):
        self.function, self.weights = function, weights
        vocab, dim = weights.embedding.shape
        widths = (dim, 3 * dim, dim, weights.feed_forward, vocab)
        self.rows = [torch.zeros(rows, padded(width)) for width in widths]
        self.scratch = torch.empty(0)

    def __call__(
        self,
        tokens: Tensor,
        position: Tensor,
        ancestors: Tensor,
        pool: Tensor,
        memory: Memory,
    ) -> Tensor:
        """Return log-probabilities (utterances, beam, vocab) of the next token.

        Args:
            tokens: (utterances, beam) int64, the newest.
            position: (dim,), added to their embeddings.
            ancestors: (utterances, beam, nodes) int64, nodes of the pool that a hypothesis sees, its
                newest token's last.
            pool: (layers, 2, utterances, heads, nodes, head_dim), keys and values; those of the
                newest tokens are written.
            memory: keys and values of the encoder's frames.
        """
        weights, threads = self.weights, torch.get_num_threads()
        utterances, beam, nodes = ancestors.shape
        vocab, dim = weights.embedding.shape
        frames = memory.values.size(-2)
        normed = threads * utterances * beam * padded(dim)
        scratch = padded(max(nodes, beam * (padded(frames) + padded(dim // weights.heads))))
        if self.scratch.numel() < normed + threads * scratch:
            self.scratch = torch.empty(normed + threads * scratch)
        out = torch.empty(utterances, beam, vocab)
        given = [weights.packed, weights.embedding, position]
        given += [tokens.contiguous(), ancestors.contiguous()]
        given += [memory.keys, memory.values, memory.lengths]
        inputs = _Input(*(x.data_ptr() for x in given), weights.scale, weights.epsilon)
        sizes = _Sizes(
            *(utterances, beam, dim, weights.heads, weights.feed_forward, weights.layers, vocab),
            *(frames, nodes, pool.size(4), ACTIVATIONS.index(weights.activation), scratch),
        )
        places = (pool, *self.rows, self.scratch, self.scratch[normed:], out)
        room = _Room(*(x.data_ptr() for x in places))
        self.function(*(ctypes.addressof(x) for x in (inputs, sizes, room)), threads)
        return out
