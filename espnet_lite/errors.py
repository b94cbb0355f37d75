"""The one exception that means "the user can mend this", and how a program ends on it."""

import functools
import sys
from collections.abc import Callable

REQUEUE = 75  # exit code of a run that saved its state and wants to be started again (EX_TEMPFAIL)


class InputError(Exception):
    """A fault in what the user gave: one line with place, value, expectation and the mending command.

    Programs turn it into that line on stderr and exit code 2. Every other exception keeps its
    traceback and exit code 1, because it is a fault of the toolkit.
    """

    def __init__(self, message: str, *, where: object = None, fix: str | None = None):
        """Join `where: message; fix` into one line.

        Args:
            message: what was wrong, the value found and what was expected.
            where: file, `file:line`, utterance or key the fault stands in.
            fix: the command or the edit that mends it.
        """
        line = f"{where}: {message}" if where is not None else message
        if fix:
            line = f"{line}; {fix}"
        super().__init__(" ".join(line.split()))


def reports_input_errors(main: Callable[..., int]) -> Callable[..., int]:
    """Return `main` that prints an InputError as one line on stderr and returns 2."""

    @functools.wraps(main)
    def wrapped(*args, **kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    return wrapped


def unknown_name(kind: str, name: str, known, *, where: object = None) -> InputError:
    """Return the error for a name that a family's dict does not have, with the nearest known one."""
    import difflib

    near = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.6)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return InputError(
        f"unknown {kind} '{name}'{hint}, expected one of: {', '.join(map(str, sorted(known)))}",
        where=where,
    )
