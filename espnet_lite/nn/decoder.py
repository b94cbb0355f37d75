"""Pre-norm Transformer decoder (Vaswani et al. 2017), equal to ESPnet's TransformerDecoder."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from espnet_lite.nn.attention import MultiHeadAttention
from espnet_lite.nn.dropout import Dropout
from espnet_lite.nn.feed_forward import FeedForward
from espnet_lite.nn.masks import causal_mask, key_mask, valid_mask
from espnet_lite.nn.positions import SinusoidalPositions

NORM_EPSILON = 1e-12  # of every LayerNorm in ESPnet; torch's 1e-5 would move converted weights


class DecoderBlock(nn.Module):
    """x + self_attention, then x + cross_attention, then x + feed_forward, each of norm(x).

    The three modules and their norms stand side by side so that incremental decoding can run them
    one token at a time with cached keys and values.
    """

    def __init__(
        self, dim: int, *, heads: int, feed_forward: int, dropout: float, attention_dropout: float
    ):
        super().__init__()
        self.self_attention_norm = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.self_attention = MultiHeadAttention(dim, heads=heads, dropout=attention_dropout)
        self.cross_attention_norm = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.cross_attention = MultiHeadAttention(dim, heads=heads, dropout=attention_dropout)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.feed_forward = FeedForward(dim, hidden=feed_forward, dropout=dropout)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch tokens dim"],
        encoded: Float[Tensor, "batch time dim"],
        token_mask: Bool[Tensor, "#batch 1 tokens tokens"],
        encoded_mask: Bool[Tensor, "batch 1 1 time"],
    ) -> Float[Tensor, "batch tokens dim"]:
        """Return the block's output for all tokens at once."""
        normed = self.self_attention_norm(x)
        x = x + self.dropout(self.self_attention(normed, normed, token_mask))
        normed = self.cross_attention_norm(x)
        x = x + self.dropout(self.cross_attention(normed, encoded, encoded_mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class TransformerDecoder(nn.Module):
    """Tokens so far and encoded speech → scores of the next token."""

    def __init__(
        self,
        *,
        vocab: int,
        dim: int,
        heads: int,
        feed_forward: int,
        layers: int,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
    ):
        """`dropout` acts on the embedded tokens, inside the feed-forward and on each residual
        branch; `attention_dropout` on the attention probabilities. Defaults are ESPnet's."""
        super().__init__()
        self.embedding = nn.Embedding(vocab, dim)
        # The embedding is multiplied by √dim: this makes it as large as the positions added to it.
        nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(dim))
        self.positions = SinusoidalPositions(dim, dropout=dropout)
        self.blocks = nn.ModuleList(
            DecoderBlock(
                dim,
                heads=heads,
                feed_forward=feed_forward,
                dropout=dropout,
                attention_dropout=attention_dropout,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.output = nn.Linear(dim, vocab)

    def forward(
        self,
        tokens_in: Int[Tensor, "batch tokens"],
        token_lengths: Int[Tensor, "batch"],
        encoded: Float[Tensor, "batch time dim"],
        encoded_lengths: Int[Tensor, "batch"],
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Return logits (before softmax) of the token after each of `tokens_in`.

        tokens_in: <sos/eos> and the tokens so far; what stands beyond `token_lengths` may be any
            number, -1 too, and its logits mean nothing.
        """
        size = tokens_in.size(1)
        tokens = torch.where(valid_mask(token_lengths, size), tokens_in, 0)
        x = self.positions(self.embedding(tokens))
        # Padding stands at the end, so that a valid token, which sees only the past, never sees it.
        token_mask = causal_mask(size, tokens.device)[None, None]
        encoded_mask = key_mask(encoded_lengths, encoded.size(1))
        for block in self.blocks:
            x = block(x, encoded, token_mask, encoded_mask)
        return self.output(self.norm(x))
