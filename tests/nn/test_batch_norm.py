"""BatchNorm against torch's on valid frames alone, and several processes against one."""

import pytest
import torch
from torch import distributed, multiprocessing

from espnet_lite.nn.batch_norm import BatchNorm
from espnet_lite.nn.masks import valid_mask

LENGTHS = torch.tensor([6, 3, 1, 5])


def frames(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 + 2 * torch.randn(4, 6, 5, generator=generator, dtype=torch.float64)


def norms() -> tuple[BatchNorm, torch.nn.BatchNorm1d]:
    """Return ours and torch's with the same weights, in fp64."""
    ours, theirs = BatchNorm(5).double(), torch.nn.BatchNorm1d(5).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = 0.5 + torch.rand(5, generator=generator, dtype=torch.float64)
            getattr(ours, name).copy_(value)
            getattr(theirs, name).copy_(value)
    return ours, theirs


@pytest.mark.parametrize("padded", [False, True])
def test_training_equals_torchs_on_the_valid_frames(padded):
    ours, theirs = norms()
    valid = valid_mask(LENGTHS, 6) if padded else torch.ones(4, 6, dtype=torch.bool)
    x = frames().requires_grad_()
    y = frames().requires_grad_()
    out = ours(x, valid if padded else None)
    expected = theirs(y[valid])
    torch.testing.assert_close(out[valid], expected)
    weights = frames(1)
    (out * weights)[valid].sum().backward()
    (expected * weights[valid]).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    for name in ("weight", "bias"):
        torch.testing.assert_close(getattr(ours, name).grad, getattr(theirs, name).grad)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))


def test_gradients_are_those_of_differences():
    norm, valid = norms()[0], valid_mask(torch.tensor([3, 1]), 3)

    def valid_output(x, weight, bias):
        state = {"weight": weight, "bias": bias}
        return torch.func.functional_call(norm, state, (x, valid))[valid]

    x = frames()[:2, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(valid_output, (x, norm.weight, norm.bias))


def test_what_stands_in_padding_does_not_matter():
    ours, _ = norms()
    other, _ = norms()
    valid = valid_mask(LENGTHS, 6)
    x = frames()
    out = ours(x, valid)
    changed = other(x.masked_fill(~valid[..., None], 1e6), valid)
    assert torch.equal(out[valid], changed[valid])
    assert torch.equal(ours.running_var, other.running_var)


@pytest.mark.parametrize("frozen", [False, True])
def test_evaluation_and_frozen_norms_use_the_running_statistics_and_leave_them(frozen):
    ours, theirs = norms()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    if frozen:
        ours.requires_grad_(False)
    else:
        ours.eval()
    expected = theirs.eval()(frames().transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(ours(frames(), valid_mask(LENGTHS, 6)), expected)
    assert all(torch.equal(before[name], value) for name, value in ours.state_dict().items())


def test_one_frame_is_its_own_mean_and_no_frame_changes_nothing():
    ours, _ = norms()
    x = frames()[:1, :1].clone().requires_grad_()
    out = ours(x)
    torch.testing.assert_close(out[0, 0], ours.bias)
    out.sum().backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(ours.running_var).all()
    before = ours.running_mean.clone()
    nothing = ours(frames(), torch.zeros(4, 6, dtype=torch.bool))
    assert torch.isfinite(nothing).all()
    assert torch.equal(ours.running_mean, before)


def test_half_precision_is_normalized_in_fp32():
    ours = BatchNorm(5)
    x = (100 + frames()).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = ours(x.bfloat16(), valid_mask(LENGTHS, 6))
    assert out.dtype == torch.bfloat16
    expected = BatchNorm(5)(x.bfloat16().float(), valid_mask(LENGTHS, 6))
    torch.testing.assert_close(out.float(), expected, atol=1e-2, rtol=1e-2)


def _train_a_part(rank: int, size: int, folder: str) -> None:
    """Normalize every size-th utterance in a group of processes and keep what came out."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size
    )
    norm, valid = norms()[0], valid_mask(LENGTHS, 6)
    x = frames()[rank::size].clone().requires_grad_()
    out = norm(x, valid[rank::size])
    (out * frames(1)[rank::size])[valid[rank::size]].sum().backward()
    found = {"out": out, "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    found |= {"running_mean": norm.running_mean, "running_var": norm.running_var}
    torch.save({name: value.detach() for name, value in found.items()}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow  # two processes import torch
def test_several_processes_are_one(tmp_path):
    """Statistics, output and gradients are those of one process that has all utterances."""
    multiprocessing.spawn(_train_a_part, (2, str(tmp_path)), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    norm, valid = norms()[0], valid_mask(LENGTHS, 6)
    x = frames().requires_grad_()
    out = norm(x, valid)
    (out * frames(1))[valid].sum().backward()
    for rank, part in enumerate(parts):
        own = valid[rank::2]
        torch.testing.assert_close(part["out"][own], out.detach()[rank::2][own])
        torch.testing.assert_close(part["x"], x.grad[rank::2])
        torch.testing.assert_close(part["running_mean"], norm.running_mean)
        torch.testing.assert_close(part["running_var"], norm.running_var)
    for name, parameter in (("weight", norm.weight), ("bias", norm.bias)):
        # Each has the sum over its own frames; the exchange of gradients adds them up.
        torch.testing.assert_close(parts[0][name] + parts[1][name], parameter.grad)
