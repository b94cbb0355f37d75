"""Command lines: options with `-` and `_` alike, no abbreviations."""

import argparse
import difflib
import sys
from pathlib import Path


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args=None, namespace=None):
        given = sys.argv[1:] if args is None else list(args)
        given = [_underscored(arg) for arg in given]
        self._check_names(given)
        return super().parse_known_args(given, namespace)

    def error(self, message):
        self.exit(2, f"error: {message}; {self.prog} --help lists the options\n")

    def _check_names(self, given: list[str]) -> None:
        """Name an unknown option and the nearest known one, before what argparse finds missing."""
        shown = [
            name
            for action in self._actions
            if action.help is not argparse.SUPPRESS
            for name in action.option_strings
        ]
        for arg in given:
            if arg == "--":
                return
            name = arg.partition("=")[0]
            # With a blank in it argparse takes it for a value.
            if not arg.startswith("--") or " " in arg or name in self._option_string_actions:
                continue
            near = difflib.get_close_matches(name, shown, n=1, cutoff=0.6)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            self.error(f"unknown option '{name}'{hint}")


def _underscored(arg: str) -> str:
    """Return `--a-b=c-d` as `--a_b=c-d`; values and single-dash options stay as they are."""
    if not arg.startswith("--") or arg == "--":
        return arg
    name, equals, value = arg.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser whose options are declared with underscores and take either spelling.

    A usage error prints one line and exits with code 2.
    """
    return _Parser(
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def add_training_options(args: argparse.ArgumentParser) -> None:
    """Declare the options that every training has."""
    args.add_argument("--config", required=True, type=Path, help="YAML of model, data and train")
    for name, purpose in (("train_dirs", "train on"), ("dev_dirs", "validate on")):
        args.add_argument(
            f"--{name}", required=True, nargs="+", type=Path, help=f"dump folders to {purpose}"
        )
    args.add_argument(
        "--cmvn", type=Path, help="statistics made by compute_cmvn, where cmvn is global"
    )
    args.add_argument("--expdir", required=True, type=Path, help="experiment folder")
    args.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    args.add_argument("--fresh", action="store_true", help="move an experiment aside, start anew")
    args.add_argument("--device", default="auto", help="auto, cpu or cuda")


def add_job_options(args: argparse.ArgumentParser) -> None:
    """Declare the options of programs that run jobs; espnet_lite.jobs.launcher takes them."""
    args.add_argument("--cmd_backend", default="local", help="local, slurm, sge, pbs or ssh")
    args.add_argument(
        "--cluster_config",
        type=Path,
        help="YAML of commands and flags, in place of utils/cluster/BACKEND.yaml",
    )
    args.add_argument(
        "--resource",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="resources",
        help="of each task, by a name in that YAML: cpu=4, mem=8G, gpu=1, time=12:00:00, ...",
    )
    args.add_argument(
        "--max_jobs_run", type=int, default=0, help="tasks that run at once; 0: no limit"
    )
    args.add_argument(
        "--retries", type=int, default=0, help="how often a task that failed is run again"
    )


def words_until_command(given: list[str], flags: tuple[str, ...] = ()) -> int:
    """Return how many words stand before the first one that is no option and no option's value.

    Args:
        given: a command line whose options, but for `flags` and help, all take one value.
    """
    position = 0
    while position < len(given) and given[position].startswith("-"):
        word = _underscored(given[position])
        alone = "=" in word or word in ("-h", "--help", *flags)
        position += 1 if alone else 2
    return min(position, len(given))


def command_line(program: str, argv: list[str] | None) -> list[str]:
    """Return the words that start a program of this package again."""
    given = sys.argv[1:] if argv is None else argv
    return [sys.executable, "-m", f"espnet_lite.bin.{program}", *given]
