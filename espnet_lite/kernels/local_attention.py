"""Self-attention within a window: the same value in blocks of plain torch and fused in C++.

Query i sees the keys j with |i − j| ≤ window. The first `global_tokens` positions see all positions and
are seen by all (Longformer, Beltagy et al. 2020, 2004.05150, section 3.1). A key that is not valid is
seen by nobody.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

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
