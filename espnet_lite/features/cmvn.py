"""Cepstral mean and variance normalization: over a corpus (global) and over an utterance."""

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from espnet_lite.errors import InputError
from espnet_lite.files import atomic_path, in_key_order
from espnet_lite.nn.masks import valid_mask

# Kaldi and ESPnet floor a variance at 1e-20; a dimension that never moves (digital silence) would
# then be multiplied by 1e10. Log mels of speech have variances from 4 to 20.
VARIANCE_FLOOR = 1.0e-5


@dataclass(frozen=True)
class CmvnStatistics:
    """Float64 sums over the valid frames of a corpus."""

    frames: int  # count
    total: Float[Tensor, "dim"]  # sum of x
    total_squares: Float[Tensor, "dim"]  # sum of x²

    def mean(self) -> Float[Tensor, "dim"]:
        """Return the mean of each dimension, float64."""
        return self.total / self.frames

    def inverse_std(self) -> Float[Tensor, "dim"]:
        """Return 1 / standard deviation of each dimension, variance floored, float64."""
        variance = self.total_squares / self.frames - self.mean().square()
        return variance.clamp_min(VARIANCE_FLOOR).rsqrt()


class CmvnAccumulator:
    """Sums over batches of padded features."""

    def __init__(self, dim: int):
        self._frames = 0
        self._total = torch.zeros(dim, dtype=torch.float64)
        self._total_squares = torch.zeros(dim, dtype=torch.float64)

    def add(
        self, features: Float[Tensor, "batch frames dim"], lengths: Int[Tensor, "batch"]
    ) -> "CmvnAccumulator":
        """Count the valid frames of a batch and return self."""
        valid = valid_mask(lengths, features.size(1))
        frames = features[valid].double()
        self._frames += frames.size(0)
        self._total += frames.sum(dim=0).cpu()
        self._total_squares += frames.square().sum(dim=0).cpu()
        return self

    def statistics(self) -> CmvnStatistics:
        """Return the sums so far.

        Raises:
            InputError: no frame was counted.
        """
        if self._frames == 0:
            raise InputError(
                "no frame to take CMVN statistics of, expected audio of at least one window"
            )
        return CmvnStatistics(self._frames, self._total.clone(), self._total_squares.clone())


class GlobalCmvn(nn.Module):
    """(x - mean) · inverse_std of each feature dimension; padding stays zero.

    Both buffers travel in checkpoints. A fresh one changes nothing but the padding.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("inverse_std", torch.ones(dim))

    def set_statistics(self, statistics: CmvnStatistics) -> None:
        """Take mean and standard deviation from `statistics`.

        Raises:
            InputError: another number of dimensions.
        """
        if statistics.total.numel() != self.mean.numel():
            raise InputError(
                f"CMVN statistics have {statistics.total.numel()} dimensions, the features "
                f"{self.mean.numel()}",
                fix="compute the statistics with the configuration of this model",
            )
        self.mean.copy_(statistics.mean())
        self.inverse_std.copy_(statistics.inverse_std())

    def forward(
        self, features: Float[Tensor, "batch frames dim"], lengths: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch frames dim"]:
        valid = valid_mask(lengths, features.size(1))
        normalized = (features - self.mean) * self.inverse_std
        return torch.where(valid[..., None], normalized, 0.0)


def utterance_cmvn(
    features: Float[Tensor, "batch frames dim"],
    lengths: Int[Tensor, "batch"],
    *,
    normalize_variance: bool = True,
) -> Float[Tensor, "batch frames dim"]:
    """Return features with mean 0 and, by default, variance 1 over each utterance's valid frames.

    Padding is ignored and comes back as zero.
    """
    valid = valid_mask(lengths, features.size(1))[..., None]
    count = lengths.clamp_min(1)[:, None, None]
    mean = torch.where(valid, features, 0.0).sum(dim=1, keepdim=True) / count
    centered = torch.where(valid, features - mean, 0.0)
    if not normalize_variance:
        return centered
    variance = centered.square().sum(dim=1, keepdim=True) / count
    return centered * variance.clamp_min(VARIANCE_FLOOR).rsqrt()


def save_cmvn(path: Path | str, statistics: CmvnStatistics, features: dict) -> None:
    """Write sums and count, with `features` (JSON-able: what they were computed of) as metadata."""
    metadata = {"frames": str(statistics.frames), "features": json.dumps(features, sort_keys=True)}
    tensors = {"total": statistics.total, "total_squares": statistics.total_squares}
    with atomic_path(path) as temporary:
        # Not save_file: its full disk is no OSError.
        temporary.write_bytes(in_key_order(safetensors.torch.save(tensors, metadata=metadata)))


def load_cmvn(path: Path | str) -> tuple[CmvnStatistics, dict]:
    """Return statistics and the description of their features, as `save_cmvn` wrote them.

    Raises:
        InputError: no such file, or not one of CMVN statistics.
    """
    fix = "make it again: ./run.sh --stage dump --stop_stage dump"
    if not Path(path).is_file():
        raise InputError("no such file", where=path, fix=fix)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            statistics = CmvnStatistics(
                frames=int(metadata["frames"]),
                total=file.get_tensor("total"),
                total_squares=file.get_tensor("total_squares"),
            )
            return statistics, json.loads(metadata["features"])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"not a file of CMVN statistics ({error})", where=path, fix=fix) from error
