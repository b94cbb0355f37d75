"""Tell a recipe whether a stage must run, and record that it ran: see espnet_lite/stamps.py.

The recipe's plan comes on standard input (words ended by NUL bytes). `check` prints one line and
exits 0 (run) or 3 (up to date); with `--owner PID` it also locks the stage for that process until
`finish` or `release`.
"""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors

UP_TO_DATE = 3


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    args_parser = parser(__doc__.splitlines()[0])
    args_parser.add_argument("action", choices=["check", "foresee", "finish", "release"])
    args_parser.add_argument("--stage", required=True, help="name of the stage")
    args_parser.add_argument("--owner", type=int, help="pid of the recipe that runs the stage")
    args_parser.add_argument("--refused", action="store_true", help="the stage refused its input")
    args_parser.add_argument("--command", default="./run.sh", help="how the recipe was called")
    args_parser.add_argument("--rerun", nargs="*", default=[], help="stages that run before it")
    args = args_parser.parse_args(argv)

    from espnet_lite import locks, stamps

    stages = stamps.parse_plan(sys.stdin.buffer.read())
    stage = stages[args.stage]
    locked = Path(stage.stamp)
    if args.action == "check":
        verdict = stamps.check(stages, args.stage, command=args.command)
        print(f"{stage.title()}: {verdict.why}")
        if not verdict.run:
            return UP_TO_DATE
        if args.owner is not None:
            locks.acquire(locked, pid=args.owner)
        stamps.begin(stage)
    elif args.action == "foresee":
        verdict = stamps.foresee(stages, args.stage, set(args.rerun))
        print(f"{stage.title()}: {'would run, ' if verdict.run else ''}{verdict.why}")
        return 0 if verdict.run else UP_TO_DATE
    else:
        if args.action == "finish":
            stamps.finish(stage)
        elif args.refused:
            stamps.withdraw(stage)
        if args.owner is not None:
            locks.release_of(locked, pid=args.owner)
    return 0


if __name__ == "__main__":
    sys.exit(main())
