"""Every mask of the toolkit. True means keep."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def valid_mask(lengths: Int[Tensor, "batch"], size: int) -> Bool[Tensor, "batch size"]:
    """Return True where position < length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def key_mask(lengths: Int[Tensor, "batch"], size: int) -> Bool[Tensor, "batch 1 1 size"]:
    """Return the mask that lets every query see the valid keys of its own utterance."""
    return valid_mask(lengths, size)[:, None, None, :]


def causal_mask(size: int, device: torch.device | None = None) -> Bool[Tensor, "size size"]:
    """Return the mask (query, key) that lets a query see itself and what came before."""
    position = torch.arange(size, device=device)
    return position[:, None] >= position[None, :]
