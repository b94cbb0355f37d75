"""Files that are either whole or absent, and text files read with their line numbers."""

import contextlib
import errno
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from espnet_lite.errors import InputError

# What the user can mend: no space, over quota, read-only, no permission, no folder or one in the place of
# the file, too large.
_WRITE_FAULTS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.EFBIG,
)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def write_faults_named(path: Path) -> Iterator[None]:
    """Turn a full disk, a read-only folder and the like into one line that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _WRITE_FAULTS and not _is_missing_folder(error, path):
            raise
        raise InputError(
            f"cannot write: {os.strerror(error.errno)}",
            where=path,
            fix="what was there before is untouched; free space or choose a writable folder and run again",
        ) from error


def _is_missing_folder(error: OSError, path: Path) -> bool:
    """Return whether a folder on the way to `path` is not there and cannot be made, as below /proc.

    Not so for any other file that is missing: that may be one which was to be read.
    """
    is_missing = error.errno == errno.ENOENT and isinstance(error.filename, (str, Path))
    return is_missing and Path(error.filename) in path.parents


def _temporary(path: Path, kind: str) -> Path:
    """Return the hidden name beside `path` that this process gives to its "tmp" or "old"."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.{kind}")


def _is_gone(pid: int) -> bool:
    """Return whether what process `pid` of this host left behind belongs to nobody now."""
    if pid == os.getpid():  # this one has not begun: a process before it had the same number
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # it runs, under another user
        return False
    return False


def _clear_leftovers(path: Path) -> None:
    """Remove what killed runs of this host left beside `path`; put back one they had set aside.

    The host is part of the name: on a network folder the pid of another host tells nothing.
    """
    ours = re.escape(f".{path.name}.{socket.gethostname()}-")
    for found in sorted(path.parent.glob(".*-*.*")):
        match = re.fullmatch(ours + r"(\d+)\.(tmp|old)(\.\w+)?", found.name)
        if match is None or not _is_gone(int(match[1])):
            continue
        if match[2] == "old" and not path.exists():
            os.replace(found, path)  # killed between the two renames of atomic_folder
        elif found.is_dir():
            shutil.rmtree(found, ignore_errors=True)
        else:
            found.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it is synced and renamed to `path`.

    On an exception the temporary file is removed and `path` keeps what it had. Parent folders are
    made. The temporary name keeps the suffix, because some writers choose their format by it. What a
    killed run of this host left beside `path` is removed.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    temporary = _temporary(path, f"tmp{path.suffix}")
    with write_faults_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8 with `\\n` line ends, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


@contextlib.contextmanager
def atomic_folder(folder: Path | str) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; on a clean exit it takes the place of `folder`.

    Every file in it is synced before the rename. A folder that was there before is replaced in
    two renames, and removed only after the new one stands. What a killed run of this host left beside
    `folder` is removed; a folder that it had set aside, with none in its place, is put back first.
    """
    folder = Path(folder)
    temporary, aside = _temporary(folder, "tmp"), _temporary(folder, "old")
    with write_faults_named(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(folder)
        temporary.mkdir()
        try:
            yield temporary
            for path in temporary.rglob("*"):
                if path.is_file():
                    with open(path, "rb+") as file:
                        os.fsync(file.fileno())
            if folder.exists():
                os.replace(folder, aside)
            os.replace(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if aside.exists() and not folder.exists():
                os.replace(aside, folder)
            raise
        sync_folder(folder.parent)
        shutil.rmtree(aside, ignore_errors=True)


def in_key_order(content: bytes) -> bytes:
    """Return a safetensors file with the keys of its header sorted.

    safetensors writes metadata in the order of a hash table that is seeded anew each time: without this
    the same tensors make another file in every run, and what was made of it seems stale.
    """
    header_bytes = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + header_bytes])
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + header_bytes :]


def read_lines(path: Path | str, *, fix: str | None = None) -> list[str]:
    """Return the lines of a UTF-8 text file without their line ends.

    Raises:
        InputError: missing file, bytes that are not UTF-8, or CRLF line ends, with file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such file", where=path, fix=fix)
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(
            f"byte 0x{raw[error.start]:02x} is not UTF-8",
            where=f"{path}:{line}",
            fix=f"convert it: iconv -f latin1 -t utf-8 {path}",
        ) from error
    if "\r" in text:
        line = text[: text.index("\r")].count("\n") + 1
        raise InputError(
            "carriage return in a text file, expected Unix line ends",
            where=f"{path}:{line}",
            fix=f"mend it: sed -i 's/\\r$//' {path}",
        )
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    return lines
