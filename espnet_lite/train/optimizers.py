"""Optimizers by name."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from espnet_lite.config import check_numbers
from espnet_lite.errors import InputError

_BLOCK = re.compile(r"encoder\.blocks\.(\d+)\.")
_BEFORE_BLOCKS = re.compile(r"(front_end|encoder)\.")
_AFTER_BLOCKS = re.compile(r"encoder\.norm\.")  # of the last block's output
_SCALES = (".scale_factor", ".shift")  # what quantizers learn


@dataclass(frozen=True)
class AdamWConfig:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), as fairseq's `adam` has it too."""

    lr: float = 1.0e-3  # peak; the schedule scales it
    betas: tuple[float, ...] = (0.9, 0.98)
    eps: float = 1.0e-8
    weight_decay: float = 0.01  # of matrices and kernels only
    layer_decay: float = 1.0  # factor of the rate from each encoder block to the one below it
    scale_lr_factor: float = 1.0  # of the rate of quantizers' scales and thresholds

    def __post_init__(self):
        check_numbers(self, "lr eps scale_lr_factor", above=0)
        check_numbers(self, "weight_decay", at_least=0)
        check_numbers(self, "layer_decay", above=0, at_most=1)
        check_numbers(self, "betas", at_least=0, below=1)
        if len(self.betas) != 2:
            raise ValueError(f"betas {list(self.betas)} are not two numbers")


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    *,
    layer_decay: float = 1.0,
    scale_lr_factor: float = 1.0,
) -> list[dict]:
    """Return what is trained in groups of one weight decay and one `lr_factor` each.

    Tensors of two or more axes decay, biases and norms do not. With a `layer_decay` below 1 the
    rate of a layer is `layer_decay` times that of the one above it (Clark et al. 2020, ELECTRA):
    the top block, its norm and the heads have the whole rate, what stands before the blocks is
    one step below the first. Groups go from the top down, each depth's matrices first.

    Raises:
        InputError: `layer_decay` is not 1 and the model has no encoder.blocks.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    depths = dict.fromkeys((name for name, _ in trained), 0)
    if layer_decay != 1:
        blocks = 1 + max(_block_numbers(name for name, _ in model.named_parameters()), default=-1)
        if not blocks:
            raise InputError(
                f"{layer_decay} for a model without encoder.blocks",
                where="train.optimizer.layer_decay",
                fix="leave it at 1.0",
            )
        depths = {name: _depth(name, blocks) for name in depths}
    rates = {
        name: (scale_lr_factor != 1 and name.endswith(_SCALES), depth)
        for name, depth in depths.items()
    }
    groups = []
    for rate in sorted(set(rates.values()) | {(False, 0)}):
        is_scale, depth = rate
        parameters = [p for name, p in trained if rates[name] == rate]
        factor = layer_decay**depth * (scale_lr_factor if is_scale else 1.0)
        for matrices, decay in ((True, weight_decay), (False, 0.0)):
            chosen = [p for p in parameters if (p.ndim > 1) == matrices]
            groups.append({"params": chosen, "weight_decay": decay, "lr_factor": factor})
    return groups


def _block_numbers(names: Iterable[str]) -> list[int]:
    return [int(match[1]) for name in names if (match := _BLOCK.match(name))]


def _depth(name: str, blocks: int) -> int:
    """Return how many layers a parameter lies below the top one."""
    if block := _BLOCK.match(name):
        return blocks - 1 - int(block[1])
    if _BEFORE_BLOCKS.match(name) and not _AFTER_BLOCKS.match(name):
        return blocks
    return 0


def adamw(config: AdamWConfig, groups: Iterable[dict]) -> torch.optim.Optimizer:
    """Return torch's fused AdamW."""
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=tuple(config.betas), eps=config.eps, fused=True
    )


OPTIMIZERS = {"adamw": (AdamWConfig, adamw)}
