"""Which tensors decay, and that the names build what they say."""

import pytest
import torch
from torch import nn

from espnet_lite.config import build_class
from espnet_lite.errors import InputError
from espnet_lite.quantize.quantizers import BitActivation
from espnet_lite.train.optimizers import OPTIMIZERS, AdamWConfig, parameter_groups


def test_matrices_decay_and_vectors_do_not():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv1d(4, 2, 3))
    model[0].bias.requires_grad_(False)
    matrices, vectors = parameter_groups(model, 0.3)
    assert {p.shape for p in matrices["params"]} == {(4, 3), (2, 4, 3)}
    assert len(vectors["params"]) == 3 and all(p.ndim == 1 for p in vectors["params"])
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.3, 0.0)


def test_adamw_takes_its_numbers_from_the_config():
    config = AdamWConfig(lr=0.02, betas=(0.8, 0.9), eps=1e-6)
    groups = parameter_groups(nn.Linear(2, 2), 0.1)
    optimizer = build_class(OPTIMIZERS, config)(config, groups)
    assert isinstance(optimizer, torch.optim.AdamW)
    for group, decay in zip(optimizer.param_groups, (0.1, 0.0), strict=True):
        assert (group["lr"], group["betas"], group["eps"]) == (0.02, (0.8, 0.9), 1e-6)
        assert group["weight_decay"] == decay


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)


class Encoder(nn.Module):
    def __init__(self, blocks: int):
        super().__init__()
        self.positions = nn.Conv1d(2, 2, 3)
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.norm = nn.LayerNorm(2)


def recognizer(blocks: int) -> nn.Module:
    parts = {"front_end": nn.Linear(2, 2), "encoder": Encoder(blocks), "ctc_head": nn.Linear(2, 3)}
    return nn.ModuleDict(parts)


def test_each_layer_has_its_part_of_the_rate():
    """Twelve blocks, so that block 10 comes after block 9; factors by hand, 0.5 to the depth."""
    model = recognizer(12)
    model["encoder"].blocks[3].linear.bias.requires_grad_(False)
    groups = parameter_groups(model, 0.3, layer_decay=0.5)
    assert [g["lr_factor"] for g in groups[::2]] == [0.5**depth for depth in range(13)]
    factor, decay = {}, {}
    for group in groups:
        for parameter in group["params"]:
            assert parameter not in factor
            factor[parameter], decay[parameter] = group["lr_factor"], group["weight_decay"]
    expected = {f"encoder.blocks.{i}.linear": 0.5 ** (11 - i) for i in range(12)}
    expected |= {"front_end": 0.5**12, "encoder.positions": 0.5**12}
    expected |= {"encoder.norm": 1.0, "ctc_head": 1.0}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert set(trained.values()) == set(factor) and len(trained) == 2 * 16 - 1
    for name, parameter in trained.items():
        assert factor[parameter] == expected[name.rpartition(".")[0]], name
        assert decay[parameter] == (0.3 if parameter.ndim > 1 else 0.0), name


def test_a_layer_decay_of_1_leaves_two_groups_in_the_models_order():
    model = recognizer(2)
    matrices, vectors = parameter_groups(model, 0.3, layer_decay=1.0)
    assert matrices["params"] == [p for p in model.parameters() if p.ndim > 1]
    assert vectors["params"] == [p for p in model.parameters() if p.ndim == 1]
    assert matrices["lr_factor"] == vectors["lr_factor"] == 1.0


def test_frozen_blocks_keep_their_place_in_the_count():
    model = recognizer(3)
    model["encoder"].blocks[2].requires_grad_(False)
    groups = parameter_groups(model, 0.3, layer_decay=0.5)
    [group] = [g for g in groups if model["encoder"].blocks[1].linear.weight in set(g["params"])]
    assert group["lr_factor"] == 0.5


def test_layers_of_a_model_without_blocks_are_refused():
    with pytest.raises(
        InputError, match=r"train\.optimizer\.layer_decay: 0\.9 for a model without"
    ):
        parameter_groups(nn.Linear(2, 2), 0.1, layer_decay=0.9)


def test_the_trainer_multiplies_the_rate(make_trainer):
    """Adam's first step is the rate in each element whose gradient is far from 0.

    That of a key's bias is 0, as softmax takes no notice of it.
    """
    plain = {"name": "adamw", "lr": 0.01, "weight_decay": 0.0, "layer_decay": 0.25}
    trainer = make_trainer(updates=1, optimizer=plain, schedule={"warmup_updates": 4})
    start = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.run()
    values = dict(trainer.model.named_parameters())
    del values["encoder.blocks.0.attention.key.bias"]
    for name, value in values.items():
        step = float((value.detach() - start[name]).abs().max())
        factor = 0.25 if name.startswith("front_end.") else 1.0
        assert step == pytest.approx(0.01 / 4 * factor, rel=1e-2), name


def test_what_quantizers_learn_has_a_rate_of_its_own():
    model = recognizer(2)
    block = model["encoder"].blocks[1]
    block.quantizer = BitActivation(bits=1, signed=True)
    groups = parameter_groups(model, 0.3, layer_decay=0.5, scale_lr_factor=0.1)
    learned = {block.quantizer.scale_factor, block.quantizer.shift}
    (scales,) = [g for g in groups if learned <= set(g["params"])]
    assert set(scales["params"]) == learned
    assert (scales["lr_factor"], scales["weight_decay"]) == (0.1, 0.0)
    others = {p for g in groups if g is not scales for p in g["params"]}
    assert others == set(model.parameters()) - learned
    OPTIMIZERS["adamw"][1](AdamWConfig(), groups)  # an empty group of matrices is none to torch


def test_without_a_factor_of_theirs_the_groups_are_as_before():
    model = recognizer(2)
    before = parameter_groups(model, 0.3)
    model["encoder"].blocks[1].quantizer = BitActivation(bits=1, signed=True)
    assert [len(g["params"]) for g in parameter_groups(model, 0.3)] == [
        len(before[0]["params"]),
        len(before[1]["params"]) + 2,
    ]
