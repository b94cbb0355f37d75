"""The two blocks of a Transformer encoder: normalized before each module, and after it."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from espnet_lite.nn.attention import MultiHeadAttention
from espnet_lite.nn.dropout import Dropout
from espnet_lite.nn.feed_forward import FeedForward


class PreNormBlock(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        feed_forward: int,
        dropout: float,
        attention_dropout: float,
        activation_dropout: float,
        activation: str,
    ):
        """Build the modules.

        Args:
            dim: width.
            heads: of the attention.
            feed_forward: hidden width of the feed-forward module.
            dropout: of what is added to the residual.
            attention_dropout: of the attention probabilities.
            activation_dropout: of the feed-forward module's hidden values.
            activation: relu, gelu or swish.
        """
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = MultiHeadAttention(dim, heads=heads, dropout=attention_dropout)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(
            dim, hidden=feed_forward, dropout=activation_dropout, activation=activation
        )
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        mask: Bool[Tensor, "#batch #heads #queries keys"] | None = None,
        rotation: Float[Tensor, "2 time half"] | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """Return the block's output; `mask` and `rotation` are MultiHeadAttention's."""
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, normed, mask, rotation))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class PostNormBlock(PreNormBlock):
    """norm(x + attention(x)), then norm(x + feed_forward(x)): as Vaswani et al. 2017 have it."""

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        mask: Bool[Tensor, "#batch #heads #queries keys"] | None = None,
        rotation: Float[Tensor, "2 time half"] | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """Return the block's output; `mask` and `rotation` are MultiHeadAttention's."""
        x = self.attention_norm(x + self.dropout(self.attention(x, x, mask, rotation)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
