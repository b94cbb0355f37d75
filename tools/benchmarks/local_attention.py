#!/usr/bin/env python
"""Attention within a window: the fused kernel against full attention and against blocks in torch.

    python tools/benchmarks/local_attention.py [--windows 64 16] [--frames 375 750 1500 3000] [--threads 2]

Inference of one utterance at d = 256, 4 heads, in fp32. Peers: torch's scaled_dot_product_attention over
all frames, and the same window in blocks of plain torch, each with products in torch's default precision
("highest") and in "medium", which the fused kernel does not depend on. Every round runs all sides one
after the other, so that a disturbance meets all of them; medians (fastest in brackets), and how many
times as long a peer takes. Goals at ±64: 4, 9 and 18 times at 750, 1500 and 3000 frames against the
default, 2, 4.5 and 9 times against "medium".
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors

HEADS, HEAD_DIM = 4, 64
TOLERANCE = 1e-5  # of the fused kernel, against full attention with a band mask in float64
PRECISIONS = ("highest", "medium")


def make_sides(frames: int, window: int) -> dict[str, tuple[str, Callable]]:
    """Return name → (precision of products, call), after making sure that ours is exact."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from espnet_lite.kernels.local_attention import in_blocks
    from espnet_lite.nn.local_attention import LocalAttention

    generator = torch.Generator().manual_seed(0)
    # As a Linear leaves them: frames before heads.
    query, key, value = (
        torch.randn(1, frames, HEADS, HEAD_DIM, generator=generator).transpose(1, 2)
        for _ in range(3)
    )
    attention = LocalAttention(window=window)
    position = torch.arange(frames)
    band = (position[:, None] - position).abs() <= window
    exact = scaled_dot_product_attention(query.double(), key.double(), value.double(), band)
    error = float((attention(query, key, value).double() - exact).abs().max())
    if error > TOLERANCE:
        raise AssertionError(f"error {error:.1e} at {frames} frames, window {window}")
    sides = {"fused": ("highest", lambda: attention(query, key, value))}
    for precision in PRECISIONS:
        sides[f"full, {precision}"] = (
            precision,
            lambda: scaled_dot_product_attention(query, key, value),
        )
        sides[f"blocks, {precision}"] = (
            precision,
            lambda: in_blocks(query, key, value, None, window=window, global_tokens=0),
        )
    return sides


def measure(sides: dict[str, tuple[str, Callable]], *, runs: int) -> dict[str, list[float]]:
    """Return the milliseconds of each run of each side, after two that are not counted."""
    import torch

    times: dict[str, list[float]] = {name: [] for name in sides}
    with torch.inference_mode():
        for run in range(runs + 2):
            for name, (precision, call) in sides.items():
                torch.set_float32_matmul_precision(precision)
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
    arguments.add_argument("--windows", type=int, nargs="+", default=[64, 16])
    arguments.add_argument("--frames", type=int, nargs="+", default=[375, 750, 1500, 3000])
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--runs", type=int, default=15)
    args = arguments.parse_args(argv)

    import torch

    from espnet_lite.environment import describe
    from espnet_lite.kernels.library import TORCH, chosen_level

    torch.set_num_threads(args.threads)
    if chosen_level() == TORCH:
        raise InputError("there are no C++ kernels to measure", fix="make kernels")
    machine = describe()
    print(
        f"ms of one utterance, d = {HEADS * HEAD_DIM}, {HEADS} heads, medians of {args.runs} (fastest); "
        f"{machine['cpu']}, {args.threads} of {machine['cores']} cores, kernels for {chosen_level()}, "
        f"torch {machine['torch']}, commit {machine['commit'] or 'none'}"
    )
    peers = [f"{kind}, {precision}" for precision in PRECISIONS for kind in ("full", "blocks")]
    print(f"| window | frames | fused | {' | '.join(f'{peer} | x' for peer in peers)} |")
    print(f"| ---: {'| ---: ' * (2 + 2 * len(peers))}|")
    for window in args.windows:
        for frames in args.frames:
            times = measure(make_sides(frames, window), runs=args.runs)
            medians = {name: statistics.median(ms) for name, ms in times.items()}
            shown = {name: f"{medians[name]:.2f} ({min(ms):.2f})" for name, ms in times.items()}
            cells = [f"{shown[peer]} | {medians[peer] / medians['fused']:.1f}" for peer in peers]
            print(
                f"| ±{window} | {frames} | {shown['fused']} | {' | '.join(cells)} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
