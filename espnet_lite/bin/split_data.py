"""Split a data directory into N parts of like size: DIR/splitN/1 … N, or DIR/splitNutt/1 … N.

As Kaldi's split_data.sh: by speaker, or with --by utterance in runs of the sorted list. The parts
are data directories; those of an earlier run are replaced.
"""

import sys

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write the parts, print how large they are."""
    options = parser(__doc__)
    options.add_argument("data_dir", help="the data directory")
    options.add_argument("number", type=int, metavar="N", help="number of parts")
    options.add_argument(
        "--by", choices=("speaker", "utterance"), default="speaker", help="what stays in one part"
    )
    args = options.parse_args(argv)

    from espnet_lite.data.split import split_data_dir

    split = split_data_dir(args.data_dir, args.number, by=args.by)
    fewest, most = min(split.utterances), max(split.utterances)
    print(
        f"{split.folder}: {args.number} parts by {args.by} of {fewest} to {most} utterances, "
        f"{sum(split.utterances)} in all"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
