"""Shares of parameters in a group of one process; tests/bin/test_run_processes.py has two."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed
from torch.distributed.tensor import DTensor

from espnet_lite.bin import merge_checkpoint
from espnet_lite.encoders.families import ENCODERS
from espnet_lite.errors import InputError
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.train.checkpoint import (
    checkpoints,
    folder_name,
    is_sharded,
    load_checkpoint,
    save_checkpoint,
)
from espnet_lite.train.distributed import ALONE
from espnet_lite.train.sharded_checkpoint import load_sharded, save_sharded
from espnet_lite.train.sharding import held_whole, local, shard, whole_weights

CPU = torch.device("cpu")
SMALL = {  # beside sizes
    "conformer": {"kernel": 3},
    "squeezeformer": {"kernel": 3, "reduce_after": 1, "recover_after": 2},
    "hubert_base": {"position_kernel": 4, "position_groups": 2},
    "hubert_large": {"position_kernel": 4, "position_groups": 2},
}


@pytest.fixture
def group():
    """This process as all processes of a group."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture
def batch(make_loader):
    loader = make_loader()
    batches = loader.batches(0)
    yield next(batches)
    batches.close()


def step(model, optimizer, batch) -> float:
    torch.manual_seed(1)
    loss = model(batch).total
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def adamw(model) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_trains_the_same(name, group, batch, tokenizer):
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        sizes = {"dim": 16, "layers": 3, "heads": 2, "feed_forward": 16, **SMALL.get(name, {})}
        encoder = ENCODERS[name][0](**sizes)
        models.append(AsrModel(AsrConfig(encoder=encoder), vocab=tokenizer.vocab))
    plain, ours = models
    names = [key for key, _ in plain.named_parameters()]
    shard(ours, CPU)
    assert [key for key, _ in ours.named_parameters()] == names
    assert all(isinstance(p, DTensor) for p in ours.parameters())
    optimizers = [adamw(model) for model in models]
    for _ in range(3):
        losses = [step(*pair, batch) for pair in zip(models, optimizers, strict=True)]
        assert losses[0] == losses[1]
    for key, value in whole_weights(ours, keep=True).items():
        assert torch.equal(value, plain.state_dict()[key]), key
    assert whole_weights(ours, keep=False) == {}


def test_models_may_be_called_as_often_as_each_likes_while_held_whole(group, batch, make_model):
    plain, ours = make_model(), make_model()
    shard(ours, CPU)
    step(ours, adamw(ours), batch)
    step(plain, adamw(plain), batch)
    for model in (plain, ours):
        model.eval()
    with held_whole(ours), held_whole(plain), torch.no_grad():
        assert not any(isinstance(p, DTensor) for p in ours.parameters())
        for _ in range(2):
            assert torch.equal(ours(batch).total, plain(batch).total)
    assert all(isinstance(p, DTensor) for p in ours.parameters())


@pytest.fixture
def saved(group, batch, make_model, tmp_path):
    """Return a sharded model, its optimizer and the folder with its checkpoint."""
    model = make_model()
    shard(model, CPU)
    optimizer = adamw(model)
    step(model, optimizer, batch)
    folder = tmp_path / folder_name(1)
    save_sharded(folder, model, optimizer, {"update": 1, "sums": {"loss": [0.1, 3.0]}}, ALONE)
    return model, optimizer, folder


def test_shares_come_back_sharded_or_not(saved, batch, make_model):
    model, optimizer, folder = saved
    assert is_sharded(folder) and checkpoints(folder.parent) == [folder]
    plain, sharded = make_model(seed=1), make_model(seed=2)
    shard(sharded, CPU)
    for other in (plain, sharded):
        others = adamw(other)
        assert load_sharded(folder, other, others) == {"update": 1, "sums": {"loss": [0.1, 3.0]}}
        for a, b in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(local(a), local(b))
            assert optimizer.state[a].keys() == others.state[b].keys()
            for key, value in optimizer.state[a].items():
                assert torch.equal(local(value), local(others.state[b][key])), key
    assert step(plain, adamw(plain), batch) == step(sharded, adamw(sharded), batch)


def test_a_checkpoint_of_one_process_is_read_into_shares(group, batch, make_model, tmp_path):
    plain, sharded = make_model(), make_model(seed=1)
    optimizer = adamw(plain)
    step(plain, optimizer, batch)
    save_checkpoint(tmp_path / folder_name(1), plain, optimizer, {"update": 1})
    shard(sharded, CPU)
    others = adamw(sharded)
    assert load_sharded(tmp_path / folder_name(1), sharded, others) == {"update": 1}
    assert step(plain, optimizer, batch) == step(sharded, others, batch)
    for key, value in whole_weights(sharded, keep=True).items():
        assert torch.equal(value, plain.state_dict()[key]), key


def test_one_file_of_the_weights(saved, tmp_path, capsys):
    model, _, folder = saved
    out = tmp_path / "one.safetensors"
    words = ["--checkpoint", str(folder), "--output", str(out)]
    assert merge_checkpoint.main(words) == 0
    weights = whole_weights(model, keep=True)
    merged = load_file(out)
    assert merged.keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in merged.items())
    assert f"{out}: {len(weights)} tensors, " in capsys.readouterr().out


def test_what_is_missing_or_damaged_is_told_in_a_line(saved, make_model, tmp_path, capsys):
    model, optimizer, folder = saved
    words = ["--checkpoint", str(folder), "--output", str(tmp_path / "one.safetensors")]
    [path] = folder.glob("shard-*")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"update_00000001: cannot be read: .*; rm -r .*and run"):
        load_sharded(folder, model, optimizer)
    assert merge_checkpoint.main(words) == 2
    path.write_bytes(whole)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "shards": 2}))
    with pytest.raises(InputError, match="update_00000001: 1 shards, expected 2; rm -r"):
        load_sharded(folder, model, optimizer)
    assert merge_checkpoint.main(words) == 2
    assert not (tmp_path / "one.safetensors").exists()
    shutil.rmtree(folder)
    assert merge_checkpoint.main(words) == 2
    assert "update_00000001: not a sharded checkpoint" in capsys.readouterr().err


def test_a_full_disk_is_a_line_and_the_earlier_checkpoint_stays(saved, monkeypatch, make_model):
    model, optimizer, folder = saved

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(InputError, match="update_00000002: cannot write: No space left"):
            save_sharded(folder.with_name(folder_name(2)), model, optimizer, {}, ALONE)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert load_sharded(folder, model, optimizer)["update"] == 1


def test_a_checkpoint_of_one_process_has_no_shares(make_model, tmp_path, batch):
    model = make_model()
    optimizer = adamw(model)
    step(model, optimizer, batch)
    save_checkpoint(tmp_path / folder_name(1), model, optimizer, {"update": 1})
    assert not is_sharded(tmp_path / folder_name(1))
    assert load_checkpoint(tmp_path / folder_name(1), model, optimizer) == {"update": 1}
