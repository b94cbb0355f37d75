"""Optimizers by name."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from espnet_lite.config import check_numbers


@dataclass(frozen=True)
class AdamWConfig:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    lr: float = 1.0e-3  # peak; the schedule scales it
    betas: tuple[float, ...] = (0.9, 0.98)
    eps: float = 1.0e-8
    weight_decay: float = 0.01  # of matrices and kernels only

    def __post_init__(self):
        check_numbers(self, "lr eps", above=0)
        check_numbers(self, "weight_decay", at_least=0)
        check_numbers(self, "betas", at_least=0, below=1)
        if len(self.betas) != 2:
            raise ValueError(f"betas {list(self.betas)} are not two numbers")


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Return two parameter groups: tensors of two or more axes decay, biases and norms do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def adamw(config: AdamWConfig, groups: Iterable[dict]) -> torch.optim.Optimizer:
    """Return torch's fused AdamW."""
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=tuple(config.betas), eps=config.eps, fused=True
    )


OPTIMIZERS = {"adamw": (AdamWConfig, adamw)}
