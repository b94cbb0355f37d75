"""Profile a model: parameters, MACs by SUPERB's protocol, bytes, real-time factor, memory (stage 11).

Of a packed model, an experiment, a pre-trained encoder or a training configuration. MACs come from
shapes alone. Timings are those of one clip at a time, from samples in memory to the hypothesis of
greedy decoding (without a CTC head: to encoded frames), each number of threads in a process of its
own; --macs_only leaves them out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write the profile as JSON and print it in a few lines."""
    args = parser(__doc__)
    args.add_argument(
        "--model",
        required=True,
        type=Path,
        help="*.esp, folder of an experiment, encoder *.safetensors, or training *.yaml",
    )
    args.add_argument("--output", required=True, type=Path, help="JSON to write")
    args.add_argument("--name", help="of the profile; default: the output's name without .json")
    args.add_argument(
        "--vocab", type=int, help="of a *.yaml: tokens of its CTC head; none: no head"
    )
    args.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    args.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads")
    args.add_argument(
        "--seconds", type=float, nargs="+", default=[5.0, 15.0, 30.0], help="of audio"
    )
    args.add_argument("--runs", type=int, default=5, help="timed runs; their median counts")
    args.add_argument("--macs_only", action="store_true", help="time nothing")
    # Set by this program for the processes that it times in: the number of threads.
    args.add_argument("--time_with", type=int, help=argparse.SUPPRESS)
    options = args.parse_args(argv)
    for name in ("threads", "seconds", "runs", "vocab"):
        given = vars(options)[name]
        for value in given if isinstance(given, list) else [given]:
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{value}, expected a number above 0", where=f"--{name}")

    from espnet_lite.profile.network import read_subject

    subject = read_subject(options.model, vocab=options.vocab, overrides=options.overrides)
    return _profile(options, subject) if options.time_with is None else _time(options, subject)


def _profile(options, subject) -> int:
    from espnet_lite.environment import cores
    from espnet_lite.files import write_text
    from espnet_lite.profile.record import build_profile, with_timings
    from espnet_lite.profile.timing import Timing

    profile = build_profile(options.name or options.output.stem, subject)
    _print_shapes(profile)
    timings = []
    for threads in () if options.macs_only else options.threads:
        if threads > cores():
            print(f"{threads} threads: left out, this process may use {cores()} cores")
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "timings.json"
            code = subprocess.run(
                _timing_command(options, threads, path),
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": f"{threads}",
                    "MKL_NUM_THREADS": f"{threads}",
                },
                check=False,
            ).returncode
            if code:
                return code if code > 0 else 128 - code
            timings += [Timing(**plain) for plain in json.loads(path.read_text())]
    if timings:
        profile = with_timings(profile, timings)
    text = json.dumps(profile, indent=1, sort_keys=True, ensure_ascii=False)
    write_text(options.output, text + "\n")
    print(options.output)
    return 0


def _timing_command(options, threads: int, output: Path) -> list[str]:
    """Return the command that times the model with so many threads."""
    command = [sys.executable, "-m", "espnet_lite.bin.profile_model", "--output", str(output)]
    command += ["--model", str(options.model), "--time_with", str(threads)]
    command += ["--runs", str(options.runs), "--seconds", *map(str, options.seconds)]
    for override in options.overrides:
        command += ["--set", override]
    return command if options.vocab is None else [*command, "--vocab", str(options.vocab)]


def _time(options, subject) -> int:
    from dataclasses import asdict

    from espnet_lite.profile.timing import time_subject

    timings = []
    for timing in time_subject(
        subject, threads=options.time_with, clip_seconds=options.seconds, runs=options.runs
    ):
        timings.append(asdict(timing))
        print(
            f"{timing.threads} threads, {timing.audio_seconds:g} s: RTF {timing.rtf:.4f} "
            f"({1000 * timing.seconds:.1f} ms, median of {timing.runs}; fastest "
            f"{1000 * timing.fastest_seconds:.1f} ms), peak {timing.peak_bytes / 2**20:.0f} MiB",
            flush=True,
        )
    options.output.write_text(json.dumps(timings))
    return 0


def _print_shapes(profile: dict) -> None:
    macs, model = profile["macs"], profile["model"]
    print(
        f"{profile['name']}: {profile['source']}, {profile['weights']} weights; "
        f"{profile['parameters']['total']:,} parameters, {model['bytes']:,} bytes "
        f"({model['bytes_of']})"
    )
    shares = sorted(macs["by_kind"].items(), key=lambda item: -item[1])
    listed = ", ".join(f"{kind} {100 * part / macs['total']:.1f} %" for kind, part in shares)
    print(
        f"{macs['total'] / 1e9:.2f} GMACs for {macs['audio_seconds']:g} s (SUPERB), "
        f"{macs['per_second'] / 1e9:.4f} a second: {listed}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
