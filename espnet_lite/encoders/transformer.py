"""Pre-norm Transformer encoder (Vaswani et al. 2017, normalized before each module)."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from espnet_lite.config import check_numbers
from espnet_lite.encoders.output import EncoderOutput
from espnet_lite.nn.attention import rotary_table
from espnet_lite.nn.feed_forward import ACTIVATIONS
from espnet_lite.nn.masks import key_mask
from espnet_lite.nn.positions import SinusoidalPositions
from espnet_lite.nn.transformer_block import PreNormBlock

POSITIONS = ("sinusoidal", "rotary")


@dataclass(frozen=True)
class TransformerConfig:
    """The default is ESPnet's 12-layer encoder with a feed-forward factor of 4."""

    dim: int = 256
    layers: int = 12
    heads: int = 4
    feed_forward: int = 1024  # hidden width
    dropout: float = 0.1  # residual, feed-forward and position dropout
    attention_dropout: float = 0.0  # of the attention probabilities
    activation: str = "relu"  # relu | gelu | swish
    positions: str = "sinusoidal"  # sinusoidal (added) | rotary (turns queries and keys)

    def __post_init__(self):
        check_numbers(self, "dim layers heads feed_forward", at_least=1)
        check_numbers(self, "dropout attention_dropout", at_least=0, below=1)
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim {self.dim} is not a multiple of 2 × heads {self.heads}")
        if self.positions not in POSITIONS:
            raise ValueError(f"positions '{self.positions}' is not one of {', '.join(POSITIONS)}")
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation '{self.activation}' is not one of {known}")


class TransformerEncoder(nn.Module):
    """Full self-attention over all valid frames of an utterance."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.sinusoids = (
            SinusoidalPositions(config.dim, dropout=config.dropout)
            if config.positions == "sinusoidal"
            else None
        )
        self.blocks = nn.ModuleList(
            PreNormBlock(
                config.dim,
                heads=config.heads,
                feed_forward=config.feed_forward,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                activation_dropout=config.dropout,
                activation=config.activation,
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.dim)

    def forward(
        self,
        features: Float[Tensor, "batch time dim"],
        lengths: Int[Tensor, "batch"],
        return_layers: bool = False,
    ) -> EncoderOutput:
        """Return frames at the rate they came in; frames beyond `lengths` mean nothing."""
        mask = key_mask(lengths, features.size(1))
        rotation = None
        x = features
        if self.sinusoids is not None:
            x = self.sinusoids(x)
        else:
            rotation = rotary_table(
                x.size(1), self.dim // self.config.heads, device=features.device
            )
        layers = [features]
        for block in self.blocks:
            x = block(x, mask, rotation)
            if return_layers:
                layers.append(x)
        return EncoderOutput(self.norm(x), lengths, layers if return_layers else None)
