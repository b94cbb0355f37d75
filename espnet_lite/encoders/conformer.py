"""Conformer encoder (Gulati et al. 2020, 2005.08100), as ESPnet builds it."""

import math
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from espnet_lite.config import check_numbers
from espnet_lite.encoders.output import EncoderOutput
from espnet_lite.nn.convolution import ConvolutionModule
from espnet_lite.nn.dropout import Dropout
from espnet_lite.nn.feed_forward import ACTIVATIONS, FeedForward
from espnet_lite.nn.masks import padding_mask
from espnet_lite.nn.positions import relative_sinusoids
from espnet_lite.nn.relative_attention import RelativeAttention


@dataclass(frozen=True)
class ConformerConfig:
    """The default is ESPnet's 12-layer encoder with a feed-forward factor of 4."""

    dim: int = 256
    layers: int = 12
    heads: int = 4
    feed_forward: int = 1024  # hidden width of both feed-forward modules
    kernel: int = 31  # frames under the depthwise convolution
    dropout: float = 0.1  # of the input, positions, hidden values and what is added to the residual
    attention_dropout: float = 0.0  # of the attention probabilities
    activation: str = "swish"  # of the feed-forward modules: relu | gelu | swish

    def __post_init__(self):
        check_numbers(self, "dim layers heads feed_forward kernel", at_least=1)
        check_numbers(self, "dropout attention_dropout", at_least=0, below=1)
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} is not odd")
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation '{self.activation}' is not one of {known}")


# S, M and L as Kim et al. 2022 (2206.00888) build and count them. The paper's kernel of 32 is even
# and so has no middle; implementations take 31.
CONFORMER_SIZES = {
    "S": ConformerConfig(dim=144, layers=16, heads=4, feed_forward=576),
    "M": ConformerConfig(dim=256, layers=16, heads=4, feed_forward=1024),
    "L": ConformerConfig(dim=512, layers=18, heads=8, feed_forward=2048),
}


class ConformerBlock(nn.Module):
    """½ feed-forward, self-attention, convolution, ½ feed-forward, LayerNorm (figure 1); each module is
    normalized before and added to what came in."""

    def __init__(self, config: ConformerConfig):
        super().__init__()
        self.first_feed_forward_norm = nn.LayerNorm(config.dim)
        self.first_feed_forward = self._feed_forward(config)
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = RelativeAttention(
            config.dim, heads=config.heads, dropout=config.attention_dropout
        )
        self.convolution_norm = nn.LayerNorm(config.dim)
        self.convolution = ConvolutionModule(config.dim, kernel=config.kernel, gate="glu")
        self.second_feed_forward_norm = nn.LayerNorm(config.dim)
        self.second_feed_forward = self._feed_forward(config)
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = Dropout(config.dropout)

    @staticmethod
    def _feed_forward(config: ConformerConfig) -> FeedForward:
        return FeedForward(
            config.dim,
            hidden=config.feed_forward,
            dropout=config.dropout,
            activation=config.activation,
        )

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        positions: Float[Tensor, "distances dim"],
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """Return the block's output; `valid` is True for frames that are not padding, None: all."""
        mask = None if valid is None else valid[:, None, None, :]
        y = self.first_feed_forward(self.first_feed_forward_norm(x))
        x = x.add(self.dropout(y), alpha=0.5)
        y = self.attention(self.attention_norm(x), positions, mask)
        x = x + self.dropout(y)
        y = self.convolution(self.convolution_norm(x), valid)
        x = x + self.dropout(y)
        y = self.second_feed_forward(self.second_feed_forward_norm(x))
        x = x.add(self.dropout(y), alpha=0.5)
        return self.norm(x)


class ConformerEncoder(nn.Module):
    """Full self-attention and convolution over all valid frames of an utterance.

    As in ESPnet the input is scaled by √dim, and `norm` follows the last block, whose output is
    already normalized. BatchNorm of the convolution modules makes a training depend on the batches
    that are normalized together: see nn.batch_norm.
    """

    def __init__(self, config: ConformerConfig):
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(ConformerBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)

    def forward(
        self,
        features: Float[Tensor, "batch time dim"],
        lengths: Int[Tensor, "batch"],
        return_layers: bool = False,
    ) -> EncoderOutput:
        """Return frames at the rate they came in; frames beyond `lengths` mean nothing."""
        frames = features.size(1)
        valid = padding_mask(lengths, frames)
        positions = relative_sinusoids(frames, self.dim, device=features.device)
        positions = self.dropout(positions.to(features.dtype))
        x = self.dropout(features * math.sqrt(self.dim))
        layers = [features]
        for block in self.blocks:
            x = block(x, positions, valid)
            if return_layers:
                layers.append(x)
        return EncoderOutput(self.norm(x), lengths, layers if return_layers else None)
