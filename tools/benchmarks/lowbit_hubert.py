#!/usr/bin/env python
"""An encoder of HuBERT Base's size in few bits against transformers' HubertModel, from the waveform on.

    python tools/benchmarks/lowbit_hubert.py [--policies w8a8 w1a8 w1a1] [--threads 2] [--seconds 15]
        [--runs 9] [--level vnni] [--statistic median] [--parts]

One clip of 15 s, convolutions over the waveform, positional convolution and 12 blocks of 768, random weights: the
numbers are of speed alone. Both sides have the same weights; that they compute the same in fp32 is checked first. Ours
are packed models on the kernels (runtime.kernels): the blocks at the policy, all of the front end but its first
convolution and the positional convolution at W8A8. The waveform's front end is part of every time. Give the Python of a
venv that has torch and transformers. Every round runs all sides one after the other; the statistic of
the rounds in ms, and how many times as long transformers' fp32 takes. With --parts also where our time goes.

Goal: 3.5.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lowbit_encoder import KINDS, POLICIES, TOKENS, measure, packed

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors

MEASURED_SECONDS = 2
LARGEST_DIFFERENCE = 1e-3  # of both sides' frames in fp32


def peer():
    """Return transformers' HubertModel at its default config, HuBERT Base's, without its dropout."""
    import torch

    try:
        from transformers import HubertConfig, HubertModel
    except ImportError as error:
        fix = "give the Python of an environment with transformers"
        raise InputError(f"no transformers here: {error}", fix=fix) from error
    torch.manual_seed(0)
    return HubertModel(HubertConfig()).eval()


def recognizer(weights: dict):
    """Return our recognizer on the front end and encoder of HuBERT Base with such weights."""
    from espnet_lite.config import from_plain
    from espnet_lite.models.asr import AsrConfig, AsrModel

    plain = {"front_end": {"name": "waveform"}, "encoder": {"name": "hubert_base"}}
    model = AsrModel(from_plain(AsrConfig, plain), vocab=len(TOKENS)).eval()
    own = model.state_dict()
    given = {name: tensor for name, tensor in weights.items() if name in own}
    missing = {name for name in own if name not in given and not name.startswith("ctc_head.")}
    if missing:
        raise AssertionError(f"{sorted(missing)[0]} has no weights")
    model.load_state_dict({**own, **given})
    return model


def rules_of(policy: str) -> list:
    """Return the rules of a policy."""
    from espnet_lite.quantize.policy import Rule

    weight_bits, activation_bits = POLICIES[policy]
    parts = ("front_end.convolutions.[1-9].*", "front_end.projection")
    return [
        Rule(KINDS, weight_bits=weight_bits, activation_bits=activation_bits),
        Rule(("front_end",), weight_bits=8, activation_bits=8, modules=parts),
        Rule(("conv_positional",), weight_bits=8, activation_bits=8),
    ]


def print_parts(name: str, model, waveform, lengths, *, runs: int) -> None:
    """Print the milliseconds of each part of a model, the least of `runs`."""
    import torch

    def blocks(x):
        for block in model.encoder.blocks:
            x = block(x)
        return x

    with torch.inference_mode():
        local, _ = model.front_end.local(waveform, lengths)
        projected = model.front_end.project(local)
        parts: dict[str, Callable] = {
            "convolutions": lambda: model.front_end.local(waveform, lengths),
            "projection": lambda: model.front_end.project(local),
            "positions": lambda: model.encoder.positions(projected),
            "blocks": lambda: blocks(projected),
        }
        told = []
        for part, call in parts.items():
            times = []
            for _ in range(runs):
                started = time.perf_counter()
                call()
                times.append(1000 * (time.perf_counter() - started))
            told.append(f"{part} {min(times):.1f}")
    print(f"{name}: {', '.join(told)} ms", flush=True)


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument(
        "--policies", nargs="+", choices=tuple(POLICIES), default=["w8a8", "w1a8", "w1a1"]
    )
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--seconds", type=float, default=15.0)
    arguments.add_argument("--runs", type=int, default=9)
    arguments.add_argument("--statistic", choices=("median", "min"), default="median")
    arguments.add_argument("--level", help="of our kernels: portable, avx2, avx512, vnni, amx")
    arguments.add_argument("--parts", action="store_true", help="print where our time goes")
    args = arguments.parse_args(argv)
    if args.level is not None:
        os.environ["ESPNET_LITE_KERNELS"] = args.level

    import torch

    from espnet_lite.environment import describe
    from espnet_lite.kernels.library import chosen_level
    from espnet_lite.models.hubert_keys import from_foreign
    from espnet_lite.numerics import use_fast_matmul
    from espnet_lite.runtime.pack import synthetic_waveform

    torch.set_num_threads(args.threads)
    waveform = synthetic_waveform(args.seconds, 16000)
    lengths = torch.tensor([waveform.size(1)])
    measured = waveform[:, : MEASURED_SECONDS * 16000]  # what static scales are started from
    theirs = peer()
    weights, _ = from_foreign(theirs.state_dict(), "hugging_face", norm_before=True)
    ours = recognizer(weights)
    with torch.inference_mode():
        expected = theirs(waveform).last_hidden_state
        difference = (ours.encode(waveform, lengths).encoded - expected).abs().max().item()
    if difference > LARGEST_DIFFERENCE:
        raise AssertionError(f"our fp32 is {difference} from transformers'")
    machine = describe()
    print(
        f"ms, {args.statistic} of {args.runs}, {args.seconds:g} s of speech; {machine['cpu']}, "
        f"{args.threads} of {machine['cores']} cores, kernels for {chosen_level()}, "
        f"torch {machine['torch']}, commit {machine['commit'] or 'none'}"
    )
    use_fast_matmul(torch.device("cpu"))
    precision = torch.get_float32_matmul_precision()

    def in_precision(name: str, call: Callable) -> Callable:
        def timed():
            torch.set_float32_matmul_precision(name)
            return call()

        return timed

    def in_bf16():
        with torch.autocast("cpu", torch.bfloat16):
            return theirs(waveform)

    sides = {
        "transformers fp32": in_precision("highest", lambda: theirs(waveform)),
        "transformers bf16": in_precision("highest", in_bf16),
        "our torch fp32": in_precision(precision, lambda: ours.encode(waveform, lengths)),
    }
    models = {}
    for policy in args.policies:
        models[policy.upper()] = packed(recognizer(weights), rules_of(policy), measured)
    for name, model in models.items():
        sides[name] = in_precision(precision, lambda model=model: model.encode(waveform, lengths))
    statistic = {"median": statistics.median, "min": min}[args.statistic]
    found = {name: statistic(ms) for name, ms in measure(sides, runs=args.runs).items()}
    base = found["transformers fp32"]
    print(f"| {' | '.join(found)} |\n|{' ---: |' * len(found)}")
    print(f"| {' | '.join(f'{ms:.0f} (×{base / ms:.2f})' for ms in found.values())} |")
    for name, model in models.items():
        if args.parts:
            print_parts(name, model, waveform, lengths, runs=args.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
