"""Compile the C++ kernels, which else are compiled when they are first needed."""

import sys

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Print where the library is and the level of instructions that it will run at here."""
    args = parser(__doc__)
    args.add_argument(
        "--if_possible", action="store_true", help="say why there are none and end with 0"
    )
    options = args.parse_args(argv)

    from espnet_lite.kernels.build import Build
    from espnet_lite.kernels.library import Library

    try:
        path = Build.planned().library()
    except InputError as error:
        if not options.if_possible:
            raise
        print(f"no C++ kernels, plain torch will do their work more slowly: {error}")
        return 0
    print(f"{path}: kernels for {Library(path).level}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
