"""A Transformer language model: pre-norm blocks that see the tokens so far (Vaswani et al. 2017; Irie et al.
2019 for speech recognition)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from espnet_lite.config import check_numbers
from espnet_lite.nn.masks import causal_mask, valid_mask
from espnet_lite.nn.positions import SinusoidalPositions
from espnet_lite.nn.transformer_block import PreNormBlock


@dataclass(frozen=True)
class TransformerLmConfig:
    """Architecture of a Transformer language model."""

    dim: int = 256
    heads: int = 4
    feed_forward: int = 1024
    layers: int = 4
    dropout: float = 0.1

    def __post_init__(self):
        check_numbers(self, "dim heads feed_forward layers", at_least=1)
        check_numbers(self, "dropout", at_least=0, below=1)
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")


class TransformerLm(nn.Module):
    """Tokens so far → scores of the next one."""

    def __init__(self, config: TransformerLmConfig, *, vocab: int):
        """The embedding is the output's matrix too (Press and Wolf 2017)."""
        super().__init__()
        self.embedding = nn.Embedding(vocab, config.dim)
        # The embedding is multiplied by √dim: this makes it as large as the positions added to it.
        nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(config.dim))
        self.positions = SinusoidalPositions(config.dim, dropout=config.dropout)
        self.blocks = nn.ModuleList(
            PreNormBlock(
                config.dim,
                heads=config.heads,
                feed_forward=config.feed_forward,
                dropout=config.dropout,
                attention_dropout=0.0,
                activation_dropout=config.dropout,
                activation="gelu",
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.bias = nn.Parameter(torch.zeros(vocab))

    def forward(
        self, tokens_in: Int[Tensor, "batch tokens"], token_lengths: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Return logits (before softmax) of the token after each of `tokens_in`.

        tokens_in: <sos/eos> and the tokens so far; what stands beyond `token_lengths` may be any
            number, and its logits mean nothing.
        """
        size = tokens_in.size(1)
        tokens = torch.where(valid_mask(token_lengths, size), tokens_in, 0)
        x = self.positions(self.embedding(tokens))
        # Padding stands at the end, so that a valid token, which sees only the past, never sees it.
        mask = causal_mask(size, tokens.device)[None, None]
        for block in self.blocks:
            x = block(x, mask)
        return nn.functional.linear(self.norm(x), self.embedding.weight, self.bias)
