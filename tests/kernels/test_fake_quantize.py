"""The quantizers of every level that this processor has against the same in torch."""

import pytest
import torch

from espnet_lite.kernels import fake_quantize
from espnet_lite.quantize.quantizers import BitActivation, LsqActivation, LsqWeight

SIZES = [(1, 1, 1, 1), (2, 3, 5, 7), (1, 2, 70, 64)]  # batch, heads, time, head_dim; parts of 4,096
TYPES = (torch.float32, torch.bfloat16)


@pytest.fixture
def at_one_level(of_level, monkeypatch):
    """Let the quantizers take the C functions of one level."""
    monkeypatch.setattr(fake_quantize, "kernel", of_level)
    return of_level


def quantizers(heads: int):
    for groups in (1, heads):
        for signed in (True, False):
            for sparse in (False, True):
                quantizer = BitActivation(bits=1, signed=signed, sparse=sparse, groups=groups)
                quantizer.shift.data.uniform_(-0.3, 0.3)
                yield quantizer
            yield LsqActivation(bits=2, signed=signed, groups=groups)
            yield LsqActivation(bits=8, signed=signed, groups=groups)


def run(quantizer, x, gradient, autocast: bool):
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    quantizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        y = quantizer(x)
    y.backward(gradient.to(y.dtype))
    return y, x.grad, [parameter.grad for parameter in quantizer.parameters()]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_values_are_torchs_to_the_bit_and_gradients_but_for_their_sums(
    at_one_level, monkeypatch, size, dtype, transposed
):
    torch.manual_seed(0)
    x = torch.randn(size)
    x[..., 0] = 0.0
    if transposed:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    x, gradient = x.to(dtype), torch.randn(size)
    for quantizer in quantizers(size[1]):
        measured = x.float() if quantizer.signed else x.float().relu()
        quantizer.start(measured + 0.01)
        used = x if quantizer.signed else x.relu()
        for autocast in (False, True):
            found = run(quantizer, used, gradient, autocast)
            with monkeypatch.context() as plain:
                plain.setattr(fake_quantize, "kernel", lambda *_: None)
                expected = run(quantizer, used, gradient, autocast)
            assert torch.equal(found[0], expected[0]), quantizer
            assert found[0].dtype == (torch.bfloat16 if autocast else dtype)
            assert torch.equal(found[1], expected[1]), quantizer
            for ours, theirs in zip(found[2], expected[2], strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("in_torch", [False, True])
def test_nan_in_is_nan_out_in_both_passes(at_one_level, monkeypatch, dtype, in_torch):
    """Whatever its sign and payload, in whole vectors and in what is left behind the last one."""
    if in_torch:
        monkeypatch.setattr(fake_quantize, "kernel", lambda *_: None)
    payloads = torch.tensor([0x7FC00000, -0x400000, 0x7FFFFFFF, -1, 0x7F800001], dtype=torch.int32)
    nans = payloads.view(torch.float32)
    assert nans.isnan().all()
    places = torch.arange(0, 35, 7)
    for quantizer in quantizers(3):
        quantizer.start(torch.ones(2, 3, 5, 7))
        x = torch.full((2, 3, 5, 7), 0.25)
        x[1, 1].view(-1)[places] = nans
        for autocast in (False, True):
            y, _, of_parameters = run(quantizer, x.to(dtype), torch.ones_like(x), autocast)
            assert torch.equal(y.isnan(), x.isnan()), quantizer
            has_nan = [True] if quantizer.groups == 1 else [False, True, False]
            assert of_parameters[0].isnan().tolist() == has_nan, quantizer
            gradient = torch.where(x.isnan(), x, 1.0)
            _, of_x, _ = run(quantizer, torch.ones_like(x).to(dtype), gradient, autocast)
            assert torch.equal(of_x.isnan(), gradient.isnan()), quantizer


def test_weights_of_convolutions_and_inputs_with_gaps(at_one_level, monkeypatch):
    torch.manual_seed(0)
    for shape in ((5, 7), (4, 1, 31), (3, 2, 3, 3)):
        for granularity in ("channel", "tensor"):
            weight = torch.randn(shape)
            quantizer = LsqWeight(bits=4, granularity=granularity, channels=shape[0])
            quantizer.start(weight)
            gradient = torch.randn(shape)
            found = run(quantizer, weight, gradient, False)
            with monkeypatch.context() as plain:
                plain.setattr(fake_quantize, "kernel", lambda *_: None)
                expected = run(quantizer, weight, gradient, False)
            assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
            torch.testing.assert_close(found[2][0], expected[2][0])
    quantizer = BitActivation(bits=1, signed=True)
    quantizer.start(torch.ones(1))
    x = torch.randn(6, 8)
    assert torch.equal(quantizer(x[:, ::2]), quantizer(x)[:, ::2])
    assert quantizer(x[:0]).shape == (0, 8)


def test_several_threads_sum_as_one(at_one_level):
    torch.manual_seed(0)
    x, gradient = torch.randn(3, 2, 100, 64), torch.randn(3, 2, 100, 64)
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            quantizer = BitActivation(bits=1, signed=True, groups=2)
            quantizer.start(x)
            results.append(run(quantizer, x, gradient, False))
    finally:
        torch.set_num_threads(threads)
    for one, three in zip(results[0][2], results[1][2], strict=True):
        assert torch.equal(one, three)
