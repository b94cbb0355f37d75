"""Compute global CMVN statistics of the features a configuration asks for (part of stage 2)."""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write mean and variance sums over all frames of `--data_dirs` to `--output`."""
    args = parser(__doc__)
    args.add_argument("--data_dirs", required=True, nargs="+", help="dump folders")
    args.add_argument("--config", required=True, help="training YAML with model.front_end")
    args.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    args.add_argument("--output", required=True, help="safetensors file to write")
    parsed = args.parse_args(argv)

    from espnet_lite.tasks.cmvn import compute_cmvn, load_front_end

    front_end = load_front_end(Path(parsed.config), parsed.overrides)
    folders = [Path(folder) for folder in parsed.data_dirs]
    statistics = compute_cmvn(folders, front_end, output=Path(parsed.output))
    if statistics is None:
        print(f"{parsed.output}: up to date, the audio and the features are the same")
        return 0
    if statistics.frames == 0:
        print(f"{parsed.output}: empty, this front end takes no global statistics")
        return 0
    print(f"{parsed.output}: mean and variance of {statistics.frames} frames")
    return 0


if __name__ == "__main__":
    sys.exit(main())
