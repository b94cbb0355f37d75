"""What every encoder returns."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class EncoderOutput:
    """encoded: (batch, time, dim); lengths: (batch,); layers: the encoder's input and then the output
    of each block, all at the rate of `encoded`, or None unless asked for."""

    encoded: Tensor
    lengths: Tensor
    layers: list[Tensor] | None = None
