"""What "medium" matrix products cost in accuracy."""

import pytest
import torch

from espnet_lite import numerics
from espnet_lite.errors import InputError
from espnet_lite.numerics import pick_device, use_fast_matmul


@pytest.fixture
def keeps_precision():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("inner", [64, 256, 1024])
def test_fast_matmul_keeps_the_accuracy_of_fp32(keeps_precision, inner):
    use_fast_matmul(torch.device("cpu"))
    generator = torch.Generator().manual_seed(inner)
    a = torch.randn(300, inner, generator=generator)
    b = torch.randn(inner, 200, generator=generator)
    exact = a.double() @ b.double()
    error = (a @ b).double() - exact
    assert float(error.norm() / exact.norm()) <= 2e-6  # bf16 would be 3e-3
    linear = torch.nn.functional.linear(a, b.T.contiguous()).double() - exact
    assert float(linear.norm() / exact.norm()) <= 2e-6


def test_fast_matmul_is_off_where_the_processor_would_round(keeps_precision, monkeypatch):
    for rounded, precision in ((True, "highest"), (False, "medium")):
        monkeypatch.setattr(numerics, "_products_are_rounded", lambda rounded=rounded: rounded)
        use_fast_matmul(torch.device("cpu"))
        assert torch.get_float32_matmul_precision() == precision


def test_rounded_products_are_noticed(monkeypatch):
    torch.set_float32_matmul_precision("highest")
    assert not numerics._products_are_rounded()
    linear = torch.nn.functional.linear
    monkeypatch.setattr(
        torch.nn.functional, "linear", lambda x, w: linear(x.bfloat16(), w.bfloat16()).float()
    )
    assert numerics._products_are_rounded()


def test_fast_matmul_on_cuda_is_tf32_and_not_bf16(keeps_precision):
    use_fast_matmul(torch.device("cuda"))
    assert torch.get_float32_matmul_precision() == "high"


def test_device_by_name():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu0", "--device: 'gpu0' is not auto, cpu, cuda or cuda:NUMBER"),
        ("meta", "--device: 'meta' is not auto, cpu, cuda or cuda:NUMBER"),
        ("cuda:99", "--device: 'cuda:99' is not there: torch finds"),
    ],
)
def test_a_device_that_is_not_there_is_refused(name, message):
    with pytest.raises(InputError) as raised:
        pick_device(name)
    assert message in str(raised.value)
