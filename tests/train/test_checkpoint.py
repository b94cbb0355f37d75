"""Checkpoints: all state comes back, they are whole or absent, averages are means."""

import errno
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from espnet_lite.errors import InputError
from espnet_lite.train.checkpoint import (
    average_weights,
    checkpoints,
    folder_name,
    keep_last,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
    save_weights,
)


def build(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, *, seed: int = 1) -> None:
    torch.manual_seed(seed)
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_weights_and_moments_come_back(tmp_path):
    model, optimizer = build(0)
    step(model, optimizer)
    state = {"update": 1, "best": [[float("inf"), 1]], "sums": {"loss": [0.1, 3.0]}}
    save_checkpoint(tmp_path / folder_name(1), model, optimizer, state)
    step(model, optimizer, seed=2)
    other, other_optimizer = build(1)
    assert load_checkpoint(tmp_path / folder_name(1), other, other_optimizer) == state
    step(other, other_optimizer, seed=2)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        for key, value in optimizer.state[a].items():
            assert torch.equal(value, other_optimizer.state[b][key])


def test_only_whole_checkpoints_count_and_the_newest_stay(tmp_path):
    model, optimizer = build(0)
    for update in (90, 100, 1000):
        save_checkpoint(tmp_path / folder_name(update), model, optimizer, {"update": update})
    (tmp_path / folder_name(2000)).mkdir()
    found = [
        json.loads((path / "state.json").read_text())["update"] for path in checkpoints(tmp_path)
    ]
    assert found == [90, 100, 1000]
    keep_last(tmp_path, 2)
    assert [path.name for path in checkpoints(tmp_path)] == [folder_name(100), folder_name(1000)]


def test_a_run_killed_while_it_removes_leaves_nothing_behind(tmp_path, monkeypatch):
    model, optimizer = build(0)
    for update in (1, 2):
        save_checkpoint(tmp_path / folder_name(update), model, optimizer, {"update": update})

    def kill(path):
        (path / "state.json").unlink()  # no checkpoint any more, and half of it is there
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", kill)
        with pytest.raises(KeyboardInterrupt):
            keep_last(tmp_path, 1)
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == [folder_name(2)]


def test_leftovers_of_a_killed_writer_go(tmp_path):
    (tmp_path / ".update_1.77.tmp").mkdir()
    (tmp_path / ".update_1.77.tmp" / "half").write_text("x")
    (tmp_path / ".update_1.77.old").mkdir()
    (tmp_path / ".best_1.77.tmp.safetensors").write_text("x")
    (tmp_path / "best_1.safetensors").write_text("x")
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["best_1.safetensors"]


@pytest.mark.parametrize("name", ["os.fsync", "pathlib.Path.write_bytes"])
def test_a_full_disk_is_one_line_and_the_earlier_checkpoint_stays(tmp_path, monkeypatch, name):
    model, optimizer = build(0)
    save_checkpoint(tmp_path / folder_name(1), model, optimizer, {"update": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(name, full)
    with pytest.raises(InputError) as raised:
        save_checkpoint(tmp_path / folder_name(2), model, optimizer, {"update": 2})
    assert f"{tmp_path / folder_name(2)}: cannot write: No space left" in str(raised.value)
    with pytest.raises(InputError, match=r"best_2\.safetensors: cannot write: No space left"):
        save_weights(tmp_path / "best_2.safetensors", model.state_dict())
    monkeypatch.undo()
    assert os.listdir(tmp_path) == [folder_name(1)]
    assert load_checkpoint(tmp_path / folder_name(1), *build(1)) == {"update": 1}


def test_average_is_the_mean_and_counters_are_the_first(tmp_path):
    paths = []
    for i, value in enumerate((1.0, 2.0, 4.5)):
        paths.append(tmp_path / f"{i}.safetensors")
        weights = {"w": torch.tensor([value, 1e8 + 8 * i]), "n": torch.tensor(i + 3)}
        save_file(weights, paths[-1])
    mean = average_weights(paths)
    assert mean["w"].tolist() == [2.5, 1e8 + 8] and mean["w"].dtype == torch.float32
    assert int(mean["n"]) == 3
    with pytest.raises(InputError, match=r"none\.safetensors: no such checkpoint; .*--fresh"):
        average_weights([*paths, tmp_path / "none.safetensors"])


def test_weights_that_are_views_are_saved_as_they_look(tmp_path):
    matrix = torch.arange(6.0).view(2, 3)
    save_weights(tmp_path / "w.safetensors", {"t": matrix.T})
    assert load_file(tmp_path / "w.safetensors")["t"].tolist() == [[0, 3], [1, 4], [2, 5]]
