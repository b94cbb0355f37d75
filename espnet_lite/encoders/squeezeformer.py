"""Squeezeformer encoder (Kim et al. 2022, 2206.00888)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from espnet_lite.config import check_numbers
from espnet_lite.encoders.output import EncoderOutput
from espnet_lite.nn.convolution import ConvolutionModule, DepthwiseConvolution
from espnet_lite.nn.dropout import Dropout
from espnet_lite.nn.feed_forward import ACTIVATIONS, FeedForward
from espnet_lite.nn.masks import padding_mask
from espnet_lite.nn.positions import relative_sinusoids
from espnet_lite.nn.relative_attention import RelativeAttention

REDUCTION_KERNEL = 5  # of the depthwise convolution that halves the frame rate


@dataclass(frozen=True)
class SqueezeformerConfig:
    """The default is Squeezeformer-SM. The paper's front end is `log_mel` with `separable: true` and
    as many channels as `dim`."""

    dim: int = 256
    layers: int = 16
    heads: int = 4
    feed_forward: int = 1024  # hidden width of both feed-forward modules
    kernel: int = 31  # frames under the depthwise convolution
    reduce_after: int = 7  # blocks at the full frame rate before it is halved
    recover_after: int = 15  # blocks before the full rate comes back
    dropout: float = 0.1  # of the input, positions, hidden values and what is added to the residual
    attention_dropout: float = 0.0  # of the attention probabilities
    activation: str = "swish"  # of the feed-forward modules: relu | gelu | swish

    def __post_init__(self):
        check_numbers(self, "dim layers heads feed_forward kernel", at_least=1)
        check_numbers(self, "dropout attention_dropout", at_least=0, below=1)
        check_numbers(self, "reduce_after", at_least=0, below=self.recover_after)
        check_numbers(self, "recover_after", below=self.layers)
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} is not odd")
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation '{self.activation}' is not one of {known}")


def _size(dim: int, layers: int, heads: int, reduce_after: int) -> SqueezeformerConfig:
    return SqueezeformerConfig(
        dim=dim,
        layers=layers,
        heads=heads,
        feed_forward=4 * dim,
        reduce_after=reduce_after,
        recover_after=layers - 1,
    )


# The paper's models, with the blocks of the authors' configurations after which the rate changes.
SQUEEZEFORMER_SIZES = {
    "XS": _size(144, 16, 4, 7),
    "S": _size(196, 18, 4, 8),
    "SM": _size(256, 16, 4, 7),
    "M": _size(324, 20, 4, 9),
    "ML": _size(512, 18, 8, 8),
    "L": _size(640, 22, 8, 10),
}


class ScaledModule(nn.Module):
    """LayerNorm(x + module(scale · x + bias)): post-norm, where a learned scale and bias of each
    channel do for the module what a LayerNorm before it did (section 3.2)."""

    def __init__(self, module: nn.Module, *, dim: int, dropout: float):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.module = module
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, x: Float[Tensor, "batch time dim"], *given
    ) -> Float[Tensor, "batch time dim"]:
        """Return the output; `given` is what the module takes beside its input."""
        y = self.module(torch.addcmul(self.bias, x, self.scale), *given)
        return self.norm(x + self.dropout(y))


class SqueezeformerBlock(nn.Module):
    """Self-attention, feed-forward, convolution, feed-forward: two Transformer-like pairs
    (section 3.1)."""

    def __init__(self, config: SqueezeformerConfig):
        super().__init__()
        dim = config.dim

        def scaled(module: nn.Module) -> ScaledModule:
            return ScaledModule(module, dim=dim, dropout=config.dropout)

        def feed_forward() -> FeedForward:
            return FeedForward(
                dim,
                hidden=config.feed_forward,
                dropout=config.dropout,
                activation=config.activation,
            )

        self.attention = scaled(
            RelativeAttention(dim, heads=config.heads, dropout=config.attention_dropout)
        )
        self.first_feed_forward = scaled(feed_forward())
        self.convolution = scaled(ConvolutionModule(dim, kernel=config.kernel, gate="swish"))
        self.second_feed_forward = scaled(feed_forward())

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        positions: Float[Tensor, "distances dim"],
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """Return the block's output; `valid` is True for frames that are not padding, None: all."""
        mask = None if valid is None else valid[:, None, None, :]
        x = self.attention(x, positions, mask)
        x = self.first_feed_forward(x)
        x = self.convolution(x, valid)
        return self.second_feed_forward(x)


class TimeReduction(nn.Module):
    """Half the frame rate: a depthwise convolution of stride 2, then a pointwise one (section 3.1).

    Frame i of the output is centred at frame 2i; frames that are not valid are read as 0.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.depthwise = DepthwiseConvolution(dim, kernel=REDUCTION_KERNEL, stride=2)
        self.pointwise = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch reduced dim"]:
        """Return ceil(time / 2) frames."""
        return self.pointwise(self.depthwise(x, valid))


def repeated(
    x: Float[Tensor, "batch reduced dim"], frames: int
) -> Float[Tensor, "batch frames dim"]:
    """Return each frame twice, as many as there were before the reduction."""
    return x.repeat_interleave(2, dim=1)[:, :frames]


class SqueezeformerEncoder(nn.Module):
    """Blocks of which those in the middle run at half the frame rate (temporal U-Net, section 3.1).

    Reduced frames are repeated where the rate comes back, projected, and added to what was before
    the reduction. A LayerNorm before the first block brings the input to the scale of a block's
    output, as in the authors' code. Every block ends in a LayerNorm, so that `norm`, which makes of
    a block's output what the encoder returns, has nothing left to do. Layers of reduced blocks are
    returned at the full rate, each frame twice. BatchNorm of the convolution modules makes a
    training depend on the batches that are normalized together: see nn.batch_norm.
    """

    def __init__(self, config: SqueezeformerConfig):
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.input_norm = nn.LayerNorm(config.dim)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(SqueezeformerBlock(config) for _ in range(config.layers))
        self.reduction = TimeReduction(config.dim)
        self.recovery = nn.Linear(config.dim, config.dim)
        self.norm = nn.Identity()

    def forward(
        self,
        features: Float[Tensor, "batch time dim"],
        lengths: Int[Tensor, "batch"],
        return_layers: bool = False,
    ) -> EncoderOutput:
        """Return frames at the rate they came in; frames beyond `lengths` mean nothing."""
        frames = features.size(1)
        valid = padding_mask(lengths, frames)
        # A frame of half the rate is valid where the frame at its middle is.
        half_valid = None if valid is None else valid[:, ::2]
        full = (self._positions(frames, like=features), valid)
        half = (self._positions((frames + 1) // 2, like=features), half_valid)
        given = full
        x = self.dropout(self.input_norm(features))
        layers = [features]
        for number, block in enumerate(self.blocks):
            if number == self.config.reduce_after:
                skipped = x
                x, given = self.reduction(x, valid), half
            if number == self.config.recover_after:
                x, given = skipped + self.recovery(repeated(x, frames)), full
            x = block(x, *given)
            if return_layers:
                layers.append(x if given is full else repeated(x, frames))
        return EncoderOutput(self.norm(x), lengths, layers if return_layers else None)

    def _positions(self, frames: int, *, like: Tensor) -> Float[Tensor, "distances dim"]:
        """Return the positions of so many frames, of the type and on the device of `like`."""
        positions = relative_sinusoids(frames, self.dim, device=like.device)
        return self.dropout(positions.to(like.dtype))
