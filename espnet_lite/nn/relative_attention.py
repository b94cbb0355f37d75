"""Self-attention with relative positions (Transformer-XL, Dai et al. 2019, 1901.02860)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from espnet_lite.nn.dropout import Dropout

BLOCK = 128  # queries at a time at inference: their scores for 30 s of keys stay in the cache


class RelativeDotProduct(nn.Module):
    """softmax((Qu Kᵀ + shift(Qv Pᵀ))/√d + mask) V: the three matrix products of attention with
    relative positions, a module of their own so that a policy can replace them by quantized ones.

    Score (i, j) is (q_i + u)·k_j + (q_i + v)·p_(i−j) (section 3.3, equation for A^rel). Nothing of
    the size queries × keys × d is made. At inference, queries are taken `BLOCK` at a time into memory
    that is used again: a block needs keys + block distances and not 2 · keys, about half the product
    with P.
    """

    def __init__(self, *, dropout: float = 0.0):
        super().__init__()
        self.dropout = Dropout(dropout)

    def forward(
        self,
        content_query: Float[Tensor, "batch heads time head_dim"],
        position_query: Float[Tensor, "batch heads time head_dim"],
        key: Float[Tensor, "batch heads time head_dim"],
        value: Float[Tensor, "batch heads time head_dim"],
        positions: Float[Tensor, "heads distances head_dim"],
        mask: Bool[Tensor, "#batch #heads #time time"] | None = None,
    ) -> Float[Tensor, "batch heads time head_dim"]:
        """Return the mixed values; a query that may see no key gets some mix of all values.

        Args:
            content_query: queries + u, which meet the keys.
            position_query: queries + v, which meet the positions.
            key, value: of the same frames.
            positions: of the distances i − j from time − 1 down to −(time − 1).
            mask: True means keep.
        """
        scale = key.size(-1) ** -0.5
        queries = (content_query * scale, position_query * scale)
        penalty = None
        if mask is not None:
            # Added, not filled in: the backward pass is free. Finite, so that a row without any
            # key stays a number; exp(-1e4) is 0 in every float type.
            penalty = content_query.new_zeros(mask.shape).masked_fill(~mask, -1.0e4)
        is_autocast = torch.is_autocast_enabled(key.device.type)
        if self.training or torch.is_grad_enabled() or is_autocast:
            return self._whole(*queries, key, value, positions, penalty)
        return _by_blocks(*queries, key, value, positions, penalty)

    def _whole(self, content_query, position_query, key, value, positions, penalty) -> Tensor:
        """Return the mixed values for scaled queries, all at once."""
        scores = content_query @ key.mT + shifted(position_query @ positions.mT)
        if penalty is not None:
            # In the scores' own type: under autocast a sum of two types takes ten times as long.
            scores = scores + penalty.to(scores.dtype)
        with torch.autocast(scores.device.type, enabled=False):  # sums in fp32 all the same
            probabilities = scores.softmax(dim=-1)
        return self.dropout(probabilities) @ value


def _by_blocks(content_query, position_query, key, value, positions, penalty) -> Tensor:
    """Return the mixed values for scaled queries, without gradients and dropout."""
    batch, heads, time, _ = key.shape
    content_query, position_query, key, value, positions = (
        x.expand(batch, *x.shape[-3:]).flatten(0, 1)
        for x in (content_query, position_query, key, value, positions)
    )
    mixed = torch.empty_like(value)
    rows = min(BLOCK, time)
    room = value.new_empty(2, batch * heads * rows * (time + rows - 1))
    for start in range(0, time, rows):
        block = slice(start, min(start + rows, time))
        rows_here = block.stop - start
        distances = time + rows_here - 1
        scores, by_distance = (
            part[: batch * heads * rows_here * columns].view(batch * heads, rows_here, columns)
            for part, columns in zip(room, (time, distances), strict=True)
        )
        torch.bmm(content_query[:, block], key.mT, out=scores)
        near = positions[:, time - block.stop : time - block.stop + distances]
        torch.bmm(position_query[:, block], near.mT, out=by_distance)
        scores += shifted(by_distance)
        if penalty is not None:
            of_block = penalty[..., block, :] if penalty.size(-2) > 1 else penalty
            scores.view(batch, heads, rows_here, time).add_(of_block)
        torch.softmax(scores, dim=-1, out=scores)
        torch.bmm(scores, value, out=mixed[:, block])
    return mixed.view(batch, heads, time, -1)


def shifted(
    scores: Float[Tensor, "*batch queries distances"],
) -> Float[Tensor, "*batch queries keys"]:
    """Return the score of each key for each query, given those of distances; a view.

    With n queries and m keys there are n + m − 1 distances. Key 0 is at distance n − 1 − i of query
    i, in this order: each row begins one element before the row above, so that all rows together
    are a matrix whose rows are one element shorter (appendix B).
    """
    queries, distances = scores.shape[-2:]
    scores = scores.contiguous()
    # One view: the gradient of two slices is filled with zeros twice, which takes four times as long.
    return scores.as_strided(
        (*scores.shape[:-1], distances - queries + 1),
        (*scores.stride()[:-2], distances - 1, 1),
        scores.storage_offset() + queries - 1,
    )


class RelativeAttention(nn.Module):
    """Multi-head self-attention; `positions` are those of nn.positions.relative_sinusoids."""

    def __init__(self, dim: int, *, heads: int, dropout: float = 0.0):
        """`dim` is split evenly over `heads`; `dropout` acts on the attention probabilities."""
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} is not a multiple of heads {heads}")
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.position = nn.Linear(dim, dim, bias=False)
        self.content_bias = nn.Parameter(torch.empty(heads, dim // heads))  # the paper's u
        self.position_bias = nn.Parameter(torch.empty(heads, dim // heads))  # the paper's v
        nn.init.xavier_uniform_(self.content_bias)
        nn.init.xavier_uniform_(self.position_bias)
        self.dot_product = RelativeDotProduct(dropout=dropout)
        self.out = nn.Linear(dim, dim)

    def split(self, x: Float[Tensor, "*batch time dim"]) -> Float[Tensor, "*batch heads time _"]:
        """Return the heads side by side."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        positions: Float[Tensor, "distances dim"],
        mask: Bool[Tensor, "#batch #heads #time time"] | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """Return what each frame reads from all frames that `mask` lets it see."""
        query = self.query(x)
        mixed = self.dot_product(
            self.split(query + self.content_bias.flatten()),
            self.split(query + self.position_bias.flatten()),
            self.split(self.key(x)),
            self.split(self.value(x)),
            self.split(self.position(positions)),
            mask,
        )
        return self.out(mixed.transpose(1, 2).flatten(-2))
