"""Tasks as processes that this one starts and watches: here, or over ssh on other machines."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from espnet_lite.errors import InputError
from espnet_lite.files import write_faults_named, write_text
from espnet_lite.jobs.array import Array, in_one_line
from espnet_lite.jobs.cluster import Cluster, filled
from espnet_lite.jobs.script import script_of

STOP_SECONDS = 10.0  # a process may take this long to leave after SIGTERM


@runtime_checkable
class _Process(Protocol):
    """One task, started when its turn comes."""

    task: int

    def begin(self) -> None: ...

    def code(self) -> int | None: ...

    def ask_to_end(self) -> None: ...

    def kill(self) -> None: ...


class _Processes:
    """Tasks of which `at_once` run at a time, in their order."""

    def __init__(self, processes: Sequence[_Process], at_once: int):
        self._waiting = list(processes)
        self._running: list[_Process] = []
        self._at_once = at_once
        self._codes: dict[int, int] = {}
        self.codes()

    def codes(self) -> dict[int, int]:
        for process in self._running:
            code = process.code()
            if code is not None:
                self._codes[process.task] = code
        self._running = [p for p in self._running if p.task not in self._codes]
        while self._waiting and len(self._running) < self._at_once:
            process = self._waiting.pop(0)
            process.begin()
            self._running.append(process)
        return self._codes

    def stop(self) -> None:
        self._waiting.clear()
        for process in self._running:
            process.ask_to_end()
        end = time.monotonic() + STOP_SECONDS
        while self._running and time.monotonic() < end:
            time.sleep(0.02)
            self.codes()
        for process in self._running:
            process.kill()

    def notes(self, task: int) -> list[str]:
        return []


class _LocalProcess:
    """A task in a session of its own, so that a signal reaches all that it started."""

    def __init__(self, array: Array, task: int):
        self.task = task
        self._array = array
        self._process: subprocess.Popen | None = None
        self._begun = 0.0

    def begin(self) -> None:
        array, log = self._array, self._array.log_of(self.task)
        command = array.command_of(self.task)
        threads = str(array.threads)
        with write_faults_named(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as file:
                where = f"{socket.gethostname()}, {time.strftime('%F %T')}, process {os.getpid()}"
                head = f"# task {self.task} on {where}\n# {in_one_line(command)}\n"
                file.write(head.encode("utf-8", "surrogateescape"))
                file.flush()
                self._begun = time.monotonic()
                self._process = self._started(command, file, threads)

    def _started(self, command: list[str], file: BinaryIO, threads: str) -> subprocess.Popen:
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
                start_new_session=True,
            )
        except (FileNotFoundError, PermissionError) as error:
            raise InputError(f"cannot run '{command[0]}': {error.strerror}") from error

    def code(self) -> int | None:
        code = self._process.poll()
        if code is None:
            return None
        code = code if code >= 0 else 128 - code
        seconds = time.monotonic() - self._begun
        with contextlib.suppress(OSError), self._array.log_of(self.task).open("ab") as file:
            end = f"ended with code {code} after {seconds:.0f} s, {time.strftime('%F %T')}"
            file.write(f"# task {self.task} {end}\n".encode())
        return code

    def ask_to_end(self) -> None:
        _signal_session(self._process, signal.SIGTERM)

    def kill(self) -> None:
        _signal_session(self._process, signal.SIGKILL)
        self._process.wait()


def _signal_session(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


class Local:
    """Processes of this machine, `at_once` of them at a time (0: all)."""

    knows_order = False

    def __init__(self, cluster: Cluster, *, at_once: int = 0):
        self._at_once = at_once

    def start(
        self, array: Array, tasks: Sequence[int], *, folder: Path, after: object = None
    ) -> _Processes:
        _refuse_after(array, "local")
        return _Processes([_LocalProcess(array, t) for t in tasks], self._at_once or len(tasks))

    def clear(self, array: Array) -> None:
        """Do nothing: the toolkit's programs end when the process that started them is gone."""

    def describe(self, array: Array) -> str:
        return "".join(
            f"{in_one_line(array.command_of(task))} >>{shlex.quote(array.log.at(task))} 2>&1\n"
            for task in array.tasks
        )


class _SshProcess:
    """A task on a host that is free when its turn comes.

    What it leaves lies on the file system that the hosts share. The script ends when its standard
    input does: so it ends with this process, too.
    """

    def __init__(
        self, cluster: Cluster, free_hosts: list[str], *, script: Path, folder: Path, task: int
    ):
        self.task = task
        self._cluster = cluster
        self._free_hosts = free_hosts
        self._script = script
        self._folder = folder
        self._host = ""
        self._process: subprocess.Popen | None = None

    def begin(self) -> None:
        self._host = self._free_hosts.pop(0)
        # ssh joins its words and hands them to the login shell of the other machine.
        remote = shlex.join(["bash", str(self._script.resolve()), str(self.task)])
        with (self._folder / f"ssh.{self.task}.txt").open("wb") as said:
            self._process = subprocess.Popen(
                [*filled(self._cluster.submit, host=self._host), remote],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def code(self) -> int | None:
        code = self._process.poll()
        if code is None:
            return None
        self._free_hosts.append(self._host)
        self._process.stdin.close()
        left = self._folder / f"code.{self.task}"
        if left.is_file():
            return int(left.read_text())
        return code if code > 0 else 255  # ssh itself failed

    def ask_to_end(self) -> None:
        self._process.stdin.close()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class _SshRun(_Processes):
    def __init__(self, processes: Sequence[_SshProcess], at_once: int, folder: Path):
        self._folder = folder
        super().__init__(processes, at_once)

    def notes(self, task: int) -> list[str]:
        said = self._folder / f"ssh.{task}.txt"
        return said.read_text(errors="replace").splitlines() if said.is_file() else []


class Ssh:
    """Processes of the cluster's hosts, one task for each time that a host is named."""

    knows_order = False

    def __init__(self, cluster: Cluster, *, at_once: int = 0):
        if not cluster.hosts:
            raise InputError("no hosts", where="ssh", fix="name them in a YAML: --cluster_config")
        self._cluster = cluster
        self._at_once = at_once

    def start(
        self, array: Array, tasks: Sequence[int], *, folder: Path, after: object = None
    ) -> _Processes:
        _refuse_after(array, "ssh")
        script = folder / "script.sh"
        write_text(script, script_of(array, tasks, folder=folder, watches_input=True))
        free = list(self._cluster.hosts)
        processes = [
            _SshProcess(self._cluster, free, script=script, folder=folder, task=task)
            for task in tasks
        ]
        return _SshRun(processes, min(self._at_once or len(free), len(free)), folder)

    def clear(self, array: Array) -> None:
        """Do nothing: a task ends when the connection of its launcher does."""

    def describe(self, array: Array) -> str:
        return script_of(array, list(array.tasks), folder=array.folder, watches_input=True)


def _refuse_after(array: Array, backend: str) -> None:
    if array.after:
        raise InputError(f"{backend} has no queue to wait in", where="--after")
