"""What every model returns for a batch: the only thing the trainer sees."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Loss:
    """A loss summed over `count` items, so that accumulation and data-parallel training divide by
    the global count; `metrics` maps a name to (sum, count), averaged the same way.

    total: scalar with gradient, summed over the items.
    count: utterances (or frames) that `total` sums over.
    """

    total: Tensor
    count: int
    metrics: dict[str, tuple[Tensor | float, float | int]] = field(default_factory=dict)
