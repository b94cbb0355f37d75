"""Sums of metrics between two log lines, or over a validation."""

from collections.abc import Mapping, Sequence

from torch import Tensor


class Averages:
    """Adds (sum, count) pairs by name and gives their means."""

    def __init__(self, sums: dict[str, list[float]] | None = None):
        """Start empty, or from what `state` returned."""
        self.sums = sums or {}

    def add(self, metrics: Mapping[str, Sequence[Tensor | float | int]]) -> None:
        """Add one batch's metrics, (sum, count) by name."""
        for name, (total, count) in metrics.items():
            held = self.sums.setdefault(name, [0.0, 0.0])
            held[0] += float(total)
            held[1] += float(count)

    def means(self) -> dict[str, float]:
        """Return the mean of each metric."""
        return {name: total / count for name, (total, count) in self.sums.items() if count}

    def state(self) -> dict[str, list[float]]:
        """Return what the constructor takes, JSON-able."""
        return self.sums
