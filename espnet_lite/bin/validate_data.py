"""Check a data directory against every rule; exit 2 with the first fault where one is broken."""

import argparse
import sys

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Validate the directory and return the exit code."""
    from espnet_lite.data import validate

    options = parser(f"{__doc__}\n\n{validate.__doc__}")
    options.formatter_class = argparse.RawDescriptionHelpFormatter
    options.add_argument("data_dir", help="the data directory")
    options.add_argument("--no_text", action="store_true", help="unlabelled data: text may lack")
    options.add_argument(
        "--allow_pipes", action="store_true", help="let wav.scp hold commands that end with a bar"
    )
    args = options.parse_args(argv)
    number = validate.validate_data_dir(
        args.data_dir, need_text=not args.no_text, allow_pipes=args.allow_pipes
    )
    print(f"{args.data_dir}: valid, {number} utterances")
    return 0


if __name__ == "__main__":
    sys.exit(main())
