"""The compiled kernels of this process, at the level of instructions that its processor has."""

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

from espnet_lite.errors import InputError, unknown_name
from espnet_lite.kernels.build import Build, levels

LEVEL = "ESPNET_LITE_KERNELS"
TORCH = "torch"  # the level of no C++ at all


class Library:
    """A shared library of kernels.

    Attributes:
        level: highest level that the processor can run and the compiler knew.
    """

    def __init__(self, path: Path):
        self._handle = ctypes.CDLL(str(path))
        possible = levels()[: self._handle.cpu_level_portable() + 1]
        self.level = next(level for level in reversed(possible) if self._has(level))

    def _has(self, level: str) -> bool:
        try:
            self._handle[f"cpu_level_{level}"]
        except AttributeError:
            return False
        return True

    def function(self, name: str, level: str, arguments: tuple[type, ...]) -> Callable[..., int]:
        """Return the C function of a kernel, as it was compiled for `level`."""
        function = self._handle[f"{name}_{level}"]
        function.argtypes, function.restype = arguments, ctypes.c_int
        return function


@functools.cache
def library() -> Library | None:
    """Return the library, compiled first if need be; None, after a line on stderr, without one."""
    try:
        return Library(Build.planned().library())
    except (InputError, OSError) as error:  # OSError: a library that does not load here
        print(f"espnet_lite: no C++ kernels, plain torch instead: {error}", file=sys.stderr)
        return None


@functools.cache
def chosen_level() -> str:
    """Return the level that this process computes at: the processor's, or a lower one by
    ESPNET_LITE_KERNELS.

    Raises:
        InputError: a level that does not exist, or that the processor does not have.
    """
    wanted = os.environ.get(LEVEL)
    if wanted is not None and wanted not in (TORCH, *levels()):
        raise unknown_name("level", wanted, (TORCH, *levels()), where=LEVEL)
    if wanted == TORCH:
        return TORCH
    found = library()
    if found is None:
        return TORCH
    if wanted is not None and levels().index(wanted) > levels().index(found.level):
        raise InputError(f"{wanted}, but this processor has only {found.level}", where=LEVEL)
    return wanted or found.level


@functools.cache
def kernel(name: str, arguments: tuple[type, ...]) -> Callable[..., int] | None:
    """Return the C function of a kernel at the level of this process; None: compute in torch."""
    level = chosen_level()
    return None if level == TORCH else library().function(name, level, arguments)
