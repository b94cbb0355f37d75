"""Subsampling of feature frames by strided 2-D convolution."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional


class Conv2dSubsampling4(nn.Module):
    """Two 3×3 convolutions of stride 2 without padding, then a projection of channels × bins to dim.

    One output frame covers 7 input frames, four apart (ESPnet's Conv2dSubsampling). Without padding,
    a valid output frame never sees a padded input frame.
    """

    reduction = 4

    def __init__(self, bins: int, dim: int, *, channels: int = 64):
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, stride=2)
        self.second = nn.Conv2d(channels, channels, 3, stride=2)
        self.project = nn.Linear(channels * self._halved(self._halved(bins)), dim)

    @staticmethod
    def _halved(size):
        return (size - 1) // 2

    def output_lengths(self, lengths: Int[Tensor, "batch"]) -> Int[Tensor, "batch"]:
        """Return the number of output frames; zero where fewer than 7 frames came in."""
        return self._halved(self._halved(lengths)).clamp(min=0)

    def forward(
        self, features: Float[Tensor, "batch frames bins"], lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch time dim"], Int[Tensor, "batch"]]:
        """Return projected frames at a quarter of the rate and their lengths."""
        missing = 7 - features.size(1)
        if missing > 0:  # a batch of nothing but clips under 85 ms
            features = functional.pad(features, (0, 0, 0, missing))
        x = torch.relu(self.first(features[:, None]))
        x = torch.relu(self.second(x))
        return self.project(x.transpose(1, 2).flatten(2)), self.output_lengths(lengths)
