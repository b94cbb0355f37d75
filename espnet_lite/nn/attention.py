"""Multi-head attention (Vaswani et al. 2017, section 3.2)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from espnet_lite.nn.dropout import Dropout
from espnet_lite.nn.kept_tables import kept_at_inference


class DotProductAttention(nn.Module):
    """softmax(QKᵀ/√d + mask) V: the two matrix products of attention, a module of their own so that
    a policy can replace them by quantized ones.

    On a CPU the products are written out: forward and backward take a third of the time of torch's
    fused kernel at the lengths of speech utterances.
    """

    def __init__(self, *, dropout: float = 0.0):
        super().__init__()
        self.dropout = Dropout(dropout)

    def forward(
        self,
        query: Float[Tensor, "batch heads queries head_dim"],
        key: Float[Tensor, "batch heads keys head_dim"],
        value: Float[Tensor, "batch heads keys head_dim"],
        mask: Bool[Tensor, "#batch #heads #queries keys"] | None = None,
    ) -> Float[Tensor, "batch heads queries head_dim"]:
        """Return the mixed values; a query that may see no key gets some mix of all values."""
        if query.device.type != "cpu":
            return functional.scaled_dot_product_attention(
                query, key, value, mask, self.dropout.p if self.training else 0.0
            )
        scores = (query * query.size(-1) ** -0.5) @ key.transpose(-1, -2)
        if mask is not None:
            # Added, not filled in: the backward pass is free. Finite, so that a row without any
            # key stays a number; exp(-1e4) is 0 in every float type.
            scores = scores + scores.new_zeros(mask.shape).masked_fill(~mask, -1.0e4)
        with torch.autocast(query.device.type, enabled=False):  # sums in fp32 all the same
            probabilities = scores.softmax(dim=-1)
        return self.dropout(probabilities) @ value


class MultiHeadAttention(nn.Module):
    """Queries from one sequence, keys and values from the same or another one."""

    def __init__(self, dim: int, *, heads: int, dropout: float = 0.0):
        """`dim` is split evenly over `heads`; `dropout` acts on the attention probabilities."""
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} is not a multiple of heads {heads}")
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.dot_product = DotProductAttention(dropout=dropout)
        self.out = nn.Linear(dim, dim)

    def split(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch heads time _"]:
        """Return the heads side by side."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(
        self,
        x: Float[Tensor, "batch queries dim"],
        source: Float[Tensor, "batch keys dim"],
        mask: Bool[Tensor, "#batch #heads #queries keys"] | None = None,
        rotation: Float[Tensor, "2 queries half"] | None = None,
    ) -> Float[Tensor, "batch queries dim"]:
        """Return what each query reads from `source`; with `rotation` (rotary positions) queries
        and keys are turned by their positions first."""
        query, key = self.split(self.query(x)), self.split(self.key(source))
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        mixed = self.dot_product(query, key, self.split(self.value(source)), mask)
        return self.out(mixed.transpose(1, 2).flatten(-2))


@kept_at_inference
def rotary_table(
    frames: int, head_dim: int, *, device: torch.device | None = None
) -> Float[Tensor, "2 frames half"]:
    """Return cosine and sine of position·10000^(−2i/head_dim) (RoFormer, Su et al. 2021, eq. 15)."""
    rates = 10000.0 ** (-torch.arange(0, head_dim, 2, device=device) / head_dim)
    angles = torch.arange(frames, device=device)[:, None] * rates
    return torch.stack([angles.cos(), angles.sin()])


def rotate(
    x: Float[Tensor, "batch heads time head_dim"], rotation: Float[Tensor, "2 time half"]
) -> Float[Tensor, "batch heads time head_dim"]:
    """Return `x` with the pairs (i, i + head_dim/2) turned by the angles of their positions."""
    cosine, sine = rotation.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
