"""Attention within a window of frames, in the place of attention over the whole utterance."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from espnet_lite.kernels.local_attention import in_blocks
from espnet_lite.nn.dropout import Dropout


class LocalAttention(nn.Module):
    """softmax(QKᵀ/√d) V over the keys within ±`window` frames: the matrix products of attention, a
    module of their own that takes DotProductAttention's place in MultiHeadAttention.

    Exact: equal to DotProductAttention with a band as its mask, in time and memory linear in the
    number of frames. For inference in fp32 on a CPU there is a fused kernel.
    """

    def __init__(self, *, window: int, global_tokens: int = 0, dropout: float = 0.0):
        """Take the sizes.

        Args:
            window: frames seen on either side; 0: a frame sees only itself.
            global_tokens: so many positions at the beginning see all and are seen by all.
            dropout: of the attention probabilities.
        """
        super().__init__()
        if window < 0 or global_tokens < 0:
            raise ValueError(f"window {window} or global_tokens {global_tokens} is negative")
        self.window = window
        self.global_tokens = global_tokens
        self.dropout = Dropout(dropout)

    def forward(
        self,
        query: Float[Tensor, "batch heads time head_dim"],
        key: Float[Tensor, "batch heads time head_dim"],
        value: Float[Tensor, "batch heads time head_dim"],
        mask: Bool[Tensor, "#batch 1 1 time"] | None = None,
    ) -> Float[Tensor, "batch heads time head_dim"]:
        """Return the mixed values; `mask` says which keys are valid. A query that may see no key gets
        some mix of values."""
        key_valid = None if mask is None else mask[:, 0, 0].expand(query.size(0), -1)
        sizes = {"window": self.window, "global_tokens": self.global_tokens}
        is_trained = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
        drops = self.training and self.dropout.p > 0
        if is_trained or drops or query.dtype != torch.float32:
            return in_blocks(query, key, value, key_valid, dropout=self.dropout, **sizes)
        return torch.ops.espnet_lite.local_attention(query, key, value, key_valid, **sizes)

    def extra_repr(self) -> str:
        """Return what torch prints of the module."""
        return f"window={self.window}, global_tokens={self.global_tokens}"
