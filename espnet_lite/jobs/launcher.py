"""Runs arrays to their end: in order, failed tasks again, all of it stopped by a signal."""

import contextlib
import shutil
import signal
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from espnet_lite.errors import REQUEUE, InputError
from espnet_lite.files import write_faults_named
from espnet_lite.jobs.array import Array
from espnet_lite.jobs.backends import Backend, Run, find_backend
from espnet_lite.jobs.cluster import Cluster, load_cluster
from espnet_lite.jobs.failure import Failure, describe_failure
from espnet_lite.locks import folder_lock

_MISTAKE = 2  # exit code of a program that was given something wrong: it would be so again
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@dataclass
class Launcher:
    """Runs arrays in a backend.

    Attributes:
        backend: where tasks run.
        cluster: its commands and resources.
        asked: resources that the user asks for, over the cluster's defaults.
        retries: how often a task that failed is run again; never one that was given something wrong.
        report: gets a line for each thing the user wants to know.
        follow: gets what the only task of an array prints, as it comes; None: nobody does.
    """

    backend: Backend
    cluster: Cluster
    asked: Mapping[str, str] = field(default_factory=dict)
    retries: int = 0
    report: Callable[[str], None] = print
    follow: Callable[[str], None] | None = None

    def resources_of(self, program: str) -> dict[str, str]:
        """Return the resources of a program's tasks."""
        return self.cluster.resources_of(program, self.asked)

    def run(self, *arrays: Array) -> Failure | None:
        """Run arrays, each when the one before it ended well; return None when all did.

        A task that ends with REQUEUE saved its state because it was told to stop, as by a scheduler
        that needs its place: it is started again, however often.

        The first task that fails for good stops all others. A signal does too; what was running then
        had the chance to save its state.
        """
        with contextlib.ExitStack() as held, _signals() as stopped_by:
            for array in arrays:
                held.enter_context(folder_lock(array.folder))
                self.backend.clear(array)
                shutil.rmtree(array.folder, ignore_errors=True)
                for task in array.tasks:
                    array.log_of(task).unlink(missing_ok=True)
            return self._run_in_order(list(arrays), stopped_by)

    def _run_in_order(self, arrays: list[Array], stopped_by: list[int]) -> Failure | None:
        waves = [_Wave(array) for array in arrays]
        try:
            for place, wave in enumerate(waves):
                while wave.tasks:
                    self._start(waves[place:])
                    failure = self._wait(wave, stopped_by)
                    if failure is not None:
                        return failure
                    if wave.tasks:  # again: so what waits for them must wait anew
                        _stop(waves[place + 1 :])
        finally:
            _stop(waves)
        for wave in waves:
            shutil.rmtree(wave.array.folder, ignore_errors=True)
        return None

    def _start(self, waves: Sequence["_Wave"]) -> None:
        """Start the first wave and, where the queue keeps the order, those that wait for it."""
        before = None
        for wave in waves:
            if wave.run is None:
                wave.begin(self.backend, before)
            before = wave.run
            if not self.backend.knows_order:
                return

    def _wait(self, wave: "_Wave", stopped_by: list[int]) -> Failure | None:
        """Wait until all tasks of a wave ended; leave in `wave.tasks` those to be run again."""
        while True:
            codes = wave.run.codes()
            if self.follow is not None and len(wave.array.tasks) == 1:
                wave.tail.hand_on(self.follow)
            if stopped_by:
                return self._stopped(wave, stopped_by[0])
            for task in sorted(codes):
                if codes[task] not in (0, REQUEUE) and not self._may_retry(wave, task, codes[task]):
                    return _failure(wave, task, codes[task])
            if len(codes) == len(wave.tasks):
                break
            time.sleep(self.cluster.poll_seconds)
        again = [task for task in wave.tasks if codes[task]]
        for task in again:
            if codes[task] == REQUEUE:
                self.report(f"task {task} saved its state and is queued again")
            else:
                wave.tries[task] += 1
                self.report(
                    f"task {task} ended with code {codes[task]}, run again "
                    f"({wave.tries[task]} of {self.retries}); its log: {wave.array.log_of(task)}"
                )
        wave.tasks, wave.run = again, None
        return None

    def _may_retry(self, wave: "_Wave", task: int, code: int) -> bool:
        return code != _MISTAKE and wave.tries[task] < self.retries

    def _stopped(self, wave: "_Wave", number: int) -> Failure:
        wave.run.stop()
        codes = wave.run.codes()
        saved = all(codes.get(task) in (0, REQUEUE) for task in wave.tasks)
        what = ", its state is saved" if saved and REQUEUE in codes.values() else ""
        return Failure(
            f"{wave.array.name}: stopped by signal {number}{what}",
            REQUEUE if what else 128 + number,
        )


def launcher_from(options: Namespace) -> Launcher:
    """Return the launcher that a command line asks for (bin.arguments.add_job_options).

    Raises:
        InputError: an unknown backend, a fault in the cluster's YAML, or a senseless value.
    """
    asked = {}
    for text in options.resources:
        name, equals, value = text.partition("=")
        if not name or not equals or not value:
            raise InputError(f"'{text}' is not NAME=VALUE", where="--resource")
        asked[name] = value
    for name in ("max_jobs_run", "retries"):
        if vars(options)[name] < 0:
            raise InputError(f"{vars(options)[name]}, expected 0 or more", where=f"--{name}")
    make = find_backend(options.cmd_backend)
    cluster = load_cluster(options.cmd_backend, options.cluster_config)
    backend = make(cluster, at_once=options.max_jobs_run)
    return Launcher(backend, cluster, asked=asked, retries=options.retries)


class _Wave:
    """Tasks of an array that are to run now: all of them first, then those that failed."""

    def __init__(self, array: Array):
        self.array = array
        self.tasks = list(array.tasks)
        self.tries = dict.fromkeys(array.tasks, 0)
        self.run: Run | None = None
        self.tail = _Tail(array.log_of(array.tasks[0]))
        self._begun = 0

    def begin(self, backend: Backend, after: Run | None) -> None:
        self._begun += 1
        folder: Path = self.array.folder / str(self._begun)
        with write_faults_named(folder):
            folder.mkdir(parents=True)
            for task in self.tasks:
                self.array.log_of(task).parent.mkdir(parents=True, exist_ok=True)
        self.tail = _Tail(self.array.log_of(self.tasks[0]))  # before anything is printed anew
        self.run = backend.start(self.array, self.tasks, folder=folder, after=after)


def _stop(waves: Sequence[_Wave]) -> None:
    """Stop what runs, the last first: it waits for those before it."""
    for wave in reversed(waves):
        if wave.run is not None:
            wave.run.stop()
            wave.run = None


def _failure(wave: _Wave, task: int, code: int) -> Failure:
    array = wave.array
    return describe_failure(
        task=task,
        tasks=len(array.tasks),
        exit_code=code,
        log=array.log_of(task),
        data_dirs=array.data_dirs,
        notes=wave.run.notes(task),
    )


class _Tail:
    """What a growing file has that was not handed on yet."""

    def __init__(self, path: Path):
        self._path = path
        self._position = path.stat().st_size if path.exists() else 0

    def hand_on(self, to: Callable[[str], None]) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._position += len(whole)
        if whole:
            to(whole.decode("utf-8", "replace"))


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Yield a list that gets the number of a signal that asks to stop; a second one ends at once."""
    numbers: list[int] = []

    def note(number: int, frame) -> None:
        numbers.append(number)
        signal.signal(number, signal.SIG_DFL)

    handlers = {number: signal.signal(number, note) for number in _STOPS}
    try:
        yield numbers
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
