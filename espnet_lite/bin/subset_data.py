"""Write some utterances of a data directory as another one."""

import sys

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write the subset and return the exit code."""
    options = parser(__doc__)
    options.add_argument("source", help="the data directory to choose from")
    options.add_argument("target", help="the data directory to write; replaced if it is there")
    choice = options.add_mutually_exclusive_group(required=True)
    choice.add_argument("--first", type=int, metavar="N", help="the first N utterances")
    choice.add_argument("--utt_list", metavar="FILE", help="the utterances FILE lists, one a line")
    choice.add_argument(
        "--spk_list", metavar="FILE", help="all utterances of the speakers FILE lists"
    )
    args = options.parse_args(argv)

    from espnet_lite.data.subset import (
        first_utterances,
        listed_utterances,
        subset_data_dir,
        utterances_of_listed_speakers,
    )

    if args.first is not None:
        ids = first_utterances(args.source, args.first)
    elif args.utt_list is not None:
        ids = listed_utterances(args.source, args.utt_list)
    else:
        ids = utterances_of_listed_speakers(args.source, args.spk_list)
    subset_data_dir(args.source, args.target, ids)
    print(f"{args.target}: {len(set(ids))} utterances of {args.source}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
