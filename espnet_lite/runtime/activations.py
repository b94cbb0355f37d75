"""From activations to the integers that are multiplied: the quantizers of a packed model.

Each returns codes and a scale, whose product stands for what came in. Codes are integers held in
fp32. Rounding is half to even; each step is one operation in fp32. Everything is element by element
but the scale of `absmax`, which is that of its own frame: no value depends on the batch or on another
frame.

| quantizer | signed | codes | scale |
| --- | --- | --- | --- |
| bit | true | +1 where x − offset ≥ 0, else −1 | stored |
| bit | false | round(clip((x − offset) / scale, 0, 1)) | stored |
| lsq | either | round(clip(x / scale, low, high)), low … high of so many bits | stored |
| absmax | true | round(x / scale), −127 … 127 | max |x| of the frame / 127; 1 where that is 0 |

`sparse` is for probabilities: an exact 0, as of a key that is not seen, has the code 0 by any offset.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from espnet_lite.config import check_numbers
from espnet_lite.runtime.products import Codes

QUANTIZERS = {"bit": range(1, 2), "lsq": range(2, 9), "absmax": range(8, 9)}  # name -> its bits
_LARGEST_ABSMAX = 127


@dataclass(frozen=True)
class ActivationFormat:
    """How the header describes a quantizer."""

    quantizer: str
    bits: int
    signed: bool = True
    sparse: bool = False
    scales: int = (
        1  # of static quantizers: 1, or one for each head of (batch, heads, time, head_dim)
    )

    def __post_init__(self):
        if self.quantizer not in QUANTIZERS:
            raise ValueError(f"quantizer '{self.quantizer}' is not one of {', '.join(QUANTIZERS)}")
        possible = QUANTIZERS[self.quantizer]
        if self.bits not in possible:
            raise ValueError(
                f"bits {self.bits} of quantizer '{self.quantizer}' are none of {[*possible]}"
            )
        if self.quantizer == "absmax" and not self.signed:
            raise ValueError("quantizer 'absmax' is signed")
        check_numbers(self, "scales", at_least=1)

    @property
    def range(self) -> tuple[int, int]:
        """Return the smallest and the largest code."""
        if self.quantizer == "absmax":
            return -_LARGEST_ABSMAX, _LARGEST_ABSMAX
        if self.bits == 1:
            return (-1, 1) if self.signed else (0, 1)
        low = -(2 ** (self.bits - 1)) if self.signed else 0
        return low, 2**self.bits - 1 + low

    @property
    def largest(self) -> int:
        """Return the largest magnitude of a code."""
        return max(map(abs, self.range))


class PackedActivation(nn.Module):
    """Quantizes as its format says, with the stored numbers as buffers: `scale` of bit and lsq, `offset`
    of bit, (scales,) each."""

    def __init__(self, form: ActivationFormat):
        super().__init__()
        self.form = form
        if form.quantizer != "absmax":
            self.register_buffer("scale", torch.ones(form.scales))
        if form.quantizer == "bit":
            self.register_buffer("offset", torch.zeros(form.scales))

    def forward(self, x: Float[Tensor, "*shape"]) -> Codes:
        """Return the codes of `x` and their scale."""
        form = self.form
        low, high = form.range
        if form.quantizer == "absmax":
            scale = x.abs().amax(dim=-1, keepdim=True) / _LARGEST_ABSMAX
            scale = scale.masked_fill(scale == 0, 1.0)
            return Codes((x / scale).round(), scale, form.largest)
        scale = self._shaped(self.scale)
        if form.quantizer == "lsq":
            return Codes((x / scale).clamp(low, high).round(), scale, form.largest)
        centered = x - self._shaped(self.offset)
        if form.signed:
            return Codes(torch.where(centered >= 0, 1.0, -1.0), scale, form.largest)
        codes = (centered / scale).clamp(0, 1).round()
        if form.sparse:
            codes = codes.masked_fill(x == 0, 0)
        return Codes(codes, scale, form.largest)

    def _shaped(self, number: Float[Tensor, "scales"]) -> Tensor:
        """Return a number of each head with the axes of (heads, time, head_dim)."""
        return number if self.form.scales == 1 else number.view(-1, 1, 1)

    def extra_repr(self) -> str:
        """Return what torch prints of the module."""
        return str(self.form)
