"""Sinusoidal positions: absolute (Vaswani et al. 2017, section 3.5) and relative."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from espnet_lite.nn.dropout import Dropout
from espnet_lite.nn.kept_tables import kept_at_inference


@kept_at_inference
def sinusoids(
    positions: int, dim: int, *, device: torch.device | None = None
) -> Float[Tensor, "positions dim"]:
    """Return sine in the even and cosine in the odd columns, wavelengths 2π … 10000·2π."""
    rates = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10000.0) / dim))
    angles = torch.arange(positions, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :dim]


@kept_at_inference
def relative_sinusoids(
    frames: int, dim: int, *, device: torch.device | None = None
) -> Float[Tensor, "distances dim"]:
    """Return the sinusoids of the distances frames − 1, …, 0, …, −(frames − 1), as many as two of so
    many frames can have (Transformer-XL, Dai et al. 2019, appendix B)."""
    past = sinusoids(frames, dim, device=device)
    future = past[1:].clone()
    future[:, 0::2].neg_()  # the sine is odd, the cosine even
    return torch.cat([past.flip(0), future])


class SinusoidalPositions(nn.Module):
    """x·√dim + position, then dropout, as in ESPnet's PositionalEncoding."""

    def __init__(self, dim: int, *, dropout: float = 0.0):
        super().__init__()
        self.scale = math.sqrt(dim)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "batch time dim"], start: int = 0
    ) -> Float[Tensor, "batch time dim"]:
        """Return `x` with positions `start`, `start`+1, … added."""
        table = sinusoids(start + x.size(1), x.size(2), device=x.device)[start:]
        return self.dropout(x * self.scale + table)
