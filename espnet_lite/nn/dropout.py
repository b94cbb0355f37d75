"""Dropout that does not wait for random numbers on a CPU.

Except on Intel processors, torch draws one double an element from a serial generator: a fifth of a
training step. Here an element costs 16 bits of a generator four times as fast, itself seeded from
torch's, so that torch's state alone still decides every mask (tools/benchmarks/train_speed.py).
"""

import numpy as np
import torch
from jaxtyping import BFloat16, Float
from torch import Tensor, nn
from torch.nn import functional

_STEPS = 1 << 15  # a rate is rounded to a multiple of 1/32768


class Dropout(nn.Module):
    """Zeroes elements with probability `p` in training and scales the rest so that the mean stays.

    On a CPU the scale is 1/(1 − p) as bf16 rounds it and the probability is what makes that scale
    exact: 0.1 becomes 0.0986. On other devices it is torch's own dropout.
    """

    def __init__(self, p: float = 0.0):
        super().__init__()
        self.p = p

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return a tensor of the shape and type of `x`."""
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return functional.dropout(x, self.p, self.training)
        return x * keep_factors(x.shape, self.p).to(x.dtype)

    def extra_repr(self) -> str:
        """Return what torch prints of the module."""
        return f"p={self.p}"


def keep_factors(shape: torch.Size, rate: float) -> BFloat16[Tensor, "*shape"]:
    """Return 0 with a probability near `rate`, else a factor with which the mean is exactly 1."""
    factor = torch.tensor(1 / (1 - rate), dtype=torch.bfloat16)
    dropped = round((1 - 1 / factor.item()) * _STEPS)
    seed = int(torch.randint(1 << 62, (), dtype=torch.int64))
    elements = shape.numel()
    words = np.random.SFC64(seed).random_raw(-(-elements // 4))
    bits = torch.from_numpy(words.view(np.int16))[:elements].view(shape)
    # 15 random bits plus a constant: negative, that is −1 after the shift, for what is kept. And
    # −1 & factor is the factor's bit pattern, 0 & factor is 0.0.
    bits = bits.bitwise_right_shift_(1).add_(dropped - _STEPS // 2)
    pattern = factor.view(torch.int16).item()
    return bits.bitwise_right_shift_(15).bitwise_and_(pattern).view(torch.bfloat16)
