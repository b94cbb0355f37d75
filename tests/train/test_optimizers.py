"""Which tensors decay, and that the names build what they say."""

import torch
from torch import nn

from espnet_lite.config import build_class
from espnet_lite.train.optimizers import OPTIMIZERS, AdamWConfig, decay_groups


def test_matrices_decay_and_vectors_do_not():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv1d(4, 2, 3))
    model[0].bias.requires_grad_(False)
    matrices, vectors = decay_groups(model, 0.3)
    assert {p.shape for p in matrices["params"]} == {(4, 3), (2, 4, 3)}
    assert len(vectors["params"]) == 3 and all(p.ndim == 1 for p in vectors["params"])
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.3, 0.0)


def test_adamw_takes_its_numbers_from_the_config():
    config = AdamWConfig(lr=0.02, betas=(0.8, 0.9), eps=1e-6)
    groups = decay_groups(nn.Linear(2, 2), 0.1)
    optimizer = build_class(OPTIMIZERS, config)(config, groups)
    assert isinstance(optimizer, torch.optim.AdamW)
    for group, decay in zip(optimizer.param_groups, (0.1, 0.0), strict=True):
        assert (group["lr"], group["betas"], group["eps"]) == (0.02, (0.8, 0.9), 1e-6)
        assert group["weight_decay"] == decay
