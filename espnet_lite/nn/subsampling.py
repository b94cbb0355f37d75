"""Subsampling of feature frames: strided 2-D convolution, and frames joined."""

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

KERNEL = 3  # of both convolutions, in frames and in bins
BLOCK = 128  # output frames convolved at a time at inference


class Conv2dSubsampling4(nn.Module):
    """Two 3×3 convolutions of stride 2 without padding, then a projection of channels × bins to dim.

    One output frame covers 7 input frames, four apart (ESPnet's Conv2dSubsampling). Without padding,
    a valid output frame never sees a padded input frame.
    """

    strides: ClassVar[tuple[int, int]] = (2, 2)
    seen_frames: ClassVar[int] = 7  # input frames behind one output frame

    def __init__(self, bins: int, dim: int, *, channels: int = 64):
        super().__init__()
        first, second = self.strides
        self.first = nn.Conv2d(1, channels, KERNEL, stride=first)
        self.second = self._second(channels, stride=second)
        self.project = nn.Linear(channels * self._reduced(bins), dim)

    @staticmethod
    def _second(channels: int, *, stride: int) -> nn.Module:
        """Return the second convolution."""
        return nn.Conv2d(channels, channels, KERNEL, stride=stride)

    def _reduced(self, size):
        """Return what the convolutions leave of so many frames or bins; below 1: nothing."""
        for stride in self.strides:
            size = (size - KERNEL) // stride + 1
        return size

    def output_lengths(self, lengths: Int[Tensor, "batch"]) -> Int[Tensor, "batch"]:
        """Return the number of output frames; zero where fewer than 7 frames came in."""
        return self._reduced(lengths).clamp(min=0)

    def convolve(
        self, features: Float[Tensor, "batch frames bins"], lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch time channels_bins"], Int[Tensor, "batch"]]:
        """Return the convolutions' output, which `project` takes, and its lengths.

        Without gradients a long batch is convolved a block of frames after the other: what is between
        the convolutions, a hundred times as large as the features, then stays small.
        """
        missing = self.seen_frames - features.size(1)
        if missing > 0:  # a batch of nothing but clips under 85 ms
            features = functional.pad(features, (0, 0, 0, missing))
        if torch.is_grad_enabled():
            return self._convolved(features), self.output_lengths(lengths)
        first, second = self.strides
        step, frames = first * second, self._reduced(features.size(1))
        blocks = [
            self._convolved(
                features[:, start * step : (start + BLOCK - 1) * step + self.seen_frames]
            )
            for start in range(0, frames, BLOCK)
        ]
        return torch.cat(blocks, dim=1), self.output_lengths(lengths)

    def _convolved(
        self, features: Float[Tensor, "batch frames bins"]
    ) -> Float[Tensor, "batch time channels_bins"]:
        x = torch.relu_(self.first(features[:, None]))
        x = torch.relu_(self.second(x))
        return x.transpose(1, 2).flatten(2)

    def forward(
        self, features: Float[Tensor, "batch frames bins"], lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch time dim"], Int[Tensor, "batch"]]:
        """Return projected frames at the reduced rate and their lengths."""
        x, lengths = self.convolve(features, lengths)
        return self.project(x), lengths


class Conv2dSubsampling2(Conv2dSubsampling4):
    """The same with stride 1 in the second convolution: 7 frames seen, two apart (as ESPnet's)."""

    strides: ClassVar[tuple[int, int]] = (2, 1)


class _Separable:
    """Makes the second convolution depthwise and then pointwise (Squeezeformer, 2206.00888, section
    3.2): about a ninth of its multiplications."""

    @staticmethod
    def _second(channels: int, *, stride: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(channels, channels, KERNEL, stride=stride, groups=channels),
            nn.Conv2d(channels, channels, 1),
        )


class SeparableSubsampling4(_Separable, Conv2dSubsampling4):
    """3×3 convolution, ReLU, 3×3 of each channel, 1×1, ReLU, projection; stride 4 in all."""


class SeparableSubsampling2(_Separable, Conv2dSubsampling2):
    """The same with stride 2 in all."""


CONV2D_SUBSAMPLINGS = {2: Conv2dSubsampling2, 4: Conv2dSubsampling4}
SEPARABLE_SUBSAMPLINGS = {2: SeparableSubsampling2, 4: SeparableSubsampling4}


def stack_frames(
    features: Float[Tensor, "batch frames bins"], lengths: Int[Tensor, "batch"], *, stack: int
) -> tuple[Float[Tensor, "batch time stacked_bins"], Int[Tensor, "batch"]]:
    """Return each `stack` frames joined to one, and the lengths; what does not fill one is dropped."""
    missing = stack - features.size(1)
    if missing > 0:  # as above: a batch keeps at least one frame, though no valid one
        features = functional.pad(features, (0, 0, 0, missing))
    whole = features.size(1) // stack * stack
    return features[:, :whole].unflatten(1, (-1, stack)).flatten(2), lengths // stack
