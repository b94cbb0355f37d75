"""Run a training program as several processes that train one model together.

torchrun's agent starts and watches them; this adds the toolkit's exit codes (2: a mistake to mend, told
in one line; 75: saved, run again to go on), which torchrun turns into 1 and a report. With --num_nodes it
is started on each of several machines, by srun in a job of Slurm, or by hand with --rendezvous.
"""

import os
import re
import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser, words_until_command
from espnet_lite.errors import InputError, reports_input_errors, unknown_name


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Return the exit code of the first process that failed, or 0."""
    given = sys.argv[1:] if argv is None else argv
    options = parser(__doc__)
    options.add_argument(
        "--nproc", required=True, type=int, help="processes of each machine; on GPUs, one for each"
    )
    options.add_argument("--num_nodes", type=int, default=1, help="machines")
    options.add_argument(
        "--rendezvous",
        metavar="HOST:PORT",
        help="where the machines meet; HOST is one of them (default: as Slurm says)",
    )
    options.add_argument(
        "--node", type=int, help="with --rendezvous: number of this machine; 0: HOST"
    )
    options.add_argument(
        "--restarts", type=int, default=3, help="how often all begin again after one was killed"
    )
    options.add_argument("program", help="such as train_asr; all that follows goes to it")
    ours = words_until_command(given) + 1  # with the program
    arguments = options.parse_args(given[:ours])
    for name, least in (("nproc", 1), ("num_nodes", 1), ("restarts", 0)):
        value = vars(arguments)[name]
        if value < least:
            options.error(f"argument --{name}: {value}, expected a whole number from {least}")

    programs = [path.stem for path in Path(__file__).parent.glob("train_*.py")]
    if arguments.program not in programs:
        raise unknown_name("program", arguments.program, programs)

    from espnet_lite.train.launch import run_together

    module = f"espnet_lite.bin.{arguments.program}"
    return run_together(
        [sys.executable, "-m", module, *given[ours:]],
        processes=arguments.nproc,
        meeting=_meeting(arguments),
        restarts=arguments.restarts,
    )


def _meeting(arguments):
    """Return where the machines meet, None where there is one."""
    from espnet_lite.train.launch import Meeting, meeting_of_slurm

    if arguments.rendezvous is None:
        nodes = arguments.num_nodes
        return None if nodes == 1 else meeting_of_slurm(nodes, os.environ)
    match = re.fullmatch(r"(.+):(\d{1,5})", arguments.rendezvous)
    if match is None or arguments.node is None:
        raise InputError(
            f"'{arguments.rendezvous}', expected HOST:PORT and --node", where="--rendezvous"
        )
    return Meeting(
        name=arguments.rendezvous,
        host=match[1],
        port=int(match[2]),
        is_host=arguments.node == 0,
        nodes=arguments.num_nodes,
    )


if __name__ == "__main__":
    sys.exit(main())
