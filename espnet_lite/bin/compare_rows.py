"""Compare runs on one set: paired bootstrap, and MAPSSWE where the alignments are known.

A run is a row of results (results/ROW.json) or the folder of a decoded, scored set
(exp/.../decode_greedy_bf16/dev). Several seeds of one configuration are joined by commas; their errors
are averaged. Rows know the errors of speakers alone: they give no MAPSSWE.
"""

import json
import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Print rates and differences with 95 % intervals and significance levels."""
    args = parser(__doc__)
    args.add_argument("runs", nargs="+", metavar="RUN[,RUN...]", help="ROW.json or folder")
    args.add_argument("--set", dest="set_name", help="which set of rows of results")
    args.add_argument("--draws", type=int, default=10000)
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--output", type=Path, metavar="FILE", help="write the comparison as JSON")
    options = args.parse_args(argv)
    if options.draws < 1:
        raise InputError(f"{options.draws}, expected 1 or more", where="--draws")
    if len(options.runs) < 2:
        raise InputError(f"one run, {options.runs[0]}: nothing to compare", fix="give two or more")

    from espnet_lite.files import write_text
    from espnet_lite.score.comparison import compare, comparison_text, comparison_to_plain

    comparison = compare(
        [_read_run(run, options.set_name) for run in options.runs],
        draws=options.draws,
        seed=options.seed,
    )
    if options.output is not None:
        plain = comparison_to_plain(comparison, draws=options.draws)
        write_text(options.output, json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    print(comparison_text(comparison, draws=options.draws), end="")
    return 0


def _read_run(given: str, set_name: str | None):
    """Return the run of paths that are joined by commas, named as it was given."""
    from espnet_lite.score.comparison import Run, read_scored

    paths = [Path(path) for path in given.split(",")]
    return Run(given, tuple(read_scored(path, set_name) for path in paths))


if __name__ == "__main__":
    sys.exit(main())
