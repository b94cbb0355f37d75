"""Stage 2: validate a data directory, cut segments, resample, leave out too short and too long.

Lossless 16-bit mono audio of the right rate stays where it is; everything else is decoded once and
written as 16-bit FLAC. With --audio_format ark all audio is written, into Kaldi archives of about
1 GB. The dump is a data directory with utt2num_samples. One that was made of the same is left as it is.
"""

import argparse
import math
import sys
from collections.abc import Callable

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Dump the directory, print hours, utterances and what was left out."""
    options = parser(__doc__)
    options.add_argument("--data_dir", required=True, help="the data directory to read")
    options.add_argument("--dump_dir", required=True, help="the data directory to write")
    options.add_argument("--sample_rate", type=_positive(int), default=16000, help="in Hz")
    options.add_argument(
        "--min_seconds", type=_positive(float), default=0.1, help="leave out shorter utterances"
    )
    options.add_argument(
        "--max_seconds", type=_positive(float), default=30.0, help="leave out longer utterances"
    )
    options.add_argument(
        "--keep_all", action="store_true", help="leave out none: for sets that are scored"
    )
    options.add_argument("--no_text", action="store_true", help="unlabelled data: text may lack")
    options.add_argument(
        "--channel",
        type=_channel,
        help="of recordings with several: its number from 0, or 'mix' for their mean; "
        "without it they are refused",
    )
    options.add_argument(
        "--allow_pipes",
        action="store_true",
        help="run the commands in wav.scp that end with a bar (without a shell)",
    )
    options.add_argument(
        "--threads", type=_positive(int), default=2, help="recordings decoded at a time"
    )
    options.add_argument(
        "--audio_format",
        choices=("flac", "ark"),
        default="flac",
        help="a file for each utterance that cannot stay, or large archives of all audio",
    )
    args = options.parse_args(argv)

    from espnet_lite.data.dump import dump_data_dir

    report = dump_data_dir(
        args.data_dir,
        args.dump_dir,
        sample_rate=args.sample_rate,
        min_seconds=0.0 if args.keep_all else args.min_seconds,
        max_seconds=math.inf if args.keep_all else args.max_seconds,
        need_text=not args.no_text,
        channel=args.channel,
        allow_pipes=args.allow_pipes,
        threads=args.threads,
        audio_format=args.audio_format,
        only_if_changed=True,
    )
    if report is None:
        print(
            f"{args.dump_dir}: up to date, {args.data_dir} and the options are what it is made of"
        )
        return 0
    where = f" into {report.archives} archives" if report.archives else ""
    print(
        f"{args.dump_dir}: {report.seconds / 3600:.3f} hours, {report.utterances} utterances, "
        f"{report.speakers} speakers; {report.utterances - report.written} files left in place, "
        f"{report.written} written as FLAC{where}"
    )
    for rate, count in sorted(report.resampled_from_hz.items()):
        print(f"  resampled {count} from {rate} to {args.sample_rate} Hz")
    if not args.keep_all:
        _print_left_out(report.too_short, f"shorter than {args.min_seconds:g} s")
        _print_left_out(report.too_long, f"longer than {args.max_seconds:g} s")
    return 0


def _print_left_out(ids: list[str], why: str) -> None:
    shown = ", ".join(sorted(ids)[:5]) + (", …" if len(ids) > 5 else "")
    print(f"  left out {len(ids)} {why}" + (f": {shown}" if ids else ""))


def _positive(kind: type) -> Callable[[str], float]:
    def convert(text: str):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text}, expected a positive number")
        return value

    convert.__name__ = kind.__name__  # argparse names it in "invalid int value"
    return convert


def _channel(text: str) -> int | str:
    if text == "mix":
        return text
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"'{text}', expected a number from 0 or 'mix'")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
