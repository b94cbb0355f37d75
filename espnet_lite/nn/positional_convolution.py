"""Relative positions by convolution (wav2vec 2.0, 2006.11477, section 2; HuBERT)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class PositionalConvolution(nn.Module):
    """GELU of a grouped convolution over time; added to its input it tells frames apart.

    The kernel is weight normalized (1602.07868): direction / ‖direction‖ · magnitude, with one norm
    and one magnitude for each position of the kernel. An even kernel sees one frame more of the past
    than of the future. Beyond the batch there are zeros; where an utterance ends before, its caller
    puts them.
    """

    def __init__(self, dim: int, *, kernel: int, groups: int):
        super().__init__()
        if dim % groups:
            raise ValueError(f"dim {dim} is not a multiple of groups {groups}")
        self.groups = groups
        self.direction = nn.Parameter(torch.empty(dim, dim // groups, kernel))
        self.magnitude = nn.Parameter(torch.empty(1, 1, kernel))
        self.bias = nn.Parameter(torch.zeros(dim))
        # fairseq's: with it what is added has about the variance of what it is made of.
        nn.init.normal_(self.direction, std=math.sqrt(4 / (kernel * dim)))
        with torch.no_grad():
            self.magnitude.copy_(self._norm())

    def _norm(self) -> Float[Tensor, "1 1 kernel"]:
        return self.direction.square().sum(dim=(0, 1), keepdim=True).sqrt()

    @property
    def weight(self) -> Float[Tensor, "dim of_group kernel"]:
        """Return the kernel that is convolved with."""
        return self.direction * (self.magnitude / self._norm())

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        """Return what is to be added to `x`."""
        return self.convolve(x, self.weight)

    def convolve(
        self, x: Float[Tensor, "batch time dim"], weight: Float[Tensor, "dim of_group kernel"]
    ) -> Float[Tensor, "batch time dim"]:
        """Return what is to be added to `x`, of any kernel of the shape of its own."""
        padding = weight.size(2) // 2
        convolved = functional.conv1d(
            x.transpose(1, 2), weight, self.bias, padding=padding, groups=self.groups
        )
        return positions_of(convolved, frames=x.size(1))


def positions_of(
    convolved: Float[Tensor, "batch dim time_and_one"], *, frames: int
) -> Float[Tensor, "batch frames dim"]:
    """Return what is added to frames, of their convolution: an even kernel gives one too many."""
    return functional.gelu(convolved[:, :, :frames].transpose(1, 2))
