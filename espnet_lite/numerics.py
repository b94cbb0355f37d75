"""Global numeric settings of torch, made by programs and never at import."""

import re

import torch

from espnet_lite.errors import InputError


def use_fast_matmul(device: torch.device) -> None:
    """Let fp32 matrix products take the fastest path that keeps fp32's accuracy in practice.

    On a CPU, "medium" moves them from MKL to oneDNN: twice as fast on AMD processors, with errors
    of 3e-7 to 6e-7 (tests assert it). It allows bf16 too, and on Intel processors with AMX
    that is what oneDNN computes in, with errors of 2e-3: there it stays off. On CUDA "medium" would mean bf16, so
    TF32 ("high") it is.
    """
    torch.set_float32_matmul_precision("medium" if device.type == "cpu" else "high")
    if device.type == "cpu" and _products_are_rounded():
        torch.set_float32_matmul_precision("highest")


def _products_are_rounded() -> bool:
    """Return True where a product of fp32 matrices is computed from operands rounded to bf16."""
    size, value = 256, 1 + 2.0**-12  # bf16 makes 1 of it
    product = torch.nn.functional.linear(torch.full((size, size), value), torch.ones(size, size))
    return bool((product - size * value).abs().max() > size * 2.0**-14)


def pick_precision(name: str, device: torch.device) -> str:
    """Return the precision of a training's forward pass, bf16 or fp32, for `name` or for auto.

    auto is bf16 where the processor computes in it: on a CPU without such instructions (AVX2 only)
    torch emulates them, ten times slower than fp32.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"


def pick_device(name: str = "auto", *, local_rank: int = 0) -> torch.device:
    """Return the device of that name; `auto` is CUDA where there is one, else the CPU.

    CUDA without a number is the GPU number `local_rank`, the process's number on its machine.

    Raises:
        InputError: neither a CPU nor a CUDA device, or one that this machine lacks.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,2})?", name):
        raise InputError(f"'{name}' is not auto, cpu, cuda or cuda:NUMBER", where="--device")
    device = torch.device(f"cuda:{local_rank}" if name == "cuda" else name)
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    if (device.index or 0) >= there:
        raise InputError(
            f"'{device}' is not there: torch finds {there} CUDA devices on this machine",
            where="--device",
            fix="give auto or cpu",
        )
    return device
