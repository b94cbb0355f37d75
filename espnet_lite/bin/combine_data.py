"""Write the utterances of several data directories as one, as Kaldi's combine_data.sh.

Tables that all of them have go over. Paths stay as they are.
"""

import sys

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write the folder, print what was left out."""
    options = parser(__doc__)
    options.add_argument("target", help="the data directory to write; replaced if it is there")
    options.add_argument("sources", nargs="+", metavar="source", help="data directories")
    options.add_argument("--no_text", action="store_true", help="unlabelled data: text may lack")
    options.add_argument(
        "--allow_pipes", action="store_true", help="let wav.scp hold commands that end with a bar"
    )
    args = options.parse_args(argv)

    from espnet_lite.data.combine import combine_data_dirs

    report = combine_data_dirs(
        args.target, args.sources, need_text=not args.no_text, allow_pipes=args.allow_pipes
    )
    print(f"{args.target}: {report.utterances} utterances of {len(args.sources)} folders")
    for name, folder in sorted(report.left_out.items()):
        print(f"  left out {name}, which {folder} lacks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
