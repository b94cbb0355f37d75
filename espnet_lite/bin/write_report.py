"""Write report.html: a recipe's results, curves and every utterance in one page without a network."""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--results_dir", type=Path, required=True, help="has results/*.json")
    arguments.add_argument("--expdir", type=Path, required=True, help="folder of experiments")
    arguments.add_argument("--output", type=Path, help="default: EXPDIR/report.html")
    arguments.add_argument(
        "--without_audio", action="store_true", help="no players, no copies of audio for them"
    )
    args = arguments.parse_args(argv)

    from espnet_lite.files import write_text
    from espnet_lite.report.gather import gather
    from espnet_lite.report.page import report_page
    from espnet_lite.score.results import read_rows

    page = args.output or args.expdir / "report.html"
    rows = read_rows(args.results_dir)
    if not rows:
        print(f"{args.results_dir}: no row was scored yet, so that there is no report to write")
        return 0
    data = gather(
        args.results_dir, rows, expdir=args.expdir, page=page, audio=not args.without_audio
    )
    write_text(page, report_page(data))
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
