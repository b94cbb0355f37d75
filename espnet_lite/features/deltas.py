"""Time derivatives of features as Kaldi's `add-deltas` (feat/feature-functions.cc, DeltaFeatures)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from espnet_lite.nn.masks import valid_mask


def delta_taps(order: int, window: int) -> list[list[float]]:
    """Return one symmetric filter per order 0..order, each 2 · order · window + 1 taps long.

    Order i is order i - 1 convolved with j / Σ j², j = -window..window.
    """
    half = order * window
    taps = [[0.0] * half + [1.0] + [0.0] * half]
    norm = sum(j * j for j in range(-window, window + 1))
    for _ in range(order):
        last = taps[-1]
        following = [0.0] * len(last)
        for offset, weight in enumerate(last):
            if weight:
                for j in range(-window, window + 1):
                    following[offset + j] += weight * j / norm
        taps.append(following)
    return taps


def add_deltas(
    features: Float[Tensor, "batch frames dim"],
    lengths: Int[Tensor, "batch"],
    *,
    order: int = 2,
    window: int = 2,
) -> Float[Tensor, "batch frames dim_with_deltas"]:
    """Return features with their derivatives up to `order` appended: dim · (order + 1).

    Beyond its ends an utterance counts as its first or last valid frame repeated. Padding is zero.
    """
    frames = features.size(1)
    half = order * window
    last = (lengths - 1).clamp_min(0)[:, None]
    position = torch.arange(-half, frames + half, device=features.device)
    index = torch.minimum(position.clamp_min(0), last)
    if frames == 0:
        return features.new_zeros(features.size(0), 0, features.size(2) * (order + 1))
    repeated = features.gather(1, index[..., None].expand(-1, -1, features.size(2)))
    derivatives = [
        sum(repeated[:, tap : tap + frames] * weight for tap, weight in enumerate(taps) if weight)
        for taps in delta_taps(order, window)
    ]
    valid = valid_mask(lengths, frames)
    return torch.where(valid[..., None], torch.cat(derivatives, dim=-1), 0.0)
