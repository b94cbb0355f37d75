"""Write some utterances of a data directory as another one, with every table cut down to them."""

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
    choice.add_argument("--last", type=int, metavar="N", help="the last N utterances")
    choice.add_argument("--shortest", type=int, metavar="N", help="the N shortest utterances")
    choice.add_argument(
        "--per_spk", type=int, metavar="N", help="at most N utterances of every speaker, spread"
    )
    choice.add_argument(
        "--hours", type=float, metavar="H", help="utterances in random order, up to H hours"
    )
    choice.add_argument("--utt_list", metavar="FILE", help="the utterances FILE lists, one a line")
    choice.add_argument(
        "--spk_list", metavar="FILE", help="all utterances of the speakers FILE lists"
    )
    options.add_argument("--seed", type=int, default=0, help="of the random order of --hours")
    args = options.parse_args(argv)

    from espnet_lite.data import subset

    if args.first is not None:
        ids = subset.first_utterances(args.source, args.first)
    elif args.last is not None:
        ids = subset.last_utterances(args.source, args.last)
    elif args.shortest is not None:
        ids = subset.shortest_utterances(args.source, args.shortest)
    elif args.per_spk is not None:
        ids = subset.utterances_per_speaker(args.source, args.per_spk)
    elif args.hours is not None:
        ids = subset.random_hours(args.source, args.hours, seed=args.seed)
    elif args.utt_list is not None:
        ids = subset.listed_utterances(args.source, args.utt_list)
    else:
        ids = subset.utterances_of_listed_speakers(args.source, args.spk_list)
    subset.subset_data_dir(args.source, args.target, ids)
    print(f"{args.target}: {len(set(ids))} utterances of {args.source}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
