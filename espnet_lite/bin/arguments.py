"""Command lines: options with `-` and `_` alike, no abbreviations."""

import argparse
import sys


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args=None, namespace=None):
        given = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args([_underscored(arg) for arg in given], namespace)


def _underscored(arg: str) -> str:
    """Return `--a-b=c-d` as `--a_b=c-d`; values and single-dash options stay as they are."""
    if not arg.startswith("--") or arg == "--":
        return arg
    name, equals, value = arg.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser whose options are declared with underscores and take either spelling.

    A usage error prints one line and exits with code 2 (argparse's own rule).
    """
    return _Parser(
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
