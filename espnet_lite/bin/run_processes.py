"""Run a training program as several processes of this machine that train one model together.

torchrun starts and watches them; this adds the toolkit's exit codes (2: a mistake to mend, told in one
line; 75: saved, run again to go on), which torchrun turns into 1 and a report.
"""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser, words_until_command
from espnet_lite.errors import reports_input_errors, unknown_name


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Return the exit code of the first process that failed, or 0."""
    given = sys.argv[1:] if argv is None else argv
    options = parser(__doc__)
    options.add_argument(
        "--nproc", required=True, type=int, help="processes; on GPUs, one for each"
    )
    options.add_argument("program", help="such as train_asr; all that follows goes to it")
    ours = words_until_command(given) + 1  # with the program
    arguments = options.parse_args(given[:ours])
    if arguments.nproc < 1:
        options.error(f"argument --nproc: {arguments.nproc}, expected a whole number from 1")

    programs = [path.stem for path in Path(__file__).parent.glob("train_*.py")]
    if arguments.program not in programs:
        raise unknown_name("program", arguments.program, programs)

    from espnet_lite.train.launch import run_together

    module = f"espnet_lite.bin.{arguments.program}"
    return run_together([sys.executable, "-m", module, *given[ours:]], processes=arguments.nproc)


if __name__ == "__main__":
    sys.exit(main())
