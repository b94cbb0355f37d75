#!/usr/bin/env python
"""Whole encoders of few bits against their own graphs in ONNX Runtime.

    python tools/benchmarks/lowbit_encoder.py [--encoders transformer …] [--policies w8a8 w1a8 w1a1]
        [--threads 2] [--seconds 15] [--level vnni] [--statistic median]

From log-mel features to encoded frames, one clip of 15 s: 64-channel subsampling by 4 and 12 blocks of 256 (the
Squeezeformer 16), untrained: the numbers are of speed alone. Ours are packed models on the kernels (runtime.kernels),
their subsampling at 8 bits of weights and activations, as the recipes have it; ONNX Runtime's is in fp32 but for the
projection, since it convolves integers more slowly than floats.
Peers are the same network in torch fp32 and "medium", and its graph in ONNX Runtime: fp32, and with dynamic
int8 quantization of its products. Give the Python of a venv that has torch, onnx, onnxscript and onnxruntime;
without the last three those columns are missing. The graph of a Sparseformer has its window as a mask: ONNX has
no local attention. Every round runs all sides one after the other; the statistic of the rounds in ms,
and how many times as long ONNX Runtime's int8 takes (torch fp32 where it is missing).

Goals against ONNX Runtime's int8: Sparseformer W8A8 and W1A8 2, W1A1 3; Transformer 1.5 and 2.2.
"""

import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors

ENCODERS = ("transformer", "sparseformer", "conformer", "squeezeformer")
POLICIES = {"w8a8": (8, 8), "w2a8": (2, 8), "w1a8": (1, 8), "w1a1": (1, 1), "w1a16": (1, 16)}
KINDS = ("attention_linear", "attention_matmul", "feed_forward")
CONVOLUTIONS = ("conv_pointwise", "conv_depthwise")
TOKENS = ["<blank>", "<unk>", "<space>", "a", "<sos/eos>"]
FRAMES_PER_SECOND = 100
SETTLE_SECONDS = 0.01  # threads of the side before wait for more work, spinning, a while


def recognizer(encoder: str):
    """Return an untrained recognizer in evaluation mode."""
    import torch

    from espnet_lite.config import from_plain
    from espnet_lite.models.asr import AsrConfig, AsrModel

    torch.manual_seed(0)
    plain = {"front_end": {"name": "log_mel"}, "encoder": {"name": encoder}}
    return AsrModel(from_plain(AsrConfig, plain), vocab=len(TOKENS)).eval()


def rules_of(encoder: str, policy: str) -> list:
    """Return the rules of a policy for an encoder."""
    from espnet_lite.quantize.policy import Rule

    weight_bits, activation_bits = POLICIES[policy]
    kinds = KINDS + (CONVOLUTIONS if encoder in ("conformer", "squeezeformer") else ())
    return [
        Rule(kinds, weight_bits=weight_bits, activation_bits=activation_bits),
        Rule(("subsampling",), weight_bits=8, activation_bits=max(activation_bits, 8)),
    ]


def packed(model, rules, waveform):
    """Return the packed form of a recognizer on the kernels, its activations measured on a waveform.

    The recognizer itself is quantized on the way.
    """
    import torch

    from espnet_lite.config import to_plain
    from espnet_lite.quantize.calibration import start_activations
    from espnet_lite.quantize.export import export_model
    from espnet_lite.quantize.policy import quantize_modules
    from espnet_lite.runtime.kernels import use_kernels
    from espnet_lite.runtime.packed_model import PackedModel

    quantize_modules(model, rules, where="rules")
    lengths = torch.tensor([waveform.size(1)])
    start_activations(model, lambda: model.encode(waveform, lengths))
    exported = export_model(model.eval())
    plain = to_plain(model.config)
    header = {
        "architecture": {
            **{part: plain[part] for part in ("front_end", "encoder")},
            "decoder": None,
            "vocab": len(TOKENS),
        },
        "sample_rate": 16000,
        "tokenizer": {"kind": "char", "nlsyms": [], "tokens": TOKENS},
        "quantized": exported.quantized,
    }
    return use_kernels(PackedModel.from_parts(header, exported.tensors))


def encoded(model, features, lengths):
    """Return encoded frames of features."""
    x, lengths = model.front_end.subsampling(features, lengths)
    return model.encoder(x, lengths).encoded


def onnx_sides(encoder: str, features, lengths, *, threads: int) -> dict[str, Callable]:
    """Return name → call of the network's graph; none without ONNX Runtime."""
    if any(
        importlib.util.find_spec(name) is None for name in ("onnxruntime", "onnx", "onnxscript")
    ):
        return {}
    import onnxruntime
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from espnet_lite.nn.attention import DotProductAttention
    from espnet_lite.nn.local_attention import LocalAttention

    class Window(DotProductAttention):
        """Attention within a window as a mask."""

        def __init__(self, window: int):
            super().__init__()
            self.window = window

        def forward(self, query, key, value, mask=None):
            position = torch.arange(key.size(2))
            near = (position[:, None] - position).abs() <= self.window
            return super().forward(query, key, value, near[None, None])

    class Network(torch.nn.Module):
        """From features to encoded frames, all of them valid."""

        def __init__(self):
            super().__init__()
            self.model = recognizer(encoder)
            for block in self.model.encoder.blocks:
                attention = getattr(block, "attention", None)
                if isinstance(getattr(attention, "dot_product", None), LocalAttention):
                    attention.dot_product = Window(attention.dot_product.window)

        def forward(self, features):
            return encoded(self.model, features, lengths)

    network = Network().eval()
    sides = {}
    with tempfile.TemporaryDirectory() as folder:
        graph, quantized = f"{folder}/fp32.onnx", f"{folder}/int8.onnx"
        with torch.enable_grad():  # one graph, not blocks of frames and queries
            torch.onnx.export(network, (features,), graph, dynamo=True, verbose=False)
        # Products alone: with its convolutions in integers too, every graph is slower.
        products = ["MatMul", "Gemm"]
        quantize_dynamic(
            graph,
            quantized,
            op_types_to_quantize=products,
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        for name, path in (("ORT fp32", graph), ("ORT int8", quantized)):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
            given = {session.get_inputs()[0].name: features.numpy()}
            sides[name] = lambda session=session, given=given: session.run(None, given)
    torch.set_float32_matmul_precision("highest")
    with torch.inference_mode():
        expected = encoded(recognizer(encoder), features, lengths)
    difference = abs(sides["ORT fp32"]()[0] - expected.numpy()).max()
    if difference > 1e-3:
        raise AssertionError(f"{encoder}: the graph is {difference} from the network")
    return sides


def torch_sides(encoder: str, features, lengths) -> dict[str, Callable]:
    """Return name → call of the network in torch."""
    model = recognizer(encoder)
    return {
        "torch fp32": in_precision("highest", model, features, lengths),
        'torch "medium"': in_precision("medium", model, features, lengths),
    }


def in_precision(precision: str, model, features, lengths) -> Callable:
    """Return a call of a network whose products in fp32 are computed in torch's `precision`."""
    import torch

    def call():
        torch.set_float32_matmul_precision(precision)
        return encoded(model, features, lengths)

    return call


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
    """Print the table."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    arguments.add_argument(
        "--policies", nargs="+", choices=tuple(POLICIES), default=["w8a8", "w1a8", "w1a1"]
    )
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--seconds", type=float, default=15.0)
    arguments.add_argument("--runs", type=int, default=15)
    arguments.add_argument("--statistic", choices=("median", "min"), default="median")
    arguments.add_argument("--level", help="of our kernels: portable, avx2, avx512, vnni, amx")
    args = arguments.parse_args(argv)
    if args.level is not None:
        os.environ["ESPNET_LITE_KERNELS"] = args.level

    import torch

    from espnet_lite.environment import describe
    from espnet_lite.kernels.library import chosen_level
    from espnet_lite.numerics import use_fast_matmul
    from espnet_lite.runtime.pack import synthetic_waveform

    torch.set_num_threads(args.threads)
    use_fast_matmul(torch.device("cpu"))
    our_precision = torch.get_float32_matmul_precision()
    machine = describe()
    print(
        f"ms, {args.statistic} of {args.runs}, {args.seconds:g} s of speech; {machine['cpu']}, "
        f"{args.threads} of {machine['cores']} cores, kernels for {chosen_level()}, "
        f"torch {machine['torch']}, commit {machine['commit'] or 'none'}"
    )
    statistic = {"median": statistics.median, "min": min}[args.statistic]
    waveform = synthetic_waveform(args.seconds, 16000)
    heading = None
    for encoder in args.encoders:
        generator = torch.Generator().manual_seed(0)
        frames = round(args.seconds * FRAMES_PER_SECOND) - 2
        features = torch.randn(1, frames, 80, generator=generator)
        lengths = torch.tensor([frames])
        sides = torch_sides(encoder, features, lengths)
        sides |= onnx_sides(encoder, features, lengths, threads=args.threads)
        for policy in args.policies:
            model = packed(recognizer(encoder), rules_of(encoder, policy), waveform)
            sides[policy.upper()] = in_precision(our_precision, model, features, lengths)
        found = {name: statistic(ms) for name, ms in measure(sides, runs=args.runs).items()}
        base = found.get("ORT int8", found["torch fp32"])
        if heading != list(found):
            heading = list(found)
            print(f"| encoder | {' | '.join(heading)} |\n| --- |{' ---: |' * len(heading)}")
        cells = [f"{ms:.1f} (×{base / ms:.2f})" for ms in found.values()]
        print(f"| {encoder} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
