"""HuBERT's Transformer encoders (2106.07447): Base is normalized after each module, Large before."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from espnet_lite.config import check_numbers
from espnet_lite.encoders.output import EncoderOutput
from espnet_lite.nn.dropout import Dropout
from espnet_lite.nn.masks import key_mask, valid_mask
from espnet_lite.nn.positional_convolution import PositionalConvolution
from espnet_lite.nn.transformer_block import PostNormBlock, PreNormBlock

INITIAL_STD = 0.02  # of every Linear's weight: BERT's, which fairseq took over


@dataclass(frozen=True)
class HubertBaseConfig:
    """Base: 12 blocks of 768. Rates as fairseq's hubert_base_librispeech.yaml pre-trains it."""

    dim: int = 768
    layers: int = 12
    heads: int = 12
    feed_forward: int = 3072  # hidden width
    dropout: float = 0.1  # of the first block's input and of what is added to the residual
    attention_dropout: float = 0.1  # of the attention probabilities
    activation_dropout: float = 0.0  # of the feed-forward modules' hidden values
    layerdrop: float = 0.05  # probability that a block is skipped in training (1909.11556)
    position_kernel: int = 128  # frames under the positional convolution
    position_groups: int = 16  # of its channels

    def __post_init__(self):
        check_numbers(self, "dim layers heads feed_forward", at_least=1)
        check_numbers(self, "position_kernel position_groups", at_least=1)
        rates = "dropout attention_dropout activation_dropout layerdrop"
        check_numbers(self, rates, at_least=0, below=1)
        for name in ("heads", "position_groups"):
            number = getattr(self, name)
            if self.dim % number:
                raise ValueError(f"dim {self.dim} is not a multiple of {name} {number}")


@dataclass(frozen=True)
class HubertLargeConfig(HubertBaseConfig):
    """Large: 24 blocks of 1024 (X-Large: 48 of 1280, feed-forward 5120), without any dropout as in
    fairseq's hubert_large_librivox.yaml."""

    dim: int = 1024
    layers: int = 24
    heads: int = 16
    feed_forward: int = 4096
    dropout: float = 0.0
    attention_dropout: float = 0.0
    layerdrop: float = 0.0


class _HubertEncoder(nn.Module):
    """Positional convolution and blocks; Base and Large add where they normalize."""

    def __init__(self, config: HubertBaseConfig, block: type[PreNormBlock]):
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.positions = PositionalConvolution(
            config.dim, kernel=config.position_kernel, groups=config.position_groups
        )
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            block(
                config.dim,
                heads=config.heads,
                feed_forward=config.feed_forward,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                activation_dropout=config.activation_dropout,
                activation="gelu",
            )
            for _ in range(config.layers)
        )
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INITIAL_STD)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        features: Float[Tensor, "batch time dim"],
        lengths: Int[Tensor, "batch"],
        return_layers: bool = False,
    ) -> EncoderOutput:
        """Return frames at the rate they came in; frames beyond `lengths` mean nothing.

        `layers` are the hidden states of Hugging Face's HubertModel: [0] is what the first block
        sees, that is `features` with positions (in Base normalized), [i] is block i's output.
        """
        valid = valid_mask(lengths, features.size(1))
        # The convolution reaches 64 frames ahead, so beyond an utterance there must be zeros, as
        # there are when it is alone.
        x = torch.where(valid[..., None], features, 0.0)
        x = self.dropout(self.input_norm(x + self.positions(x)))
        layers = [x]
        mask = key_mask(lengths, features.size(1))
        for block in self.blocks:
            x = self._skipped_at_random(x, block(x, mask))
            if return_layers:
                layers.append(x)
        return EncoderOutput(self.norm(x), lengths, layers if return_layers else None)

    def _skipped_at_random(self, x: Tensor, output: Tensor) -> Tensor:
        """Return `output`, or in training with probability `layerdrop` the block's input `x`.

        The block is computed in either case: data-parallel training waits for the gradient of every
        parameter, and each process draws for itself. A skipped block gets a gradient of zeros.
        """
        if not self.training or self.config.layerdrop == 0:
            return output
        return torch.where(torch.rand((), device=x.device) < self.config.layerdrop, x, output)


class HubertBaseEncoder(_HubertEncoder):
    """Normalized before the first block and after each module. `norm`, which makes of a block's
    output what the encoder returns, has nothing left to do."""

    def __init__(self, config: HubertBaseConfig):
        super().__init__(config, PostNormBlock)
        self.input_norm = nn.LayerNorm(config.dim)
        self.norm = nn.Identity()


class HubertLargeEncoder(_HubertEncoder):
    """Normalized before each module and after the last block ("stable layer norm")."""

    def __init__(self, config: HubertLargeConfig):
        super().__init__(config, PreNormBlock)
        self.input_norm = nn.Identity()
        self.norm = nn.LayerNorm(config.dim)
