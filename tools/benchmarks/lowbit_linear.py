#!/usr/bin/env python
"""Linears of few bits against torch and ONNX Runtime, quantization of the input included.

    python tools/benchmarks/lowbit_linear.py [--threads 1 2] [--level vnni] [--avx2] [--statistic median]

Shapes are those of encoders of 768 and 256 channels for 15 s of speech. Ours quantize fp32 input and return
fp32; `_int_mm` gets integers and returns integers. Peers: torch's fp32 in default precision ("highest") and in
"medium" (bf16 products on a processor with AMX), bf16 with its input converted before; ONNX Runtime's
fp32, DynamicQuantizeMatMul (int8) and MatMulNBits (4 and 2 bits), where onnxruntime and onnx can be imported:
give the Python of tools/setup_peers.sh, or of any venv with torch and both. Every round runs all sides
one after the other, so that a disturbance meets all; the statistic of the rounds, in ms, and how many times
as long torch's default takes.

--level computes ours at a lower level of instructions; --avx2 restricts torch too (oneDNN, ATen, MKL; ONNX
Runtime cannot be and is left out).

Goals, on a processor with AVX-512 VNNI and VPOPCNTDQ: W1A8 and W2A8 9 times default, 4 times "medium", 1.1
times ONNX Runtime's int8; W1A1 40 and 18 times at 768 inputs, 20 times default at 256. With AVX2: 1.5
times torch restricted as well.
"""

import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors

SHAPES = [
    *((750, 768, 3072), (375, 768, 3072), (750, 768, 768)),
    *((375, 768, 768), (750, 256, 1024), (375, 256, 1024)),
]
ONLY_AVX2 = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ESPNET_LITE_KERNELS": "avx2",
}
BLOCK = 64  # inputs that share a scale in MatMulNBits
BASE = "torch fp32"
SETTLE_SECONDS = 0.01  # threads of the side before wait for more work, spinning, a while


def our_sides(x, outputs: int) -> dict[str, Callable]:
    """Return name → call of our Linears."""
    import torch

    from espnet_lite.kernels.activation_codes import ActivationCodes
    from espnet_lite.kernels.lowbit_linear import WEIGHTS, LowBitLinear

    absmax, sign = ActivationCodes("absmax"), ActivationCodes("sign", 0.8, offset=0.05)
    two_bits = ActivationCodes("lsq", 0.5, low=-2, high=1)
    sides = {}
    for name, bits, codes in (
        ("W8A8", 8, absmax),
        ("W4A8", 4, absmax),
        ("W2A8", 2, absmax),
        ("W1.58A8", 1.58, absmax),
        ("W1A8", 1, absmax),
        ("W1A2", 1, two_bits),
        ("W1A1", 1, sign),
    ):
        low = WEIGHTS[bits][0]
        high = 1 if bits < 2 else -low - 1
        weight = torch.randint(low, high + 1, (outputs, x.size(1)))
        linear = LowBitLinear(
            torch.where(weight < 0, -1, 1) if bits == 1 else weight,
            weight_bits=bits,
            weight_scale=torch.rand(outputs),
            bias=torch.randn(outputs),
            codes=codes,
        )
        expected, found = linear.reference(x[:5]), linear(x[:5])
        if not torch.allclose(found, expected, rtol=1e-4, atol=1e-4):
            raise AssertionError(f"{name}: {(found - expected).abs().max()} from the reference")
        sides[f"{name}"] = lambda linear=linear: linear(x)
    return sides


def torch_sides(x, outputs: int) -> dict[str, Callable]:
    """Return name → call of torch's Linears."""
    import torch
    from torch.nn.functional import linear

    weight, bias = torch.randn(outputs, x.size(1)), torch.randn(outputs)

    def in_precision(precision: str) -> Callable:
        def call():
            torch.set_float32_matmul_precision(precision)
            return linear(x, weight, bias)

        return call

    half = [each.bfloat16() for each in (x, weight, bias)]
    codes = (20 * x).clamp(-127, 127).to(torch.int8)
    weight_codes = (40 * weight).clamp(-127, 127).to(torch.int8).T
    return {
        BASE: in_precision("highest"),
        'torch "medium"': in_precision("medium"),
        "torch bf16": lambda: linear(*half),
        "_int_mm": lambda: torch._int_mm(codes, weight_codes),
    }


def onnx_sides(x, outputs: int, *, threads: int) -> dict[str, Callable]:
    """Return name → call of ONNX Runtime's products; none where it is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("onnxruntime", "onnx")):
        return {}
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rows, inputs = x.shape
    rng = np.random.default_rng(0)

    def session(kind: str, domain: str, constants: dict, **attributes) -> Callable:
        node = helper.make_node(kind, ["x", *constants], ["y"], domain=domain, **attributes)
        graph = helper.make_graph(
            [node],
            "linear",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, inputs])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, outputs])],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        made = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        given = {"x": x.numpy()}
        return lambda: made.run(None, given)

    weight = rng.standard_normal((inputs, outputs), dtype=np.float32)
    sides = {
        "ORT fp32": session("MatMul", "", {"weight": weight}),
        "ORT int8": session(
            "DynamicQuantizeMatMul",
            "com.microsoft",
            {
                "weight": rng.integers(-127, 128, (inputs, outputs), dtype=np.int8),
                "scale": rng.random(outputs, dtype=np.float32),
            },
        ),
    }
    for bits in (4, 2):
        blocks = inputs // BLOCK
        constants = {
            "weight": rng.integers(0, 256, (outputs, blocks, BLOCK * bits // 8), dtype=np.uint8),
            "scales": rng.random(outputs * blocks, dtype=np.float32),
        }
        options = {"K": inputs, "N": outputs, "bits": bits, "block_size": BLOCK}
        sides[f"ORT NBits {bits}"] = session(
            "MatMulNBits", "com.microsoft", constants, accuracy_level=4, **options
        )
    return sides


def measure(sides: dict[str, Callable], *, runs: int) -> dict[str, list[float]]:
    """Return the milliseconds of each run of each side, after two that are not counted."""
    import torch

    times: dict[str, list[float]] = {name: [] for name in sides}
    with torch.inference_mode():
        for run in range(runs + 2):
            for name, call in sides.items():
                time.sleep(SETTLE_SECONDS)
                call()  # caches and pools of the side before it are not this one's
                started = time.perf_counter()
                call()
                if run >= 2:
                    times[name].append(1000 * (time.perf_counter() - started))
    return times


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Print a table for each number of threads."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    arguments.add_argument("--runs", type=int, default=15)
    arguments.add_argument("--statistic", choices=("median", "min"), default="median")
    arguments.add_argument("--level", help="of our kernels: portable, avx2, avx512, vnni, amx")
    arguments.add_argument("--avx2", action="store_true", help="restrict torch and ours to AVX2")
    args = arguments.parse_args(argv)
    if args.level is not None:
        os.environ["ESPNET_LITE_KERNELS"] = args.level
    if args.avx2:
        os.environ.update(ONLY_AVX2)  # before torch is imported

    import torch

    from espnet_lite.environment import describe
    from espnet_lite.kernels.library import TORCH, chosen_level

    if chosen_level() == TORCH:
        raise InputError("there are no C++ kernels to measure", fix="make kernels")
    machine = describe()
    print(
        f"ms, {args.statistic} of {args.runs} (× {BASE}); {machine['cpu']}, {machine['cores']} cores, "
        f"kernels for {chosen_level()}, torch {machine['torch']} "
        f"({torch.backends.cpu.get_cpu_capability()}), commit {machine['commit'] or 'none'}"
    )
    statistic = {"median": statistics.median, "min": min}[args.statistic]
    for threads in args.threads:
        torch.set_num_threads(threads)
        columns = []
        for rows, inputs, outputs in SHAPES:
            x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(0))
            sides = torch_sides(x, outputs)
            if not args.avx2:
                sides |= onnx_sides(x, outputs, threads=threads)
            sides |= our_sides(x, outputs)
            times = measure(sides, runs=args.runs)
            columns.append({name: statistic(ms) for name, ms in times.items()})
        names = " | ".join(f"{rows}×{inputs}→{outputs}" for rows, inputs, outputs in SHAPES)
        print(f"\n| {threads} threads | {names} |\n| --- |{' ---: |' * len(SHAPES)}")
        for name in columns[0]:
            cells = [f"{ms[name]:.2f} (×{ms[BASE] / ms[name]:.1f})" for ms in columns]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
