#!/usr/bin/env python
"""CTC's loss with its gradient: the kernel against torch's, on a CPU.

    python tools/benchmarks/ctc_loss.py [--threads 1 2] [--runs 15]

A batch of utterances, log-probabilities drawn at random (a standard deviation of 3 before the softmax),
forward and backward, in turns; medians, fastest in brackets. `error` is the largest difference of a
gradient from that of torch in double precision.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors

SHAPES = {  # utterances, frames of 40 ms, tokens, vocabulary
    "letters, 6 of 15 s": (6, 375, 230, 31),
    "300 BPE tokens, 6 of 15 s": (6, 375, 80, 300),
    "30 BPE tokens, 14 of 3 s": (14, 75, 25, 30),
    "5,000 BPE tokens, 6 of 15 s": (6, 375, 50, 5000),
}


def make_sides(shape: tuple[int, int, int, int]) -> tuple[dict[str, Callable], dict[str, float]]:
    """Return name → call and name → error of the gradient."""
    import torch
    from torch.nn import functional

    from espnet_lite.nn.ctc_loss import ctc_loss

    batch, frames, count, vocab = shape
    generator = torch.Generator().manual_seed(0)
    logits = 3.0 * torch.randn(batch, frames, vocab, generator=generator)
    tokens = torch.randint(1, vocab, (batch, count), generator=generator)
    rest = torch.full((batch,), frames), tokens, torch.full((batch,), count)

    def by_torch(log_probs, lengths, tokens, token_lengths):
        frames_first = log_probs.transpose(0, 1)
        return functional.ctc_loss(
            frames_first, tokens, lengths, token_lengths, reduction="none", zero_infinity=True
        )

    def gradient(function: Callable, x: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        function(x.log_softmax(dim=-1), *rest).sum().backward()
        return x.grad.double()

    exact = gradient(by_torch, logits.double())
    log_probs = logits.log_softmax(dim=-1).requires_grad_()
    sides, errors = {}, {}
    for name, function in (("ours", ctc_loss), ("torch", by_torch)):
        errors[name] = float((gradient(function, logits) - exact).abs().max())
        sides[name] = lambda function=function: function(log_probs, *rest).sum().backward()
    return sides, errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments.add_argument("--runs", type=int, default=15)
    args = arguments.parse_args(argv)
    import torch

    print("| batch | threads | ours, ms | torch, ms | ours is x | error of ours | of torch |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, shape in SHAPES.items():
        sides, errors = make_sides(shape)
        for threads in args.threads:
            torch.set_num_threads(threads)
            times: dict[str, list[float]] = {side: [] for side in sides}
            for run in range(args.runs + 2):
                for side, call in sides.items():
                    started = time.perf_counter()
                    call()
                    if run >= 2:
                        times[side].append(1000 * (time.perf_counter() - started))
            ours, theirs = (statistics.median(times[side]) for side in ("ours", "torch"))
            cells = [f"{statistics.median(t):.2f} ({min(t):.2f})" for t in times.values()]
            shown = [f"{errors[side]:.0e}" for side in sides]
            print(f"| {name} | {threads} | {' | '.join(cells)} | {theirs / ours:.1f} | ", end="")
            print(f"{' | '.join(shown)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
