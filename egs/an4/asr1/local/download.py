"""Fetch a .tar.gz archive over HTTP, continue where a broken transfer stopped, unpack it safely."""

import http.client
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path, PurePosixPath

from espnet_lite.errors import InputError
from espnet_lite.files import atomic_folder, write_faults_named

_CHUNK_BYTES = 1 << 18
_TIMEOUT_SECONDS = 30
_TRIES = 3
_PAUSE_SECONDS = 2  # between tries
_PROGRESS_SECONDS = 5  # between progress lines
_MEGABYTE = 1e6


def fetch(
    url: str, archive: Path, *, otherwise: str, pause_seconds: float = _PAUSE_SECONDS
) -> None:
    """Download `url` to `archive`, which appears only when it is complete.

    What has come so far waits as `.NAME.part` beside it; the next call asks for the rest.

    Args:
        url: http(s) address.
        archive: file to make.
        otherwise: what the user can do without this download; ends the error line.
        pause_seconds: wait between the tries.

    Raises:
        InputError: the server does not answer, refuses, or the transfer broke off in every try.
    """
    part = archive.with_name(f".{archive.name}.part")
    with write_faults_named(archive):
        archive.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, _TRIES + 1):
        try:
            _fetch_rest(url, part)
            break
        except urllib.error.HTTPError as error:
            if error.code == 416:  # our part is longer than their file: another file
                part.unlink(missing_ok=True)
            elif error.code < 500:
                raise InputError(
                    f"the server answers {error.code} {error.reason}", where=url, fix=otherwise
                ) from error
            fault = f"{error.code} {error.reason}"
        except urllib.error.URLError as error:
            fault = str(error.reason)
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            fault = str(error) or type(error).__name__
        if attempt == _TRIES:
            raise InputError(
                f"download failed {_TRIES} times, last: {fault}",
                where=url,
                fix=f"run again to continue it, or {otherwise}",
            )
        time.sleep(pause_seconds)
    part.replace(archive)


def _fetch_rest(url: str, part: Path) -> None:
    """Append to `part` what it lacks; a ConnectionError says that the transfer broke off."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
        continues = response.status == 206
        if not continues:  # the server sends the file from its beginning
            have = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        last_line = time.monotonic()
        with write_faults_named(part), part.open("ab" if continues else "wb") as file:
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                have += len(chunk)
                if time.monotonic() - last_line > _PROGRESS_SECONDS:
                    last_line = time.monotonic()
                    print(f"{url}: {_megabytes(have)} of {_megabytes(total)}", file=sys.stderr)
    if total is not None and have != total:
        raise ConnectionError(f"{have} of {total} bytes came")


def _megabytes(count: int | None) -> str:
    return "?" if count is None else f"{count / _MEGABYTE:.1f} MB"


def unpack(archive: Path, folder: Path, *, otherwise: str) -> None:
    """Unpack `archive` as `folder`: all of it or nothing. Only plain files and folders are taken.

    The one folder at the top of the archive becomes `folder`. A broken archive is removed, so that the
    next run fetches it again.

    Raises:
        InputError: the archive is broken, or it holds a link, a device, or a path that leads outside.
    """
    try:
        with atomic_folder(folder) as target, tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                _unpack_member(tar, member, target, archive=archive)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        # A full disk has been named by atomic_folder; gzip's own faults are OSErrors without a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        archive.unlink(missing_ok=True)
        raise InputError(
            f"not a whole .tar.gz archive ({error}); it has been removed",
            where=archive,
            fix=f"run again to fetch it anew, or {otherwise}",
        ) from error


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, *, archive: Path):
    # tarfile's own filter="data" lets links within the folder pass and lacks in Python below 3.10.12.
    path = PurePosixPath(member.name)
    is_below_top = len(path.parts) > 1 or member.isdir()
    is_plain = member.isfile() or member.isdir()
    if path.is_absolute() or ".." in path.parts or not (is_plain and is_below_top):
        raise InputError(
            f"member '{member.name}' is a link, a device or leads outside, expected plain files in "
            "one folder",
            where=archive,
            fix="remove the archive: this is not the corpus",
        )
    place = target.joinpath(*[part for part in path.parts if part != "."][1:])
    if member.isdir():
        place.mkdir(parents=True, exist_ok=True)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with tar.extractfile(member) as source, place.open("wb") as copy:
        shutil.copyfileobj(source, copy)
