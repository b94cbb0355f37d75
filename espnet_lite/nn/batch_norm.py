"""Batch normalization (Ioffe and Szegedy 2015) of frames: blind to padding, one for all processes."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, distributed, nn

MOMENTUM = 0.1  # of the running statistics: the part of a new batch's


class BatchNorm(nn.Module):
    """Each channel to mean 0 and variance 1 over all valid frames, then scale and shift.

    In training, mean and variance are those of one forward pass: of this process's batch and, where
    several processes train together, of the batches that the others hold at the same moment, as if
    one process had them all as one batch. Batches that a process takes one after the other within
    an update (`train.accumulate`) are normalized each for itself. So, unlike without batch
    normalization, a training depends on how many processes share an update: with n of them, n
    batches are normalized together.

    Running statistics are those of torch's BatchNorm1d. In evaluation, and while `weight` is frozen
    (train.frozen_parts, train.freeze_parts), they are used and left as they are.
    """

    def __init__(self, channels: int, *, epsilon: float = 1.0e-5):
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(
        self,
        x: Float[Tensor, "batch time channels"],
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time channels"]:
        """Return a tensor of the type of `x`; invalid frames mean nothing and get no gradient.

        Args:
            x: frames, finite also where they are invalid.
            valid: True for those that count; None: all do.
        """
        if not (self.training and self.weight.requires_grad):
            scale = (self.running_var + self.epsilon).rsqrt() * self.weight
            shift = self.bias - self.running_mean * scale
            return torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype))
        with torch.no_grad():
            rows = x.flatten(0, 1).to(torch.promote_types(x.dtype, torch.float32))
            counts = None if valid is None else valid.flatten()[:, None].to(rows.dtype)
            here = rows.new_tensor([len(rows)]) if counts is None else counts.sum(dim=0)
            sums = _over_processes(torch.cat([_counted(rows, counts).sum(dim=0), here]))
            total = sums[-1].clamp_min(1)  # of no frame at all the mean is 0
            centered = rows - sums[:-1] / total
            variance = _over_processes(_counted(centered.square(), counts).sum(dim=0)) / total
            part = MOMENTUM * (sums[-1] > 0)
            self.running_mean.lerp_(sums[:-1] / total, part)
            self.running_var.lerp_(variance * total / (total - 1).clamp_min(1), part)
        inverse = (variance + self.epsilon).rsqrt()
        return _Normalize.apply(x, self.weight, self.bias, centered, inverse, counts, total)


class _Normalize(torch.autograd.Function):
    """x̂ · weight + bias with x̂ = (x − mean)/σ, the statistics being those of all processes.

    Where g is the gradient of the output and n the number of valid frames of all processes, that of
    x is weight/σ · (g − Σg/n − x̂ · Σ(g x̂)/n), with sums over the valid frames of all processes.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, centered, inverse, counts, total):
        ctx.save_for_backward(weight, centered, inverse, counts, total)
        return torch.addcmul(bias, centered, weight * inverse).to(x.dtype).view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        weight, centered, inverse, counts, total = ctx.saved_tensors
        rows = _counted(gradient.flatten(0, 1).to(centered.dtype), counts)
        bias_gradient = rows.sum(dim=0)
        weight_gradient = (rows * centered).sum(dim=0) * inverse
        means = _over_processes(torch.stack([bias_gradient, weight_gradient])) / total
        scale = weight * inverse
        x_gradient = torch.addcmul(-scale * means[0], rows, scale)
        x_gradient.addcmul_(centered, -scale * inverse * means[1])
        x_gradient = _counted(x_gradient, counts).to(gradient.dtype).view_as(gradient)
        return x_gradient, weight_gradient, bias_gradient, None, None, None, None


def _counted(rows: Tensor, counts: Tensor | None) -> Tensor:
    """Return the rows with 0 in those that do not count."""
    return rows if counts is None else rows * counts


def _over_processes(sums: Tensor) -> Tensor:
    """Return the sum over the processes that train together."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(sums)
    return sums
