"""Frozen parts: as if their gradient were taken away by hand, through every end and with processes."""

import json
import math
import multiprocessing
import os
import socket

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from espnet_lite.errors import InputError
from espnet_lite.train.distributed import joined_processes
from espnet_lite.train.freezing import parameters_of

PARTS = ["front_end", "encoder.blocks.0.attention"]


def is_frozen(name: str) -> bool:
    return name.startswith(("front_end.", "encoder.blocks.0.attention."))


def losses(trainer) -> list[tuple]:
    lines = (trainer.folder / "train.jsonl").read_text().splitlines()
    return [(e["kind"], e["update"], e["loss"]) for e in map(json.loads, lines)]


def names(model: nn.Module, parameters) -> list[str]:
    by_parameter = {parameter: name for name, parameter in model.named_parameters()}
    return [by_parameter[parameter] for parameter in parameters]


def test_a_part_is_a_child_a_deeper_module_or_a_parameter(make_model):
    model = make_model()
    found = names(model, parameters_of(model, ["ctc_head.bias", "encoder.norm"], where=""))
    assert found == ["encoder.norm.weight", "encoder.norm.bias", "ctc_head.bias"]
    overlapping = parameters_of(model, ["encoder", "encoder.blocks.0"], where="")
    assert len(overlapping) == len(list(model.encoder.parameters()))
    assert parameters_of(model, [], where="") == []


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("encodr", "'encodr' (did you mean 'encoder'?), expected one of: ctc_head, encoder, front"),
        (
            "enc",
            "'enc' (did you mean 'encoder'?), expected one of: ctc_head, encoder, front_end",
        ),  # no part of a name
        ("encoder.block", "(did you mean 'encoder.blocks'?), expected one of: encoder.blocks, enc"),
        ("encoder.blocks.1", "expected one of: encoder.blocks.0"),
        ("ctc_head.bias.x", "expected one of: ctc_head.bias, ctc_head.weight"),
        ("", "unknown part of the model '', expected one of: ctc_head, encoder, front_end"),
    ],
)
def test_an_unknown_part_lists_what_stands_there(make_trainer, part, message):
    for options in ({"freeze_parts": [part]}, {"frozen_parts": ["ctc_head", part]}):
        with pytest.raises(InputError) as raised:
            make_trainer(**options)
        [key] = options
        assert message in str(raised.value) and str(raised.value).startswith(f"train.{key}: ")


def test_a_training_of_nothing_is_refused(make_trainer):
    every = ["front_end", "encoder", "ctc_head"]
    with pytest.raises(InputError, match=r"train\.frozen_parts: nothing of the model is left"):
        make_trainer(frozen_parts=every)
    with pytest.raises(InputError, match=r"train\.freeze_parts: nothing of the model is left"):
        make_trainer(freeze_parts=every[:2], freeze_updates=2, frozen_parts=every[2:])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_is_as_if_the_gradient_were_taken_away(make_trainer, accumulate):
    """Two updates without that gradient; weights, averages and losses to rounding."""
    options = {"accumulate": accumulate, "clip": math.inf, "log_every": 1}
    ours = make_trainer("ours", freeze_parts=PARTS, freeze_updates=2, **options)
    by_hand = make_trainer("by_hand", **options)

    def take_away(*_):
        if by_hand.state.update <= 2:
            for name, parameter in by_hand.model.named_parameters():
                if is_frozen(name):
                    parameter.grad = None

    by_hand.optimizer.register_step_pre_hook(take_away)
    start = {name: value.clone() for name, value in ours.model.named_parameters()}
    seen = {}

    def look(*_):
        seen[ours.state.update] = {
            name: (value.detach().clone(), value.grad is not None)
            for name, value in ours.model.named_parameters()
        }

    ours.optimizer.register_step_pre_hook(look)
    assert ours.run() and by_hand.run()
    for update in range(1, 7):
        for name, (value, has_gradient) in seen[update].items():
            frozen = is_frozen(name)
            assert has_gradient == (not frozen or update > 2), (update, name)
            unchanged = update == 1 or (frozen and update <= 3)  # before the step of `update`
            assert torch.equal(value, start[name]) == unchanged, (update, name)
    for a, b in zip(ours.model.parameters(), by_hand.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
        assert ours.optimizer.state[a]["step"] == by_hand.optimizer.state[b]["step"]
    first, second = losses(ours), losses(by_hand)
    assert [x[:2] for x in first] == [x[:2] for x in second]
    assert [x[2] for x in first] == pytest.approx([x[2] for x in second], rel=1e-5)


def test_no_backward_pass_goes_through_a_frozen_front_end(make_trainer):
    trainer = make_trainer(freeze_parts=["front_end"], freeze_updates=2, updates=3)
    seen = []
    trainer.model.front_end.register_forward_hook(
        lambda module, _, output: seen.append(output[0].requires_grad) if module.training else None
    )
    trainer.run()
    assert seen == [False, False, True]


def test_what_is_never_trained_has_no_place_in_the_optimizer(make_trainer):
    trainer = make_trainer(frozen_parts=["front_end"], freeze_parts=PARTS, freeze_updates=2)
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    held = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    assert sorted(names(trainer.model, held)) == sorted(
        name for name, _ in trainer.model.named_parameters() if not name.startswith("front_end.")
    )
    assert trainer.run()
    for name, value in trainer.model.named_parameters():
        assert torch.equal(value, start[name]) == name.startswith("front_end."), name
    saved = load_file(trainer.folder / "checkpoints/update_00000006/optimizer.safetensors")
    assert saved and not any(key.startswith("front_end.") for key in saved)
    assert float(saved["encoder.blocks.0.attention.query.weight|step"]) == 4  # of 6 updates


@pytest.mark.parametrize("thaw_after", [2, 3, 4, 7])  # before, at and after the checkpoint; never
def test_a_killed_training_goes_on_to_the_bit(make_trainer, make_model, thaw_after):
    options = {"freeze_parts": PARTS, "freeze_updates": thaw_after, "accumulate": 2}
    straight = make_trainer("straight", **options)
    assert straight.run()
    killed = make_trainer("resumed", **options)

    def kill(*_):
        if killed.model.training and killed.state.update == 4:
            raise KeyboardInterrupt

    killed.model.register_forward_pre_hook(kill)
    with pytest.raises(KeyboardInterrupt):
        killed.run()  # saved after 3
    resumed = make_trainer("resumed", model=make_model(seed=42), **options)
    order = [
        [name for g in t.optimizer.param_groups for name in names(t.model, g["params"])]
        for t in (straight, resumed)
    ]
    assert order[0] == order[1]
    assert resumed.run()
    assert losses(resumed) == losses(straight)
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
        first, second = straight.optimizer.state[a], resumed.optimizer.state[b]
        assert first.keys() == second.keys() and bool(first) == (a.requires_grad)
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_frozen_for_no_update_is_trained_from_the_first(make_trainer):
    plain = make_trainer("plain")
    frozen = make_trainer("frozen", freeze_parts=PARTS, freeze_updates=0)
    assert plain.run() and frozen.run()
    assert losses(plain) == losses(frozen)


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("localhost", 0))
        return held.getsockname()[1]


@pytest.mark.slow
def test_two_processes_thaw_together(make_trainer):
    """The gradient of what was frozen is exchanged after the thaw: both train what one trains."""
    options = {"freeze_parts": PARTS, "freeze_updates": 2, "accumulate": 2, "log_every": 1}
    alone = make_trainer("alone", **options)
    assert alone.run()
    port = str(free_port())

    def train(rank: int, results) -> None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
        os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=port)
        torch.set_num_threads(1)
        with joined_processes() as processes:
            trainer = make_trainer("two", processes=processes, **options)
            trainer.run()
            weights = {k: v.numpy() for k, v in trainer.model.state_dict().items()}
            results.put((rank, weights))

    context = multiprocessing.get_context("fork")  # it has the fixtures
    results = context.Queue()
    workers = [context.Process(target=train, args=(rank, results)) for rank in range(2)]
    for worker in workers:
        worker.start()
    found = dict(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    for name, value in alone.model.state_dict().items():
        assert (found[0][name] == found[1][name]).all(), name  # in step with each other to the bit
        torch.testing.assert_close(torch.from_numpy(found[0][name]), value, atol=2e-5, rtol=1e-4)
