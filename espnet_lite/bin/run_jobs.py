"""Run a command once, or as an array of tasks: here, over ssh, or in the queue of a cluster.

    run_jobs --cmd_backend slurm --resource mem=4G JOB=1:8 exp/log/decode.JOB.log program --part JOB

As Kaldi's run.pl and queue.pl, but no word passes through a shell: each arrives at the program as it
stands here. All tasks run to their end before this program ends; if one fails, the end of its log is
shown and the others are stopped.
"""

import functools
import re
import sys
from pathlib import Path

from espnet_lite.bin.arguments import add_job_options, parser, words_until_command
from espnet_lite.errors import InputError, reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Return 0 when all tasks ended well, else the exit code of the first that failed.

    75 means that a signal stopped the task, and that it saved its state.
    """
    given = sys.argv[1:] if argv is None else argv
    options = parser(__doc__)
    add_job_options(options)
    options.add_argument(
        "--threads", type=int, help="of each task, for OpenMP (default: its resource cpu)"
    )
    options.add_argument("--name", help="of the job (default: the name of the log)")
    options.add_argument("--program", default="", help="whose default resources the YAML has")
    options.add_argument(
        "--data_dir",
        action="append",
        default=[],
        type=Path,
        help="where data lines are looked up that the log of a failed task names",
    )
    options.add_argument("--after", action="append", default=[], help="id of a job to wait for")
    options.add_argument("--follow", action="store_true", help="print what the only task prints")
    options.add_argument("--dry_run", action="store_true", help="print what would be run")
    options.usage = "%(prog)s [options] [JOB=1:N] LOG COMMAND [ARGUMENT ...]"
    ours = words_until_command(given, flags=("--follow", "--dry_run"))
    arguments, theirs = options.parse_args(given[:ours]), given[ours:]

    from espnet_lite.jobs.array import Array, numbered, parse_tasks

    array_of = parse_tasks(theirs[0]) if theirs else None
    name, tasks = array_of if array_of else (None, range(1, 2))
    log_and_command = theirs[1:] if array_of else theirs
    if len(log_and_command) < 2:
        raise InputError("expected [JOB=1:N] LOG COMMAND [ARGUMENT ...] after the options")
    log, *command = (numbered(word, name) for word in log_and_command)
    if len(tasks) > 1 and len(log.pieces) == 1:
        raise InputError(
            f"{len(tasks)} tasks cannot share one log", where=log.at(1), fix=f"put {name} into it"
        )

    from espnet_lite.jobs.launcher import launcher_from

    launcher = launcher_from(arguments)
    resources = launcher.resources_of(arguments.program)
    base = Path("".join(log.pieces))
    label = base.stem.strip(".") or "log"
    array = Array(
        name=arguments.name or re.sub(r"^(?=[^A-Za-z_])|[^\w.-]", "_", label, flags=re.ASCII),
        command=tuple(command),
        log=log,
        folder=base.parent / ".jobs" / label,
        tasks=tasks,
        resources=resources,
        threads=arguments.threads or int(resources.get("cpu", 1)),
        data_dirs=tuple(arguments.data_dir),
        after=tuple(arguments.after),
    )
    if arguments.dry_run:
        print(launcher.backend.describe(array), end="")
        return 0
    if arguments.follow:
        launcher.follow = functools.partial(print, end="", flush=True)
    failure = launcher.run(array)
    if failure is not None:
        print(failure.message, file=sys.stderr)
        return failure.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
