"""The loop: goes on to the bit after every kind of end, and takes exactly the steps it should."""

import itertools
import json
import math
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from espnet_lite.errors import InputError
from espnet_lite.quantize.calibration import start_activations
from espnet_lite.quantize.policy import Rule, quantize_modules
from espnet_lite.train.distributed import Processes, joined_processes
from espnet_lite.train.trainer import STOP_SIGNALS, Trainer

MEASURED = ("minutes", "core_minutes", "audio_seconds_per_second", "data_wait_percent")


class Killed(BaseException):
    """Stands for a process that ends between two instructions."""


def entries(trainer: Trainer) -> list[dict]:
    """Return train.jsonl without what a clock measured."""
    lines = (trainer.folder / "train.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if k not in MEASURED} for x in lines]


def end_in_update(trainer: Trainer, update: int, action) -> None:
    """Call `action` while the model works on `update`, counted over the training."""

    def hook(*_):
        if trainer.model.training and trainer.state.update == update - 1:
            action()

    trainer.model.register_forward_pre_hook(hook)


def kill():
    raise Killed


def stop_signal(number: int):
    return lambda: os.kill(os.getpid(), number)


def assert_same(first: Trainer, second: Trainer) -> None:
    """Check that weights, averages, logs and counters of two trainings agree to the bit."""
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    averages = [load_file(t.folder / "model.safetensors") for t in (first, second)]
    assert averages[0].keys() == averages[1].keys()
    assert all(torch.equal(averages[0][name], averages[1][name]) for name in averages[0])
    assert entries(first) == entries(second)
    for key in ("update", "epoch", "position", "audio_seconds", "best", "since_best"):
        assert getattr(first.state, key) == getattr(second.state, key)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_killed_training_goes_on_to_the_bit(make_trainer, make_model, precision, accumulate):
    options = {"precision": precision, "accumulate": accumulate, "updates": 7}
    straight = make_trainer("straight", **options)
    assert straight.run()
    killed = make_trainer("resumed", **options)
    end_in_update(killed, 6, kill)  # saved after 3, logged after 4
    with pytest.raises(Killed):
        killed.run()
    assert [entry["update"] for entry in entries(killed)] == [2, 3, 4]
    torch.manual_seed(99)  # a new process knows nothing of the old one
    resumed = make_trainer("resumed", model=make_model(seed=42), **options)
    assert resumed.run()
    assert_same(straight, resumed)
    assert straight.state.epoch >= 1  # the epoch's end is crossed as well


def test_a_training_that_is_done_leaves_its_model_as_it_is(make_trainer):
    done = make_trainer("done")
    assert done.run()
    path = done.folder / "model.safetensors"
    written = path.stat().st_mtime_ns
    assert make_trainer("done").run() and path.stat().st_mtime_ns == written
    path.unlink()
    assert make_trainer("done").run() and path.is_file()


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_saves_and_the_next_run_goes_on(make_trainer, make_model, capsys, number):
    straight = make_trainer("straight")
    assert straight.run()
    before = signal.getsignal(number)
    stopped = make_trainer("stopped")
    end_in_update(stopped, 4, stop_signal(number))
    assert stopped.run() is False
    assert signal.getsignal(number) == before
    assert stopped.state.update == 4  # the update is finished, then saved
    assert not (stopped.folder / "model.safetensors").exists()
    assert f"stopped by signal {int(number)} after update 4, saved" in capsys.readouterr().err
    resumed = make_trainer("stopped", model=make_model(seed=42))
    assert resumed.run()
    assert_same(straight, resumed)


def test_a_second_ctrl_c_ends_at_once(make_trainer):
    before = signal.getsignal(signal.SIGINT)
    trainer = make_trainer()

    def press_twice():
        stop_signal(signal.SIGINT)()
        stop_signal(signal.SIGINT)()

    end_in_update(trainer, 4, press_twice)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert trainer.state.update == 3
    assert signal.getsignal(signal.SIGINT) == before


def test_a_finished_training_stays_as_it_is_and_may_grow(make_trainer, make_model):
    done = make_trainer()
    assert done.run()
    again = make_trainer(model=make_model(seed=42))
    assert again.run()
    assert_same(done, again)
    longer = make_trainer(model=make_model(seed=42), updates=9)
    assert longer.run()
    assert [entry["update"] for entry in entries(longer)] == [2, 3, 4, 6, 6, 8, 9]


def test_parts_of_a_batch_make_the_step_of_the_whole(make_trainer, make_model, make_loader):
    """Counted by utterances: the mean is over all four, not of two means."""
    gradients, losses = [], []
    for name, seconds in [("whole", 10.0), ("parts", 1.0)]:
        loader = make_loader(range(4), seconds=seconds, shuffle=False)
        sizes = [len(batch.ids) for batch in loader.batches(0)]
        assert sizes == ([4] if name == "whole" else [1, 3]), sizes
        trainer = make_trainer(
            name,
            model=make_model(dropout=0.0, masks=0),
            train_loader=loader,
            accumulate=len(sizes),
            updates=1,
            log_every=1,
        )
        trainer.optimizer.register_step_pre_hook(
            lambda *_, trainer=trainer: gradients.append(
                [p.grad.clone() for p in trainer.parameters]
            )
        )
        trainer.run()
        line = entries(trainer)[0]
        losses.append((line["loss"], line["gradient_norm"]))
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts, atol=1e-6, rtol=0)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_one_step_is_adamws_on_the_mean_clipped_gradient(make_trainer, make_model, make_loader):
    options = {"updates": 1, "clip": 0.01, "optimizer": {"name": "adamw", "lr": 0.03}}
    loader = make_loader(range(4), shuffle=False, seconds=10.0)
    trainer = make_trainer(model=make_model(dropout=0.0, masks=0), train_loader=loader, **options)
    model = make_model(dropout=0.0, masks=0)
    batch = next(iter(loader.batches(0)))
    (model(batch).total / 4).backward()
    norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters()))
    trainer.run()
    learning_rate = 0.03 * 1 / 2  # first of two updates of warm-up
    for ours, start in zip(trainer.model.parameters(), model.parameters(), strict=True):
        gradient = start.grad.double() * min(1.0, 0.01 / norm)
        decay = 0.01 if start.ndim > 1 else 0.0
        # Adam's first step: both moments, corrected for their start, are those of the gradient.
        expected = start.double() * (1 - learning_rate * decay)
        expected -= learning_rate * gradient / (gradient.abs() + 1e-8)
        reliable = gradient.abs() > 1e-6
        torch.testing.assert_close(
            ours.double()[reliable], expected[reliable], atol=2e-6, rtol=1e-5
        )


def test_a_loss_that_is_not_finite_names_the_utterances_before_the_step(make_trainer):
    trainer = make_trainer()

    def poison(module, _, loss):
        if module.training and trainer.state.update == 4:
            loss.total = loss.total * float("nan")
            trainer.seen = {k: v.clone() for k, v in module.state_dict().items()}
        return loss

    trainer.model.register_forward_hook(poison)
    batches = [b.ids for epoch in range(3) for b in trainer.train_loader.batches(epoch)]
    with pytest.raises(InputError) as raised:
        trainer.run()
    text = str(raised.value)
    assert "before update 5" in text and "nan" in text and str(trainer.folder) in text
    assert f"utterances {', '.join(batches[4])}" in text
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, trainer.seen[name])
    folder = trainer.folder / "checkpoints"
    assert [path.name for path in sorted(folder.glob("update_*"))] == ["update_00000003"]
    straight = make_trainer("straight")
    assert straight.run()
    resumed = make_trainer()
    assert resumed.run()
    assert_same(straight, resumed)


def test_an_infinite_loss_stops_too_though_its_gradient_is_finite(make_trainer):
    trainer = make_trainer()

    def poison(module, _, loss):
        loss.total = loss.total + float("inf")
        return loss

    trainer.model.register_forward_hook(poison)
    with pytest.raises(InputError, match="before update 1"):
        trainer.run()


@pytest.mark.parametrize("bits", [None, (1, 8), (1.58, 8), (4, 8), (4, 4), (1, 1)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named_and_no_utterance(
    make_trainer, make_model, bits, value
):
    model = make_model()
    model.eval()
    if bits is not None:
        rule = Rule(("feed_forward",), weight_bits=bits[0], activation_bits=bits[1])
        quantize_modules(model, [rule], where="x.yaml")
        noise = torch.randn(2, 8000)
        start_activations(model, lambda: model.encode(noise, torch.tensor([8000, 8000])))
    with torch.no_grad():
        model.encoder.blocks[0].feed_forward.contract.weight[1, 2] = value
        if bits in ((4, 8), (4, 4)) and value == math.inf:  # a learned step size clips that
            model.encoder.blocks[0].feed_forward.contract.bias[0] = value
    trainer = make_trainer(model=model)
    with pytest.raises(InputError) as raised:
        trainer.run()
    text = str(raised.value)
    module = "encoder.blocks.0.feed_forward.contract"
    assert f"before update 1: weights of {module} are not finite;" in text
    assert str(trainer.folder) in text and "utt0" not in text and trainer.state.update == 0


def test_an_update_that_counts_nothing_names_the_utterances(make_trainer):
    trainer = make_trainer(accumulate=2)

    def nothing(module, _, loss):
        if module.training and trainer.state.update == 1:
            loss.total, loss.count = loss.total * 0.0, 0
        return loss

    trainer.model.register_forward_hook(nothing)
    ids = [name for batch in itertools.islice(trainer._stream(), 2, 4) for name in batch.ids]
    with pytest.raises(InputError) as raised:
        trainer.run()
    text = str(raised.value)
    assert (
        f"no frame or utterance to learn from before update 2, in the batch of utterances {', '.join(ids)};"
        in text
    )
    assert "data.min_seconds" in text and trainer.state.update == 1


def test_a_batch_that_counts_nothing_adds_nothing_to_its_update(make_trainer):
    """Of two batches of an update the second counts: the step is that of the second alone."""
    trainer = make_trainer(accumulate=2, updates=1, log_every=1)
    calls = []

    def nothing(module, _, loss):
        if module.training:
            calls.append((float(loss.total.detach()), loss.count))
            if len(calls) == 1:
                loss.total, loss.count = loss.total * 0.0, 0
        return loss

    trainer.model.register_forward_hook(nothing)
    norms = []
    update = trainer._update
    trainer._update = lambda stream: norms.append(update(stream)) or norms[-1]
    gradients = []
    trainer.optimizer.register_step_pre_hook(
        lambda *_: gradients.extend(p.grad.clone() for p in trainer.parameters)
    )
    trainer.run()
    other = make_trainer("other")
    batch = list(itertools.islice(other._stream(), 2))[1]
    other.model.train()
    torch.manual_seed(batch.seed ^ 0x5D0)
    (other.model(batch).total / len(batch.ids)).backward()
    expected = [p.grad for p in other.parameters]
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in expected))
    assert norms == pytest.approx([norm], rel=1e-5)
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs * min(1.0, 5.0 / norm), atol=1e-5, rtol=1e-4)


def test_the_model_is_the_mean_of_the_best_checkpoints(make_trainer):
    trainer = make_trainer(updates=8, validate_every=2, average_best=3)
    kept = {}
    evaluate = trainer.evaluate

    def remember():
        metrics = evaluate()
        kept[trainer.state.update] = (
            metrics["loss"],
            {name: value.clone() for name, value in trainer.model.state_dict().items()},
        )
        return metrics

    trainer.evaluate = remember
    trainer.run()
    best = sorted(kept, key=lambda update: kept[update][0])[:3]
    assert [update for _, update in trainer.state.best] == best
    averaged = load_file(trainer.folder / "model.safetensors")
    for name, value in averaged.items():
        mean = sum(kept[update][1][name].double() for update in best) / 3
        torch.testing.assert_close(value.double(), mean, atol=1e-7, rtol=1e-6)
    files = sorted(path.name for path in (trainer.folder / "checkpoints").glob("best_*"))
    assert files == sorted(f"best_{update:08d}.safetensors" for update in best)


def test_patience_ends_a_training_that_gets_no_better(make_trainer):
    trainer = make_trainer(updates=50, validate_every=1, save_every=50, patience=2)
    losses = iter([3.0, 2.0, 2.5, 2.0, 1.0])
    trainer.evaluate = lambda: {"loss": next(losses)}
    assert trainer.run()
    assert trainer.state.update == 4  # the second validation in a row without a new best
    assert [value for value, _ in trainer.state.best] == [2.0, 2.0]
    assert (trainer.folder / "checkpoints" / "update_00000004").is_dir()
    again = make_trainer(updates=50, validate_every=1, save_every=50, patience=2)
    assert again.run() and again.state.update == 4


def test_an_unknown_criterion_names_the_metrics(make_trainer):
    trainer = make_trainer(criterion="wer")
    for look in (trainer.check_criterion, trainer.run):  # before the training, and at a validation
        with pytest.raises(InputError) as raised:
            look()
        assert "train.criterion: 'wer' is not a metric" in str(raised.value)
        assert "ctc_error, loss, loss_ctc" in str(raised.value)


def test_looking_at_the_criterion_leaves_the_training_as_it_is(make_trainer):
    plain, looked = make_trainer("plain"), make_trainer("looked")
    torch.manual_seed(7)
    assert plain.run()
    torch.manual_seed(7)
    looked.check_criterion()
    assert looked.model.training and looked.run()
    assert_same(plain, looked)


def test_a_nan_on_the_dev_set_is_never_the_best(make_trainer):
    trainer = make_trainer(validate_every=2)
    losses = iter([float("nan"), 5.0, 4.0])
    trainer.evaluate = lambda: {"loss": next(losses)}
    trainer.run()
    assert trainer.state.best == [[4.0, 6], [5.0, 4]]


def test_log_lines_hold_the_mean_since_the_last(make_trainer):
    trainer = make_trainer(updates=4, accumulate=2)
    seen = []
    trainer.model.register_forward_hook(
        lambda module, _, loss: (
            seen.append((float(loss.total.detach()), loss.count)) if module.training else None
        )
    )
    trainer.run()
    lines = [entry for entry in entries(trainer) if entry["kind"] == "train"]
    assert [line["update"] for line in lines] == [2, 4]
    for line, part in zip(lines, (seen[:4], seen[4:]), strict=True):
        expected = sum(loss for loss, _ in part) / sum(count for _, count in part)
        assert line["loss"] == pytest.approx(expected, rel=1e-5)
    assert lines[0]["lr"] == 0.01  # the end of the warm-up


def test_training_lowers_the_loss(make_trainer, make_model):
    trainer = make_trainer(
        updates=40, validate_every=20, save_every=40, model=make_model(dropout=0.0, masks=0)
    )
    start = trainer.evaluate()["loss"]
    trainer.run()
    assert trainer.evaluate()["loss"] < 0.5 * start


@pytest.mark.parametrize("size", [1, 2, 3])
def test_processes_share_the_batches_of_every_update(make_trainer, size):
    """Over epochs whose batches do not divide evenly, and from wherever the training resumes."""
    update, updates = 6, 5
    alone = make_trainer("alone", accumulate=update)
    wanted = [batch.ids for batch in itertools.islice(alone._stream(), update * updates)]
    for resumed_after in range(updates):
        shared = [[] for _ in range(size)]
        for rank in range(size):
            processes = Processes(rank=rank, size=size)
            trainer = make_trainer(f"rank{rank}", accumulate=update, processes=processes)
            for _ in range(resumed_after):
                trainer._advance()
            count = (updates - resumed_after) * update // size
            shared[rank] = [batch.ids for batch in itertools.islice(trainer._stream(), count)]
        in_turn = [ids for turn in zip(*shared, strict=True) for ids in turn]
        assert in_turn == wanted[resumed_after * update :]


def test_an_update_that_cannot_be_shared_is_refused(make_trainer):
    with pytest.raises(InputError) as raised:
        make_trainer(accumulate=3, processes=Processes(rank=0, size=2))
    assert str(raised.value).startswith(
        "train.accumulate: 3 batches per update cannot be shared by 2 processes"
    )


def test_half_of_torchruns_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")  # as a batch system may leave it
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(InputError, match="WORLD_SIZE is 4, but LOCAL_RANK"):
        joined_processes().__enter__()
