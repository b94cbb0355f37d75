"""Where tasks run: processes of this machine, of others over ssh, or jobs in a queue."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from espnet_lite.errors import unknown_name
from espnet_lite.jobs.array import Array
from espnet_lite.jobs.processes import Local, Ssh
from espnet_lite.jobs.queued import Queue


@runtime_checkable
class Run(Protocol):
    """Some tasks of an array that were started."""

    def codes(self) -> dict[int, int]:
        """Return the exit codes of the tasks that ended: 128 + n after signal n, or LOST."""

    def stop(self) -> None:
        """Ask all that runs to end by SIGTERM, wait for it, and kill what stays."""

    def notes(self, task: int) -> list[str]:
        """Return what is known of a task beside its log: the end of what the scheduler said."""


@runtime_checkable
class Backend(Protocol):
    """Starts tasks. `knows_order`: what waits for other jobs is handed over at once."""

    knows_order: bool

    def start(
        self, array: Array, tasks: Sequence[int], *, folder: Path, after: Run | None = None
    ) -> Run:
        """Start tasks; `folder` is empty, for what they leave; they wait until `after` ended."""

    def clear(self, array: Array) -> None:
        """End what an earlier, killed launcher left running of this array."""

    def describe(self, array: Array) -> str:
        """Return the commands or the script that `start` would run; nothing is written."""


BACKENDS = {"local": Local, "slurm": Queue, "sge": Queue, "pbs": Queue, "ssh": Ssh}


def find_backend(name: str) -> Callable[..., Backend]:
    """Return the class of that name, called with a cluster and `at_once`: tasks at a time, 0 for all.

    Raises:
        InputError: an unknown name.
    """
    if name not in BACKENDS:
        raise unknown_name("backend", name, BACKENDS, where="--cmd_backend")
    return BACKENDS[name]
