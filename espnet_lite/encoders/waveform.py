"""HuBERT's front end: convolutions over the waveform (2106.07447; wav2vec 2.0, 2006.11477)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from espnet_lite.config import check_numbers
from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.nn.channel_norm import ChannelNorm
from espnet_lite.nn.dropout import Dropout
from espnet_lite.nn.masks import valid_mask

NORMS = ("group", "layer")
# Added to a waveform's variance, as fairseq's layer_norm does (Hugging Face: 1e-7): a quiet clip,
# below −50 dB, is not raised to full level.
VARIANCE_EPSILON = 1.0e-5


@dataclass(frozen=True)
class WaveformConfig:
    """HuBERT's convolutions. Base as it stands; Large: norm layer, normalize true, dropout 0."""

    sample_rate: int = 16000  # Hz
    convolutions: tuple[tuple[int, int, int], ...] = (  # (channels, kernel, stride) of each
        (512, 10, 5),
        *((512, 3, 2),) * 4,
        *((512, 2, 2),) * 2,
    )
    norm: str = "group"  # group: of the first convolution, over time | layer: of each frame of all
    conv_bias: bool = False
    normalize: bool = False  # the waveform to mean 0 and variance 1
    dropout: float = 0.1  # of the projected frames

    cmvn: ClassVar[str] = "none"  # there are no features to take statistics of

    def __post_init__(self):
        check_numbers(self, "sample_rate", at_least=1000)
        check_numbers(self, "dropout", at_least=0, below=1)
        if self.norm not in NORMS:
            raise ValueError(f"norm '{self.norm}' is not one of {', '.join(NORMS)}")
        if not self.convolutions or min(map(min, self.convolutions)) < 1:
            raise ValueError(
                f"convolutions {self.convolutions} are not (channels, kernel, stride), each at least 1"
            )


class WaveformConvolution(nn.Module):
    """Convolution without padding, norm or none, GELU."""

    def __init__(
        self, channels_in: int, channels: int, *, kernel: int, stride: int, bias: bool, norm: str
    ):
        """`norm` is group, layer or none."""
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.convolution = nn.Conv1d(channels_in, channels, kernel, stride=stride, bias=bias)
        nn.init.kaiming_normal_(self.convolution.weight)
        norms = {"group": ChannelNorm, "layer": nn.LayerNorm, "none": nn.Identity}
        self.norm = norms[norm](channels)

    def forward(
        self, x: Float[Tensor, "batch channels_in time_in"], lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch channels time"], Int[Tensor, "batch"]]:
        """Return frames, of which the valid ones have seen no padding, and their lengths."""
        lengths = convolved_lengths(lengths, kernel=self.kernel, stride=self.stride)
        x = self.convolution(x)
        if isinstance(self.norm, ChannelNorm):
            x = self.norm(x, lengths)
        elif isinstance(self.norm, nn.LayerNorm):
            x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return functional.gelu(x), lengths


class WaveformFrontEnd(nn.Module):
    """Waveform → convolutions → LayerNorm → Linear → dropout. It knows no SpecAugment."""

    def __init__(self, config: WaveformConfig, *, dim: int):
        super().__init__()
        self.config = config
        self.sample_rate = config.sample_rate
        self.grid = FrameGrid(config.sample_rate, 1, 1)
        self.convolutions = nn.ModuleList()
        channels_in = 1
        for number, (channels, kernel, stride) in enumerate(config.convolutions):
            self.grid = self.grid.subsampled(kernel, stride)
            self.convolutions.append(
                WaveformConvolution(
                    channels_in,
                    channels,
                    kernel=kernel,
                    stride=stride,
                    bias=config.conv_bias,
                    norm=config.norm if config.norm == "layer" or number == 0 else "none",
                )
            )
            channels_in = channels
        self.norm = nn.LayerNorm(channels_in)
        self.projection = nn.Linear(channels_in, dim)
        self.dropout = Dropout(config.dropout)

    def local(
        self,
        waveform: Float[Tensor, "batch samples"],
        waveform_lengths: Int[Tensor, "batch"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "batch time local_dim"], Int[Tensor, "batch"]]:
        """Return what the convolutions make of the waveform; `generator` is not used."""
        waveform = prepared(waveform, waveform_lengths, self.config, self.grid)
        x, lengths = waveform[:, None], waveform_lengths
        for convolution in self.convolutions:
            x, lengths = convolution(x, lengths)
        return x.transpose(1, 2), lengths

    def project(self, x: Float[Tensor, "batch time local_dim"]) -> Float[Tensor, "batch time dim"]:
        """Return the encoder's input for the output of `local`."""
        return self.dropout(self.projection(self.norm(x)))

    def forward(
        self,
        waveform: Float[Tensor, "batch samples"],
        waveform_lengths: Int[Tensor, "batch"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "batch time dim"], Int[Tensor, "batch"]]:
        """Return frames and their lengths."""
        x, lengths = self.local(waveform, waveform_lengths, generator)
        return self.project(x), lengths


def convolved_lengths(
    lengths: Int[Tensor, "batch"], *, kernel: int, stride: int
) -> Int[Tensor, "batch"]:
    """Return the frames that a convolution without padding makes of `lengths`."""
    return ((lengths - kernel).div(stride, rounding_mode="floor") + 1).clamp_min(0)


def prepared(
    waveform: Float[Tensor, "batch samples"],
    lengths: Int[Tensor, "batch"],
    config: WaveformConfig,
    grid: FrameGrid,
) -> Float[Tensor, "batch samples_of_a_frame"]:
    """Return what the first convolution takes: normalized where the config says so, and long enough
    for a frame."""
    if config.normalize:
        waveform = normalized(waveform, lengths)
    missing = grid.window_samples - waveform.size(1)
    if missing > 0:  # a batch of nothing but clips that have no frame
        waveform = functional.pad(waveform, (0, missing))
    return waveform


def normalized(
    waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, "batch"]
) -> Float[Tensor, "batch samples"]:
    """Return each utterance with mean 0 and variance 1 over its own samples; padding becomes 0."""
    valid = valid_mask(lengths, waveform.size(1))
    count = lengths.clamp_min(1)[:, None]
    mean = torch.where(valid, waveform, 0.0).sum(dim=1, keepdim=True) / count
    centered = torch.where(valid, waveform - mean, 0.0)
    variance = centered.square().sum(dim=1, keepdim=True) / count
    return centered * (variance + VARIANCE_EPSILON).rsqrt()
