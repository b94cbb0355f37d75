"""Draw RESULTS.md, the efficiency table and its figures from a recipe's results (end of stage 11)."""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write what the JSONs under results/ give, and print the efficiency table."""
    arguments = parser(__doc__)
    arguments.add_argument("--results_dir", type=Path, required=True, help="the recipe's folder")
    args = arguments.parse_args(argv)

    from espnet_lite.score.efficiency import TABLE
    from espnet_lite.score.results import read_rows
    from espnet_lite.score.results_folder import draw, write

    drawn = draw(args.results_dir, read_rows(args.results_dir))
    write(args.results_dir, drawn)
    if drawn.lines:
        print(drawn.efficiency())
        print(args.results_dir / TABLE)
    if drawn.page is None:
        print(f"{args.results_dir}: no row was scored yet, so that there is no RESULTS.md to draw")
    else:
        print(args.results_dir / "RESULTS.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
