"""Mend a data directory in place: sort, clean, keep the utterances that every table has.

The tables as they were stay in .backup inside it. What cannot be decided is left to you and named:
bytes that are not UTF-8, one id with two values, ids that do not begin with their speaker.
"""

import sys

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Fix the directory, print what was dropped, validate the result."""
    options = parser(__doc__)
    options.add_argument("data_dir", help="the data directory")
    options.add_argument("--no_text", action="store_true", help="unlabelled data: text may lack")
    options.add_argument(
        "--allow_pipes", action="store_true", help="let wav.scp hold commands that end with a bar"
    )
    args = options.parse_args(argv)

    from espnet_lite.data.fix import BACKUP_FOLDER, fix_data_dir
    from espnet_lite.data.validate import validate_data_dir

    report = fix_data_dir(args.data_dir, need_text=not args.no_text)
    print(f"{args.data_dir}: kept {report.after} of {report.before} utterances")
    for reason, count in sorted(report.dropped.items()):
        print(f"  dropped {count} {reason}")
    for name in report.removed_tables:
        print(f"  removed {name}, which does not fit; the dump stage writes it anew")
    print(f"  the files as they were: {args.data_dir}/{BACKUP_FOLDER}")
    validate_data_dir(args.data_dir, need_text=not args.no_text, allow_pipes=args.allow_pipes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
