"""Self-attention within a window: the same value in blocks of plain torch and fused in C++.

Query i sees the keys j with |i − j| ≤ window. The first `global_tokens` positions see all positions and
are seen by all (Longformer, Beltagy et al. 2020, 2004.05150, section 3.1). A key that is not valid is
seen by nobody.
"""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from espnet_lite.kernels.library import kernel

_SMALLEST_BLOCK = 16  # queries; below, the products of a block are too small to be fast
_HIDDEN = -1.0e4  # added to a hidden score; exp(-1e4) is 0 in every float type


class _Windows(torch.autograd.Function):
    """(batch, heads, time, head_dim) → (batch · heads · blocks, block + 2 · window, head_dim): of each
    block of positions also the `window` positions on either side, as overlapping views of one copy.

    The sequences lie one after the other in that copy, each padded with zeros to whole blocks and by
    at least a window, so that no window reaches the next sequence.
    """

    @staticmethod
    def forward(ctx, x: Tensor, block: int, blocks: int, window: int) -> Tensor:
        batch, heads, frames, head_dim = x.shape
        ctx.shape, ctx.sizes = x.shape, (block, blocks, window)
        rows = batch * heads * blocks * block
        copy = x.new_zeros(rows + 2 * window, head_dim)
        padded = copy[window : window + rows].view(batch, heads, blocks * block, head_dim)
        padded[:, :, :frames] = x
        return copy.as_strided(
            (rows // block, block + 2 * window, head_dim), (block * head_dim, head_dim, 1)
        )

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (batch, heads, frames, head_dim), (block, blocks, window) = ctx.shape, ctx.sizes
        count, span, _ = gradient.shape
        pieces = -(-span // block)
        total = gradient.new_zeros(count + pieces, block, head_dim)
        for piece in range(pieces):  # what windows share is summed a block at a time
            part = gradient[:, piece * block : (piece + 1) * block]
            total[piece : piece + count, : part.size(1)] += part
        total = total.flatten(0, 1)[window : window + count * block]
        total = total.view(batch, heads, blocks * block, head_dim)[:, :, :frames]
        return total, None, None, None


def in_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_valid: Tensor | None,
    *,
    window: int,
    global_tokens: int,
    dropout: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return softmax(QKᵀ/√d) V over the keys that each query sees, in plain torch, with a gradient.

    Time and memory are linear in the number of frames: blocks of `window` queries are multiplied with
    the three blocks of keys around them, three halves of the pairs in the window. Where that is more
    than all pairs, all pairs are taken.

    Args:
        query, key, value: (batch, heads, time, head_dim), of one type.
        key_valid: (batch, time), True where a key may be seen; None: all.
        window: frames seen on either side.
        global_tokens: positions at the beginning that see all and are seen by all.
        dropout: of the probabilities.

    Returns:
        (batch, heads, time, head_dim); a query that may see no key gets some mix of values.
    """
    frames = query.size(2)
    window, global_tokens = min(window, frames - 1), min(global_tokens, frames)
    block = max(window, _SMALLEST_BLOCK)
    blocks = -(-(frames + window) // block)
    query = query * query.size(-1) ** -0.5
    if _all_pairs_are_fewer(frames=frames, block=block, blocks=blocks, window=window):
        position = torch.arange(frames, device=query.device)
        seen = (position[:, None] - position).abs() <= window
        seen |= (position[:, None] < global_tokens) | (position < global_tokens)
        if key_valid is not None:
            seen = seen & key_valid[:, None, :]
        scores = _hide(query @ key.transpose(-1, -2), seen.view(-1, 1, frames, frames))
        return _probabilities(scores, dropout) @ value

    batch, heads, _, head_dim = query.shape
    shape = (batch, heads, blocks, block)
    queries = functional.pad(query, (0, 0, 0, blocks * block - frames)).reshape(-1, block, head_dim)
    keys = _Windows.apply(key, block, blocks, window)
    values = _Windows.apply(value, block, blocks, window)
    seen = _seen_in_windows(
        key_valid,
        frames=frames,
        block=block,
        blocks=blocks,
        window=window,
        first=global_tokens,
        device=query.device,
    )
    scores = _hide(torch.bmm(queries, keys.transpose(1, 2)).view(*shape, -1), seen[:, None])
    if global_tokens:
        to_global = torch.bmm(
            queries.view(batch * heads, -1, head_dim),
            key[:, :, :global_tokens].flatten(0, 1).transpose(1, 2),
        ).view(*shape, global_tokens)
        if key_valid is not None:
            to_global = _hide(to_global, key_valid[:, None, None, None, :global_tokens])
        scores = torch.cat([to_global, scores], dim=-1)
    probabilities = _probabilities(scores, dropout)
    mixed = torch.bmm(probabilities[..., global_tokens:].flatten(0, 2), values)
    mixed = mixed.view(batch, heads, -1, head_dim)[:, :, :frames]
    if not global_tokens:
        return mixed
    from_global = probabilities[..., :global_tokens].flatten(2, 3)[:, :, :frames]
    mixed = mixed + from_global @ value[:, :, :global_tokens]
    scores = query[:, :, :global_tokens] @ key.transpose(-1, -2)
    if key_valid is not None:
        scores = _hide(scores, key_valid[:, None, None, :])
    of_global = _probabilities(scores, dropout) @ value
    return torch.cat([of_global, mixed[:, :, global_tokens:]], dim=2)


def _all_pairs_are_fewer(*, frames: int, block: int, blocks: int, window: int) -> bool:
    """Return whether blocks would compute more scores than there are pairs of frames."""
    return blocks * block * (block + 2 * window) >= frames * frames


def _seen_in_windows(
    key_valid: Tensor | None,
    *,
    frames: int,
    block: int,
    blocks: int,
    window: int,
    first: int,
    device: torch.device,
) -> Tensor:
    """Return (batch or 1, blocks, block, span): which of its window's keys, from `first` on, a query
    sees."""
    span = torch.arange(block + 2 * window, device=device)
    beside = span - torch.arange(block, device=device)[:, None]
    position = torch.arange(blocks, device=device)[:, None] * block - window + span
    there = ((position >= first) & (position < frames))[None]
    if key_valid is not None:
        there = there & key_valid[:, position.clamp(0, frames - 1)]
    return there[:, :, None, :] & ((beside >= 0) & (beside <= 2 * window))


def _hide(scores: Tensor, seen: Tensor) -> Tensor:
    """Return the scores with those that are not seen far below the others.

    Added, not filled in, and finite, for the reasons in nn.attention's DotProductAttention.
    """
    return scores + scores.new_zeros(seen.shape).masked_fill(~seen, _HIDDEN)


def _probabilities(scores: Tensor, dropout: Callable[[Tensor], Tensor] | None) -> Tensor:
    with torch.autocast(scores.device.type, enabled=False):  # sums in fp32 all the same
        probabilities = scores.softmax(dim=-1)
    return probabilities if dropout is None else dropout(probabilities)


class _Strides(ctypes.Structure):
    """Floats from one sequence, head and frame to the next."""

    _fields_ = (("batch", ctypes.c_int64), ("head", ctypes.c_int64), ("frame", ctypes.c_int64))


class _Sizes(ctypes.Structure):
    """As `Sizes` in sources/local_attention.cpp, where `_Strides` is `Strided`."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("batch", "heads", "frames", "head_dim", "window", "global_tokens")
    )


ARGUMENTS = (*(ctypes.c_void_p,) * 7, ctypes.c_int)


def fused(
    function: Callable[..., int],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_valid: Tensor | None,
    window: int,
    global_tokens: int,
) -> Tensor:
    """Return what `in_blocks` returns for fp32 tensors on the CPU, computed by the C++ `function`.

    A query that may see no key gets zeros.
    """
    batch, heads, frames, head_dim = query.shape
    given = [x if x.stride(-1) == 1 else x.contiguous() for x in (query, key, value)]
    # Frames before heads, as the projection that follows wants them.
    out = query.new_empty(batch, frames, heads, head_dim).transpose(1, 2)
    strides = (_Strides * 4)(*(x.stride()[:3] for x in (*given, out)))
    sizes = _Sizes(
        *(batch, heads, frames, head_dim), min(window, frames - 1), min(global_tokens, frames)
    )
    if key_valid is not None:
        key_valid = key_valid.contiguous()
    failed = function(
        *(x.data_ptr() for x in (*given, out)),
        None if key_valid is None else key_valid.data_ptr(),
        ctypes.addressof(strides),
        ctypes.addressof(sizes),
        torch.get_num_threads(),
    )
    if failed:
        raise MemoryError("no memory for the scores of local attention")
    return out


def _on_any_device(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_valid: Tensor | None,
    window: int,
    global_tokens: int,
) -> Tensor:
    return in_blocks(query, key, value, key_valid, window=window, global_tokens=global_tokens)


def _on_cpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_valid: Tensor | None,
    window: int,
    global_tokens: int,
) -> Tensor:
    function = kernel("local_attention", ARGUMENTS)
    if function is None or query.dtype != torch.float32:
        return _on_any_device(query, key, value, key_valid, window, global_tokens)
    return fused(function, query, key, value, key_valid, window, global_tokens)


torch.library.define(
    "espnet_lite::local_attention",
    "(Tensor query, Tensor key, Tensor value, Tensor? key_valid, int window, int global_tokens)"
    " -> Tensor",
)
torch.library.impl("espnet_lite::local_attention", "default", _on_any_device)
torch.library.impl("espnet_lite::local_attention", "cpu", _on_cpu)


@torch.library.register_fake("espnet_lite::local_attention")
def _without_data(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_valid: Tensor | None,
    window: int,
    global_tokens: int,
) -> Tensor:
    return torch.empty_like(query)


def local_attention_flops(
    query: tuple[int, ...],
    key: tuple[int, ...],
    value: tuple[int, ...],
    key_valid: tuple[int, ...] | None,
    window: int,
    global_tokens: int,
    *,
    out_shape: tuple[int, ...],
) -> int:
    """Return 2 × the multiplications of both products for tensors of these shapes, padding included.

    A pair of query and key that see each other takes head_dim multiplications in each.
    """
    batch, heads, frames, head_dim = query
    window, tokens = min(window, frames - 1), min(global_tokens, frames)
    others = frames - tokens
    near = min(window, max(0, others - 1))
    in_window = others * (2 * near + 1) - near * (near + 1)
    pairs = tokens * frames + others * tokens + in_window
    return 2 * 2 * batch * heads * head_dim * pairs
