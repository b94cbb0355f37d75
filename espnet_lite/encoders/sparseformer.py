"""Sparseformer: pre-norm Transformer blocks whose self-attention sees a window of the utterance.

The encoder without convolution of "Attention or Convolution: Transformer Encoders in Audio Language
Models for Inference Efficiency" (2311.02772). The paper's layers, widths and windows are not public:
this is our own reading of it, and so are the sizes below. The subsampling of the front end is the only
convolution; order comes from rotary positions (RoFormer, Su et al. 2021).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from espnet_lite.config import check_numbers
from espnet_lite.encoders.output import EncoderOutput
from espnet_lite.nn.attention import rotary_table
from espnet_lite.nn.feed_forward import ACTIVATIONS
from espnet_lite.nn.local_attention import LocalAttention
from espnet_lite.nn.masks import key_mask
from espnet_lite.nn.transformer_block import PreNormBlock

TOKEN_STD = 0.02  # of the global tokens before training


@dataclass(frozen=True)
class SparseformerConfig:
    """The default is the Transformer's: 12 blocks of 256."""

    dim: int = 256
    layers: int = 12
    heads: int = 4
    feed_forward: int = 1024  # hidden width
    window_seconds: float = 0.64  # that a frame sees on either side; rounded to frames
    frame_ms: float = 40.0  # from frame to frame, as the front end makes them
    global_tokens: int = 0  # learned vectors in front that see all frames and are seen by all
    dropout: float = 0.1  # residual and feed-forward dropout
    attention_dropout: float = 0.0  # of the attention probabilities
    activation: str = "relu"  # relu | gelu | swish

    def __post_init__(self):
        check_numbers(self, "dim layers heads feed_forward", at_least=1)
        check_numbers(self, "window_seconds frame_ms", above=0)
        check_numbers(self, "global_tokens", at_least=0)
        check_numbers(self, "dropout attention_dropout", at_least=0, below=1)
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim {self.dim} is not a multiple of 2 × heads {self.heads}")
        if self.window_frames < 1:
            raise ValueError(
                f"window_seconds {self.window_seconds} is no frame of {self.frame_ms} ms"
            )
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation '{self.activation}' is not one of {known}")

    @property
    def window_frames(self) -> int:
        """Return the frames that a frame sees on either side."""
        return round(1000 * self.window_seconds / self.frame_ms)


# Deep and narrow, shallow and wide: as many parameters as Conformer-S (8.72 M within 1 %; both about
# 2.7 % under Squeezeformer-XS), with subsampling convolutions of `dim` channels and their projection.
SPARSEFORMER_SIZES = {
    "DN-S": SparseformerConfig(dim=160, layers=26, heads=4, feed_forward=640),
    "SW-S": SparseformerConfig(dim=256, layers=9, heads=4, feed_forward=992),
}


class SparseformerBlock(PreNormBlock):
    """A pre-norm block whose attention sees ±`window` frames; its mask is one of keys only."""

    def __init__(self, config: SparseformerConfig):
        super().__init__(
            config.dim,
            heads=config.heads,
            feed_forward=config.feed_forward,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            activation_dropout=config.dropout,
            activation=config.activation,
        )
        self.attention.dot_product = LocalAttention(
            window=config.window_frames,
            global_tokens=config.global_tokens,
            dropout=config.attention_dropout,
        )


class SparseformerEncoder(nn.Module):
    """Self-attention over a window around each frame; the receptive field grows with each block.

    With global tokens, learned vectors stand before the first frame: through them each frame hears
    from the whole utterance within two blocks. They are dropped at the end.
    """

    def __init__(self, config: SparseformerConfig):
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.tokens = (
            nn.Parameter(torch.empty(config.global_tokens, config.dim).normal_(std=TOKEN_STD))
            if config.global_tokens
            else None
        )
        self.blocks = nn.ModuleList(SparseformerBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)

    def forward(
        self,
        features: Float[Tensor, "batch time dim"],
        lengths: Int[Tensor, "batch"],
        return_layers: bool = False,
    ) -> EncoderOutput:
        """Return frames at the rate they came in; frames beyond `lengths` mean nothing."""
        tokens = self.config.global_tokens
        x = features
        if self.tokens is not None:
            x = torch.cat([self.tokens.to(x.dtype).expand(x.size(0), -1, -1), x], dim=1)
        mask = key_mask(lengths + tokens, x.size(1))
        rotation = rotary_table(x.size(1), self.dim // self.config.heads, device=x.device)
        layers = [features]
        for block in self.blocks:
            x = block(x, mask, rotation)
            if return_layers:
                layers.append(x[:, tokens:])
        return EncoderOutput(self.norm(x[:, tokens:]), lengths, layers if return_layers else None)
