"""Locks that keep two runs out of one folder, and know when their owner is dead.

The lock of `exp/asr_x` is the file `exp/.asr_x.lock`, beside the folder, so that the folder itself
can be moved or replaced while it is held. The file says who holds it (host, pid, the process's start
time); `flock` guards only the moment in which it is read and written, so two contenders for the lock
of a dead owner cannot both win. `flock` alone would do on one machine; the text is for the people
and the hosts that share a network folder.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from espnet_lite.errors import InputError
from espnet_lite.files import write_faults_named

# File systems without flock answer with one of these; then only the owner's text protects.
_NO_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


@dataclass(frozen=True, slots=True)
class LockOwner:
    """Who holds a lock. `start` and `boot` tell a reused pid and a restarted machine apart.

    `job` is the task of an array of espnet_lite.jobs. Its launcher starts it again only after its end,
    perhaps on another host: to itself, a job's lock of before is a dead one's.
    """

    host: str
    boot: str  # kernel's boot id, "" where the system has none
    namespace: str  # pid namespace: containers of one host do not see each other's pids
    pid: int
    start: str  # start time of the process in clock ticks since boot
    since: str  # local time, for people
    job: str = ""

    def is_dead(self) -> bool | None:
        """Return True or False where it can be known, None for a process of another host."""
        here = _describe(self.pid)
        if self.host != here.host:
            return True if self.job and self.job == here.job else None
        if self.boot != here.boot:
            return True
        if self.namespace != here.namespace:
            return None
        return not _is_running(self.pid) or self.start != here.start


def _read_proc(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:  # no /proc (macOS), or the process is gone
        return ""


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; [] without such a process."""
    # The second field is the program's name in brackets and may hold blanks and brackets itself.
    return _read_proc(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, under another user
        return True
    return _stat_fields(pid)[:1] not in (["Z"], ["X"])  # a zombie writes nothing any more


def _describe(pid: int) -> LockOwner:
    fields = _stat_fields(pid)
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return LockOwner(
        host=socket.gethostname(),
        boot=_read_proc("/proc/sys/kernel/random/boot_id"),
        namespace=namespace,
        pid=pid,
        start=fields[19] if len(fields) > 19 else "",  # field 22 of the whole line
        since=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        job=os.environ.get("ESPNET_LITE_JOB", ""),
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Yield a descriptor of the lock file that `path` names now, with its flock held."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_FLOCK:
                    raise
            try:
                current = os.stat(path).st_ino == os.fstat(descriptor).st_ino
            except FileNotFoundError:
                current = False
            if current:  # else its owner removed it while we waited
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _read_owner(descriptor: int) -> LockOwner | None:
    """Return the owner written in the file; None when empty or cut short by its writer's death."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    raw = os.read(descriptor, 65536)
    try:
        return LockOwner(**json.loads(raw))
    except (ValueError, TypeError):
        return None


def lock_path(folder: Path | str) -> Path:
    """Return the path of the lock file of `folder`."""
    folder = Path(os.path.abspath(folder))
    return folder.with_name(f".{folder.name}.lock")


def acquire(folder: Path | str, *, pid: int | None = None) -> LockOwner:
    """Take the lock of `folder` for process `pid` (default: this one) and return its owner entry.

    A lock whose owner is dead is taken over. Parent folders are made.

    Raises:
        InputError: a live process holds it, or one of another host, of which nothing can be known.
    """
    folder, path = Path(folder), lock_path(folder)
    owner = _describe(os.getpid() if pid is None else pid)
    with write_faults_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(path) as descriptor:
            holder = _read_owner(descriptor)
            dead = holder is None or holder.is_dead()
            if not dead:
                raise _in_use(folder, path, holder, known_alive=dead is False)
            text = json.dumps(asdict(owner)).encode() + b"\n"
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text, 0)
            os.fsync(descriptor)
    return owner


def _in_use(folder: Path, path: Path, holder: LockOwner, *, known_alive: bool) -> InputError:
    if known_alive:
        fix = f"wait for it, end it (kill {holder.pid}), or choose another folder"
    else:
        fix = f"if that process is gone, remove the lock: rm {path}"
    return InputError(
        f"in use by process {holder.pid} on host {holder.host} since {holder.since} (lock {path})",
        where=folder,
        fix=fix,
    )


def release(folder: Path | str, owner: LockOwner) -> None:
    """Give the lock back, if `owner` still holds it."""
    path = lock_path(folder)
    if not path.exists():
        return
    with _opened(path) as descriptor:
        if _read_owner(descriptor) in (owner, None):
            path.unlink(missing_ok=True)


def release_of(folder: Path | str, *, pid: int) -> None:
    """Give back the lock that process `pid` of this host took, if it still holds it."""
    path = lock_path(folder)
    if not path.exists():
        return
    with _opened(path) as descriptor:
        holder = _read_owner(descriptor)
        if holder is None or (holder.pid == pid and holder.host == socket.gethostname()):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_lock(folder: Path | str) -> Iterator[None]:
    """Hold the lock of `folder` while the block runs.

    Raises:
        InputError: another run holds it; the message names its pid, host and since when.
    """
    owner = acquire(folder)
    try:
        yield
    finally:
        release(folder, owner)
