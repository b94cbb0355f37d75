"""Analyse where a quantized recognizer errs: own, propagated and interacting errors of its modules, noise by
depth, and hybrids in which only some kinds of modules are quantized.

The reference is, of a recognizer quantized after training, the one it was made from; of one trained in few
bits, its teacher (--rule teacher); if it was trained in several steps, the floating-point recognizer that the
first one had as its teacher. docs/quantization_errors.md explains what is measured.
"""

import json
import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors

RULES = ("own", "teacher")


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write the analysis as JSON, its figure beside it, and print its tables; return 0."""
    args = parser(__doc__)
    for name, what in (("reference", "in floating point"), ("quantized", "in few bits")):
        args.add_argument(
            f"--{name}", required=True, type=Path, help=f"recognizer {what}: *.esp or experiment"
        )
    args.add_argument("--rule", required=True, choices=RULES, help="what the reference is")
    args.add_argument("--data_dir", required=True, type=Path, help="labelled dump folder: dev")
    args.add_argument("--output", required=True, type=Path, help="JSON to write; X.png beside it")
    args.add_argument("--name", help="of the analysis; default: the output's name without .json")
    args.add_argument("--threads", type=int, default=1, help="threads of this process")
    options = args.parse_args(argv)
    if options.threads < 1:
        raise InputError(f"{options.threads}, expected 1 or more", where="--threads")

    import torch

    from espnet_lite.data.data_dir import read_data_dir
    from espnet_lite.environment import describe
    from espnet_lite.files import write_text
    from espnet_lite.score.quantization_errors import (
        ablation_rows,
        disturbance_rows,
        draw_heat_map,
        kind_rows,
        synergy_rows,
    )
    from espnet_lite.score.results_page import markdown_table
    from espnet_lite.tasks.quantization_analysis import (
        analyze,
        check_pair,
        described,
        load_network,
    )

    torch.set_num_threads(options.threads)
    reference, quantized = load_network(options.reference), load_network(options.quantized)
    pair = (reference, options.reference, quantized, options.quantized)
    check_pair(*pair, rule=options.rule)
    utterances = read_data_dir(options.data_dir)
    analysis = {
        "name": options.name or options.output.stem,
        "rule": options.rule,
        "set": options.data_dir.name,
        **described(*pair),
        **analyze(reference, quantized, utterances, where=options.quantized),
        "environment": describe(),
    }
    for rows in (kind_rows, disturbance_rows, ablation_rows, synergy_rows):
        print(markdown_table(*rows(analysis)), end="\n\n")
    noise = ", ".join(f"{value:.1f}" for value in analysis["layers_sqnr_db"])
    print(f"SQNR of layers, dB: {noise}")
    print(f"errors of attention and convolution make each other worse: {analysis['verdict']}")
    figure = options.output.with_suffix(".png")
    draw_heat_map([analysis], figure)
    text = json.dumps(analysis, indent=1, sort_keys=True, ensure_ascii=False)
    write_text(options.output, text + "\n")
    print(f"{options.output}, {figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
