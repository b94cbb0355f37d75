"""Subsampling whose convolutions and projection multiply integers, on the kernels."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from espnet_lite.nn.subsampling import Conv2dSubsampling2, Conv2dSubsampling4
from espnet_lite.runtime.kernel_modules import (
    convolves_codes,
    low_bit_conv2d,
    low_bit_linear,
    multiplies_codes,
)

FUSED_SUBSAMPLINGS = (Conv2dSubsampling4, Conv2dSubsampling2)  # themselves, not what is derived


class FusedSubsampling(nn.Module):
    """In the place of a Conv2dSubsampling: the first convolution hands its codes to the second one, and
    channels stay last, also in what `project` takes."""

    def __init__(self, module: Conv2dSubsampling4):
        super().__init__()
        self.first = low_bit_conv2d(module.first, activation="relu", before=module.second)
        self.second = low_bit_conv2d(module.second, activation="relu")
        channels, inputs = len(module.second.weight), module.project.weight.size(1)
        order = torch.arange(inputs).view(channels, -1).T.flatten()
        self.project = low_bit_linear([module.project], order=order)
        self.seen_frames, self.output_lengths = module.seen_frames, module.output_lengths

    @staticmethod
    def fits(module: Conv2dSubsampling4) -> bool:
        """Return whether all of it multiplies integers."""
        return convolves_codes(module.first, module.second) and multiplies_codes(module.project)

    def convolve(
        self, features: Float[Tensor, "batch frames bins"], lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch time bins_channels"], Int[Tensor, "batch"]]:
        """Return the convolutions' output, which `project` takes, and its lengths."""
        missing = self.seen_frames - features.size(1)
        if missing > 0:  # a batch of nothing but clips under 85 ms
            features = functional.pad(features, (0, 0, 0, missing))
        return self.second(self.first(features[..., None])).flatten(2), self.output_lengths(lengths)

    def forward(
        self, features: Float[Tensor, "batch frames bins"], lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch time dim"], Int[Tensor, "batch"]]:
        """Return projected frames at the reduced rate and their lengths."""
        x, lengths = self.convolve(features, lengths)
        return self.project(x), lengths
