"""Every level of instructions that this processor has, one test after the other."""

from collections.abc import Callable

import pytest

from espnet_lite.kernels.build import levels
from espnet_lite.kernels.library import library


@pytest.fixture(params=levels())
def level(request) -> str:
    """Return one level; the test is skipped where the processor or a compiler is missing."""
    made = library()
    if made is None:
        pytest.skip("no C++ compiler here")
    if levels().index(request.param) > levels().index(made.level):
        pytest.skip(f"this processor has no {request.param}")
    return request.param


@pytest.fixture
def of_level(level) -> Callable:
    """Return what gives the C function of a kernel at one level, by its name and arguments."""

    def function(name: str, arguments: tuple[type, ...]) -> Callable[..., int]:
        return library().function(name, level, arguments)

    return function
