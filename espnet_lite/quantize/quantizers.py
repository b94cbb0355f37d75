"""Quantizers: real numbers to few codes and a scale, with gradients that pass straight through.

Every quantizer obeys one contract, which training, packed file and kernels share: `codes(x)` are
integers and a scale, and `forward(x)` is exactly codes · scale in fp32 (cast once where autocast asks
for it). Nothing is added to that product: the threshold β of one-bit activations decides which code
a value gets, not what the code means. Rounding is half to even, sign(0) is +1, and 0 gets the code 0
wherever the codes have a 0. What is NaN stays NaN in `forward`, and makes the gradient of a learned scale
NaN, so that a training ends; integers have no NaN, and `codes` gives any code.

A learned scale is `start · factor`: `start` is measured once, `factor` is the parameter and begins
at 1 (β is `start · shift`, from 0). A step of Adam, whose length does not depend on the gradient's, then
changes scales of all sizes by the same part. The published rate of 1e-4 is of an α near 1; ours is the
weights' times train.optimizer.scale_lr_factor.

Sources: BiT (Liu et al. 2022, 2205.13016), written from its equations; LSQ (Esser et al. 2020,
1902.08153); BitNet b1.58 (Ma et al. 2024, 2402.17764) for the ternary weights.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int16
from torch import Tensor, nn
from torch.autograd import Function

from espnet_lite.kernels.fake_quantize import FakeQuantizer

TERNARY_BITS = 1.58  # log2(3): what is written for three codes
# Scales that `least_squares_scale` tries: the largest |x| on the largest code, and 2^¼ less each time.
_TRIED_SCALES = 40
_TRIED_VALUES = 1 << 16  # at most, of a tensor with one scale


@dataclass
class Codes:
    """Integers and what one of them is worth: codes · scale is the quantizer's output.

    codes: of the shape of what was quantized.
    scale: fp32, broadcasts over the codes; 0 only for one-bit weights that are all 0.
    """

    codes: Int16[Tensor, "*shape"]
    scale: Float[Tensor, "..."]

    def values(self) -> Float[Tensor, "*shape"]:
        """Return what the codes stand for."""
        return self.codes * self.scale


# ---- weights ---------------------------------------------------------------------------------------


class WeightQuantizer(nn.Module):
    """Quantizes the weights of a layer, output channels first; straight-through: identity gradient."""

    BITS: ClassVar[tuple[float | int, ...]]  # that the class can have

    def __init__(self, *, bits: float | int, granularity: str, channels: int):
        """Take what the family shares.

        Args:
            bits: one of BITS.
            granularity: what has a scale of its own: "channel" (an output channel) or "tensor".
            channels: output channels.
        """
        super().__init__()
        self.bits = bits
        self.granularity = granularity
        self.channels = channels

    def start(self, weight: Float[Tensor, "channels *rest"]) -> None:
        """Measure `weight`, from which a training begins; most quantizers measure at each step."""

    def codes(self, weight: Float[Tensor, "channels *rest"]) -> Codes:
        """Return codes and scales; the scale has a one for each axis but perhaps the first."""
        codes, scale = self._codes(weight.detach().float())
        return Codes(codes.to(torch.int16), scale)

    def forward(self, weight: Float[Tensor, "channels *rest"]) -> Float[Tensor, "channels *rest"]:
        """Return codes · scale, with the gradient of the identity."""
        with torch.no_grad():
            codes, scale = self._codes(weight.float())
            values = (codes * scale).to(_type_of(weight))
        return _StraightThrough.apply(weight, values)

    def _codes(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _mean(self, x: Tensor) -> Tensor:
        """Return the mean of what shares a scale, with the axes of `x`."""
        axes = tuple(range(1 if self.granularity == "channel" else 0, x.ndim))
        return x.mean(dim=axes, keepdim=True)

    def extra_repr(self) -> str:
        """Return what torch prints of the module."""
        return f"bits={self.bits:g}, granularity={self.granularity}"


class BitWeight(WeightQuantizer):
    """s · Sign(W − mean W): the mean of each output channel, s = mean |W| (BiT, section 2.1)."""

    BITS = (1,)

    def _codes(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        mean = weight.mean(dim=tuple(range(1, weight.ndim)), keepdim=True)
        return _signs(weight - mean), self._mean(weight.abs())


class TernaryWeight(WeightQuantizer):
    """s · clip(round(W/s), −1, 1) with s = mean |W| (BitNet b1.58, equations 1 to 3)."""

    BITS = (TERNARY_BITS,)

    def _codes(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        scale = _positive(self._mean(weight.abs()))
        return (weight / scale).round_().clamp_(-1, 1), scale


class AbsmaxWeight(WeightQuantizer):
    """Symmetric codes up to ±(2^(b−1) − 1), the largest |W| on the largest: nothing is learned."""

    BITS = tuple(range(2, 9))

    def _codes(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        axes = tuple(range(1 if self.granularity == "channel" else 0, weight.ndim))
        highest = 2 ** (self.bits - 1) - 1
        scale = _positive(weight.abs().amax(dim=axes, keepdim=True) / highest)
        return (weight / scale).round_().clamp_(-highest, highest), scale


class LsqWeight(WeightQuantizer):
    """Codes −2^(b−1) … 2^(b−1) − 1 with learned step sizes (LSQ, equations 1 to 5)."""

    BITS = tuple(range(2, 9))

    def __init__(self, *, bits: float | int, granularity: str, channels: int):
        super().__init__(bits=bits, granularity=granularity, channels=channels)
        scales = channels if granularity == "channel" else 1
        self.low, self.high = -(2 ** int(bits - 1)), 2 ** int(bits - 1) - 1
        self.register_buffer("scale_start", torch.full((scales,), torch.nan))
        self.scale_factor = nn.Parameter(torch.ones(scales))

    def start(self, weight: Float[Tensor, "channels *rest"]) -> None:
        """Choose the scales with the least squared error of the weights."""
        rows = weight.detach().float().reshape(len(self.scale_start), -1)
        scales = least_squares_scale(rows, low=self.low, high=self.high)
        self.scale_start.copy_(_positive(scales))

    def scale(self) -> Float[Tensor, "scales"]:
        """Return the step sizes, with their gradient."""
        return self.scale_start * self.scale_factor

    def _codes(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        scale = self._shaped(weight)
        return (weight / scale).clamp_(self.low, self.high).round_(), scale.detach()

    def forward(self, weight: Float[Tensor, "channels *rest"]) -> Float[Tensor, "channels *rest"]:
        """Return codes · scale, with LSQ's gradients."""
        return _Lsq.apply(weight, self._shaped(weight), self.low, self.high, _type_of(weight))

    def _shaped(self, weight: Tensor) -> Tensor:
        return self.scale().view(-1, *(1,) * (weight.ndim - 1))


# ---- activations -----------------------------------------------------------------------------------


class ActivationQuantizer(nn.Module):
    """Quantizes what comes into a product.

    A static one begins with what it measures while `starting` is set (quantize.calibration); then
    its scale is the same for every input.
    """

    BITS: ClassVar[tuple[float | int, ...]]
    IS_DYNAMIC: ClassVar[bool] = False  # the scale comes from each token itself

    def __init__(self, *, bits: int, signed: bool, groups: int = 1, sparse: bool = False):
        """Take what the family shares.

        Args:
            bits: one of BITS.
            signed: False for what is never below 0: behind ReLU and softmax.
            groups: scales: 1, or one for each head of (batch, heads, time, head_dim).
            sparse: exact zeros are no values, as the probabilities of keys that are not seen: they
                keep the code 0 and do not count in what is measured.
        """
        super().__init__()
        self.bits = bits
        self.signed = signed
        self.groups = groups
        self.sparse = sparse
        self.starting = False

    def codes(self, x: Float[Tensor, "*shape"]) -> Codes:
        """Return codes and scale."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return what torch prints of the module."""
        return f"bits={self.bits}, signed={self.signed}, groups={self.groups}"


class _StaticActivation(ActivationQuantizer):
    """One learned scale, or one for each head."""

    def __init__(self, *, bits: int, signed: bool, groups: int = 1, sparse: bool = False):
        super().__init__(bits=bits, signed=signed, groups=groups, sparse=sparse)
        self.register_buffer("scale_start", torch.full((groups,), torch.nan))
        self.scale_factor = nn.Parameter(torch.ones(groups))

    def scale(self) -> Float[Tensor, "groups"]:
        """Return the scales, with their gradient."""
        return self.scale_start * self.scale_factor

    def _shaped(self, parameter: Tensor) -> Tensor:
        return parameter if self.groups == 1 else parameter.view(-1, 1, 1)

    def _rows(self, x: Tensor) -> Tensor:
        """Return what shares a scale as (groups, values)."""
        x = x.detach().float()
        if self.groups == 1:
            x = x.reshape(1, -1)
            return x[:, x[0] != 0] if self.sparse else x
        return x.transpose(0, 1).reshape(self.groups, -1)


class BitActivation(_StaticActivation):
    """α · Sign(x − β), or where nothing is below 0 α · round(clip((x − β)/α, 0, 1)) (BiT, section 2.2).

    α begins with the least squared error of what is measured, β as 0; both are learned. For ±1 that is
    the mean of |x|, as in BiT. For {0, 1} BiT takes the mean too, which of probabilities is one over the
    number of keys, however peaked they are: far too small.
    """

    BITS = (1,)

    def __init__(self, *, bits: int, signed: bool, groups: int = 1, sparse: bool = False):
        super().__init__(bits=bits, signed=signed, groups=groups, sparse=sparse)
        self.shift = nn.Parameter(torch.zeros(groups))

    def threshold(self) -> Float[Tensor, "groups"]:
        """Return β, with its gradient."""
        return self.scale_start * self.shift

    def start(self, x: Float[Tensor, "*shape"]) -> None:
        """Measure the α with the least squared error."""
        rows = self._rows(x)
        if self.signed:
            self.scale_start.copy_(rows.abs().mean(dim=1))
        else:
            self.scale_start.copy_(least_squares_scale(_thinned(rows), low=0, high=1))

    def codes(self, x: Float[Tensor, "*shape"]) -> Codes:
        """Return ±1 or {0, 1}, and α."""
        alpha, beta = (self._shaped(p).detach() for p in (self.scale(), self.threshold()))
        if self.signed:
            codes = _signs(x.float() - beta)
        else:
            codes = ((x.float() - beta) / alpha).clamp_(0, 1).round_()
            if self.sparse:
                codes = codes.masked_fill_(x == 0, 0)
        return Codes(codes.to(torch.int16), alpha)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return codes · α, with BiT's gradients of x, α and β."""
        if self.starting:
            self.start(x)
        alpha, beta = self._shaped(self.scale()), self._shaped(self.threshold())
        if self.signed:
            return _Sign.apply(x, alpha, beta, _type_of(x))
        return _Unit.apply(x, alpha, beta, self.sparse, _type_of(x))


class LsqActivation(_StaticActivation):
    """Codes −2^(b−1) … 2^(b−1) − 1, or 0 … 2^b − 1 where nothing is below 0 (LSQ, equations 1 to 5)."""

    BITS = tuple(range(2, 9))

    def __init__(self, *, bits: int, signed: bool, groups: int = 1, sparse: bool = False):
        super().__init__(bits=bits, signed=signed, groups=groups, sparse=sparse)
        self.low = -(2 ** (bits - 1)) if signed else 0
        self.high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1

    def start(self, x: Float[Tensor, "*shape"]) -> None:
        """Choose the scale with the least squared error of what is seen now."""
        rows = _thinned(self._rows(x))
        self.scale_start.copy_(least_squares_scale(rows, low=self.low, high=self.high))

    def codes(self, x: Float[Tensor, "*shape"]) -> Codes:
        """Return codes and step size."""
        scale = self._shaped(self.scale()).detach()
        codes = (x.detach().float() / scale).clamp_(self.low, self.high).round_()
        return Codes(codes.to(torch.int16), scale)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return codes · scale, with LSQ's gradients."""
        if self.starting:
            self.start(x)
        return _Lsq.apply(x, self._shaped(self.scale()), self.low, self.high, _type_of(x))


class AbsmaxActivation(ActivationQuantizer):
    """Symmetric int8 by token: scale max|x| / 127 over the last axis; identity gradient.

    The scale is each token's own, so that nothing depends on what else is in the batch. A token of
    zeros has the scale 1.
    """

    BITS = (8,)
    IS_DYNAMIC = True

    def codes(self, x: Float[Tensor, "*shape"]) -> Codes:
        """Return codes −127 … 127 and one scale a token."""
        codes, scale = self._codes(x.detach().float())
        return Codes(codes.to(torch.int16), scale)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return codes · scale, with the gradient of the identity."""
        with torch.no_grad():
            codes, scale = self._codes(x.float())
            values = codes.mul_(scale).to(_type_of(x))
        return _StraightThrough.apply(x, values)

    @staticmethod
    def _codes(x: Tensor) -> tuple[Tensor, Tensor]:
        scale = _positive(x.abs().amax(dim=-1, keepdim=True) / 127)
        return (x / scale).round_(), scale


WEIGHT_QUANTIZERS = {
    "bit": BitWeight,
    "ternary": TernaryWeight,
    "lsq": LsqWeight,
    "absmax": AbsmaxWeight,
}
ACTIVATION_QUANTIZERS = {
    "bit": BitActivation,
    "lsq": LsqActivation,
    "absmax": AbsmaxActivation,
}


# ---- gradients; on a CPU kernels.fake_quantize does the same in one pass -----------------------------

_UNITS = {False: "unit", True: "sparse_unit"}


class _StraightThrough(Function):
    """The quantized values, with the gradient of what was quantized."""

    @staticmethod
    def forward(ctx, x, values):
        ctx.dtype = x.dtype
        return values.view_as(values)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.to(ctx.dtype), None


class _Sign(Function):
    """y = α Sign(x − β); ∂y/∂x = 1 where |x − β| ≤ α, ∂y/∂α = Sign(x − β), ∂y/∂β = −∂y/∂x."""

    @staticmethod
    def forward(ctx, x, alpha, beta, dtype):
        ctx.save_for_backward(x, alpha, beta)
        values = FakeQuantizer("sign", alpha, beta).values(x, dtype)
        if values is not None:
            return values
        x = x.float()
        return torch.where(x >= beta, alpha, torch.where(x < beta, -alpha, torch.nan)).to(dtype)

    @staticmethod
    def backward(ctx, gradient):
        x, alpha, beta = ctx.saved_tensors
        fused = FakeQuantizer("sign", alpha, beta).gradients(x, gradient)
        if fused is not None:
            return *fused, None
        centered = x.float() - beta
        gradient = gradient.float()
        inside = gradient * (centered.abs() <= alpha)
        below = torch.where(centered < 0, -gradient, torch.nan)
        of_alpha = torch.where(centered >= 0, gradient, below).sum_to_size(alpha.shape)
        return inside.to(x.dtype), of_alpha, -inside.sum_to_size(beta.shape), None


class _Unit(Function):
    """y = α round(clip(u, 0, 1)) with u = (x − β)/α.

    ∂y/∂x = 1 and ∂y/∂β = −1 for 0 ≤ u < 1, else 0. ∂y/∂α is 0 below, −u on [0, ½), 1 − u on [½, 1) and
    1 above. With `sparse`, what is exactly 0 gets the code 0 and no gradient.
    """

    @staticmethod
    def forward(ctx, x, alpha, beta, sparse, dtype):
        ctx.save_for_backward(x, alpha, beta)
        ctx.sparse = sparse
        values = FakeQuantizer(_UNITS[sparse], alpha, beta).values(x, dtype)
        if values is not None:
            return values
        values = ((x.float() - beta) / alpha).clamp_(0, 1).round_() * alpha
        if sparse:
            values = values.masked_fill_(x == 0, 0)
        return values.to(dtype)

    @staticmethod
    def backward(ctx, gradient):
        x, alpha, beta = ctx.saved_tensors
        fused = FakeQuantizer(_UNITS[ctx.sparse], alpha, beta).gradients(x, gradient)
        if fused is not None:
            return *fused, None, None
        u = (x.float() - beta) / alpha
        gradient = gradient.float()
        if ctx.sparse:
            gradient = gradient.masked_fill(x == 0, 0)
        above = u >= 1
        inside = gradient * ((u >= 0) & ~above)
        of_alpha = torch.where(above, gradient, inside * ((u >= 0.5).float() - u))
        return (
            inside.to(x.dtype),
            of_alpha.sum_to_size(alpha.shape),
            -inside.sum_to_size(beta.shape),
            None,
            None,
        )


class _Lsq(Function):
    """y = s round(clip(u, low, high)) with u = x/s.

    ∂y/∂x = 1 for low < u < high, else 0; ∂y/∂s = round(u) − u there, else low or high, times
    1/√(N · high), N being the values that share a scale (LSQ, equations 3 and 5, section 2.2).
    """

    @staticmethod
    def forward(ctx, x, scale, low, high, dtype):
        ctx.save_for_backward(x, scale)
        ctx.range = low, high
        values = FakeQuantizer("steps", scale, None, low, high).values(x, dtype)
        if values is not None:
            return values
        return (x.float() / scale).clamp_(low, high).round_().mul_(scale).to(dtype)

    @staticmethod
    def backward(ctx, gradient):
        x, scale = ctx.saved_tensors
        low, high = ctx.range
        factor = (x.numel() / scale.numel() * high) ** -0.5
        fused = FakeQuantizer("steps", scale, None, low, high).gradients(x, gradient)
        if fused is not None:
            of_x, of_scale, _ = fused
            return of_x, of_scale * factor, None, None, None
        u = x.float() / scale
        gradient = gradient.float()
        inside = (u > low) & (u < high)
        rounded = u.clamp(low, high).round_()
        of_scale = gradient * torch.where(inside, rounded - u, rounded)
        return (
            (gradient * inside).to(x.dtype),
            of_scale.sum_to_size(scale.shape) * factor,
            None,
            None,
            None,
        )


def _type_of(x: Tensor) -> torch.dtype:
    """Return the type of a quantizer's output: autocast's where it is on."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def _signs(x: Tensor) -> Tensor:
    """Return ±1, +1 for 0."""
    return (x >= 0).to(x.dtype).mul_(2).sub_(1)


def _positive(scale: Tensor) -> Tensor:
    """Return the scale with 1 in the place of 0, where all that it scales is 0."""
    return scale.masked_fill(scale == 0, 1.0)


def _thinned(rows: Tensor) -> Tensor:
    """Return some of the values of each row, evenly spread, where there are many."""
    return rows[:, :: max(1, -(-rows.size(1) // _TRIED_VALUES))]


def least_squares_scale(
    rows: Float[Tensor, "scales values"], *, low: int, high: int
) -> Float[Tensor, "scales"]:
    """Return of each row the scale, of 40 that are tried, whose codes low … high err the least; of a
    row of zeros 0.

    LSQ's own start, 2 mean|x|/√high, spans 18 standard deviations at 8 bits.
    """
    largest = rows.abs().amax(dim=1, keepdim=True) / max(high, -low)
    best, least = largest, torch.full_like(largest, torch.inf)
    for number in range(_TRIED_SCALES):
        # From twice the smallest that clips nothing: with codes −2 … 1 the side of 1 is the shorter.
        scale = largest * 2 ** (1 - number / 4)
        error = rows - (rows / _positive(scale)).clamp_(low, high).round_().mul_(scale)
        error = error.square_().sum(dim=1, keepdim=True)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best[:, 0]
