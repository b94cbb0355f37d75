"""Normalization of each channel over time: HuBERT's group norm, blind to padding."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from espnet_lite.nn.masks import valid_mask


class ChannelNorm(nn.Module):
    """Mean 0 and variance 1 of each channel over an utterance's valid frames, then scale and shift.

    torch's GroupNorm with as many groups as channels (Wu and He 2018), which would average over the
    padding of a batch too, so that a clip's features would depend on its neighbours' lengths.
    """

    def __init__(self, channels: int, *, epsilon: float = 1.0e-5):
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Float[Tensor, "batch channels time"], lengths: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch channels time"]:
        """Return fp32, as the sums over thousands of frames need it; padding means nothing."""
        x = x.float()
        parts = valid_mask(lengths, x.size(2)) / lengths.clamp_min(1)[:, None]
        parts = parts[:, None, :]  # of the mean: 1/length in each valid frame
        centered = x - (x * parts).sum(dim=2, keepdim=True)
        variance = (centered.square() * parts).sum(dim=2, keepdim=True)
        scale = (variance + self.epsilon).rsqrt() * self.weight[:, None]
        return centered * scale + self.bias[:, None]
