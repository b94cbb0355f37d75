"""Tasks as jobs in a scheduler's queue: its commands are the cluster's, what they leave are files."""

import re
import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from espnet_lite.errors import InputError
from espnet_lite.files import write_text
from espnet_lite.jobs.array import Array
from espnet_lite.jobs.cluster import Cluster, filled
from espnet_lite.jobs.script import script_of

LOST = 255  # stands for the exit code of a task that left the queue without one
_CANCEL_SECONDS = 90.0  # schedulers send SIGKILL half a minute after SIGTERM, or sooner
_CALL_SECONDS = 60.0


def _call(command: Sequence[str]) -> subprocess.CompletedProcess:
    """Run a command of the scheduler and return what it said; one that hangs counts as failed."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_CALL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer in {_CALL_SECONDS:g} s")
    except FileNotFoundError as error:
        raise InputError(
            f"no program '{command[0]}' on this machine",
            where="--cmd_backend",
            fix="run this where jobs are submitted, or choose another backend",
        ) from error


class QueuedRun:
    """Some tasks of an array in a queue, with an id there."""

    def __init__(self, cluster: Cluster, job: str, tasks: Sequence[int], folder: Path):
        self.job = job
        self._cluster = cluster
        self._waiting = list(tasks)
        self._folder = folder
        self._codes: dict[int, int] = {}
        self._asked = time.monotonic()
        self._gone_since: float | None = None

    def codes(self) -> dict[int, int]:
        self._look()
        now = time.monotonic()
        if self._waiting and now - self._asked >= self._cluster.query_seconds:
            self._asked = now
            if in_queue(self._cluster, self.job):
                self._gone_since = None
            elif self._gone_since is None:
                self._gone_since = now
        if self._gone_since is not None and now - self._gone_since >= self._cluster.lost_seconds:
            self._codes.update(dict.fromkeys(self._waiting, LOST))
            self._waiting = []
        return self._codes

    def _look(self) -> None:
        """Take the exit codes that are there; they appear whole."""
        there = {path.name for path in self._folder.iterdir()}  # asks a network's server anew
        for task in self._waiting:
            if f"code.{task}" in there:
                self._codes[task] = int((self._folder / f"code.{task}").read_text())
        self._waiting = [task for task in self._waiting if task not in self._codes]

    def stop(self) -> None:
        if self._waiting:
            cancel(self._cluster, self.job)
            self._look()

    def notes(self, task: int) -> list[str]:
        """Return the end of what the scheduler said of this run."""
        known = ("script.sh", "id", "code.")
        said = [p for p in sorted(self._folder.iterdir()) if not p.name.startswith((*known, "."))]
        lines = [line for p in said for line in p.read_text(errors="replace").splitlines()]
        return [line for line in lines if line.strip()][-5:]


def in_queue(cluster: Cluster, job: str) -> bool:
    """Return whether the scheduler has the job; a scheduler that does not answer may have it."""
    done = _call(filled(cluster.query, id=job))
    if done.returncode == 0:
        return bool(done.stdout.strip())
    return not (cluster.gone and re.search(cluster.gone, done.stderr))


def cancel(cluster: Cluster, job: str) -> bool:
    """Ask the scheduler to end a job and wait for its end; return whether it came."""
    _call(filled(cluster.cancel, id=job))
    end = time.monotonic() + _CANCEL_SECONDS
    while in_queue(cluster, job):
        if time.monotonic() > end:
            return False
        time.sleep(min(1.0, cluster.query_seconds))
    return True


class Queue:
    """Jobs of a scheduler."""

    knows_order = True

    def __init__(self, cluster: Cluster, *, at_once: int = 0):
        self._cluster = cluster
        self._at_once = at_once

    def start(
        self, array: Array, tasks: Sequence[int], *, folder: Path, after: QueuedRun | None = None
    ) -> QueuedRun:
        script = folder / "script.sh"
        write_text(script, self._script(array, tasks, folder))
        script.chmod(0o755)
        command = self._submission(array, len(tasks), script, [after.job] if after else [])
        done = _call(command)
        found = re.search(self._cluster.job_id, done.stdout)
        if done.returncode or found is None:
            raise InputError(
                f"{shlex.join(command)} ended with code {done.returncode}: "
                f"{(done.stderr or done.stdout).strip() or 'it said nothing'}",
                where="the queue refused a job",
                fix="see --resource, and the YAML of the cluster: --cluster_config FILE",
            )
        write_text(folder / "id", found[1] + "\n")
        print(f"job {found[1]}: {array.name}, {_counted(tasks)}", flush=True)
        return QueuedRun(self._cluster, found[1], tasks, folder)

    def clear(self, array: Array) -> None:
        for path in array.folder.glob("*/id"):
            job = path.read_text().strip()
            if job and in_queue(self._cluster, job):
                print(f"job {job} of a run that was killed is in the queue, ending it", flush=True)
                if not cancel(self._cluster, job):
                    command = shlex.join(filled(self._cluster.cancel, id=job))
                    raise InputError(f"job {job} of an earlier run does not end", fix=command)

    def _submission(
        self, array: Array, count: int, script: Path, before: Sequence[str]
    ) -> list[str]:
        cluster = self._cluster
        command = [*filled(cluster.submit), *filled(cluster.named, name=array.name)]
        command += filled(cluster.output, folder=str(script.parent))
        if count > 1 and 0 < self._at_once < count:
            command += filled(cluster.array_most, count=count, most=self._at_once)
        elif count > 1:
            command += filled(cluster.array, count=count)
        if earlier := (*array.after, *before):
            command += filled(cluster.after, ids=cluster.between_ids.join(earlier))
        return [*command, *cluster.flags(array.resources), str(script)]

    def _script(self, array: Array, tasks: Sequence[int], folder: Path) -> str:
        launch = []
        if "nodes" in array.resources:
            launch = filled(self._cluster.launch, **{"cpu": "1", **array.resources})
        return script_of(
            array,
            tasks,
            folder=folder,
            index=self._cluster.index,
            launch=launch,
        )

    def describe(self, array: Array) -> str:
        script = array.folder / "script.sh"
        command = shlex.join(self._submission(array, len(array.tasks), script, ()))
        return f"{command}\n{self._script(array, list(array.tasks), array.folder)}"


def _counted(tasks: Sequence[int]) -> str:
    if len(tasks) == 1:
        return f"task {tasks[0]}"
    return f"{len(tasks)} tasks"
