"""Fetch an archive over HTTP, continue where a broken transfer stopped, check it, unpack it safely."""

import errno
import hashlib
import http.client
import re
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from espnet_lite.errors import InputError
from espnet_lite.files import atomic_folder, write_faults_named
from espnet_lite.locks import folder_lock

_CHUNK_BYTES = 1 << 18
_TIMEOUT_SECONDS = 30
_TRIES = 3
_PAUSE_SECONDS = 2  # between tries
_PROGRESS_SECONDS = 5  # between progress lines
_MEGABYTE = 1e6
_CONTENT_RANGE = re.compile(r"bytes (?P<first>\d+)-\d+/(?P<total>\d+|\*)")
_TRY_LATER = (408, 425, 429)  # answers of a server that is busy


# A file and a folder of one name in an archive, and names that are too long.
_NAME_FAULTS = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


def fetch(
    url: str,
    archive: Path,
    *,
    otherwise: str,
    sha256: str | None = None,
    md5: str | None = None,
    size_bytes: int | None = None,
    pause_seconds: float | int = _PAUSE_SECONDS,
) -> None:
    """Download `url` to `archive`, which appears only when it is complete and its checksum right.

    What has come so far waits as `.NAME.part` beside it; the next call asks for the rest.

    Args:
        url: http(s) address.
        archive: file to make.
        otherwise: what the user can do without this download; ends the error line.
        sha256, md5: hexadecimal checksums of the whole file; None: not checked.
        size_bytes: size of the whole file; None: what the server says.
        pause_seconds: wait between the tries.

    Raises:
        InputError: the server does not answer, refuses or sends another file than expected (it is
            removed), or the transfer broke off in every try (what came is kept).
    """
    part = archive.with_name(f".{archive.name}.part")
    with folder_lock(archive):  # two runs that append to one part would mix it up
        for attempt in range(1, _TRIES + 1):
            fault = _try(url, part, size_bytes=size_bytes, otherwise=otherwise)
            if fault is None:
                break
            if attempt == _TRIES:
                raise InputError(
                    f"download failed {_TRIES} times, last: {fault}",
                    where=url,
                    fix=f"run again to continue it, or {otherwise}",
                )
            time.sleep(pause_seconds)
        wrong = _mismatch(part, {"sha256": sha256, "md5": md5}, size_bytes)
        if wrong is not None:
            part.unlink()
            raise InputError(
                f"another file than expected: {wrong}; it has been removed",
                where=url,
                fix=f"run again to fetch it anew, or {otherwise}",
            )
        part.replace(archive)


def _try(url: str, part: Path, *, size_bytes: int | None, otherwise: str) -> str | None:
    """Fetch what `part` lacks; return None when it is complete, else a fault that a new try may mend."""
    have = part.stat().st_size if part.exists() else 0
    if size_bytes is not None and have >= size_bytes:  # complete, or too long: the checks will tell
        return None
    try:
        with _open(url, have) as response:
            _append(response, part, url=url, have=have, otherwise=otherwise)
    except urllib.error.HTTPError as error:
        fault = f"{error.code} {error.reason}"
        if error.code == 416:  # there is nothing after the bytes we have
            if _range_total(error.headers.get("Content-Range")) == have:
                return None
            part.unlink(missing_ok=True)  # ours is longer than theirs: another file
        elif error.code < 500 and error.code not in _TRY_LATER:
            raise InputError(f"the server answers {fault}", where=url, fix=otherwise) from error
        return fault
    except ConnectionError as error:
        return str(error)
    return None


def _open(url: str, have: int) -> http.client.HTTPResponse:
    """Return the answer to a request for what follows the first `have` bytes."""
    if not re.match("https?://", url):
        raise InputError("no address of a web server", where=url, fix="expected one like https://…")
    try:
        request = urllib.request.Request(url)
        if have:
            request.add_header("Range", f"bytes={have}-")
        return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        raise ConnectionError(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(str(error) or type(error).__name__) from error
    except ValueError as error:  # of this address, or of the one that the server redirects to
        raise InputError(str(error), where=url, fix="expected an address like https://…") from error


def _append(
    response: http.client.HTTPResponse, part: Path, *, url: str, have: int, otherwise: str
) -> None:
    """Write the answer behind the `have` bytes of `part`, or from its beginning where it is the whole.

    Raises:
        ConnectionError: the transfer broke off, or another part than that came.
        InputError: the disk has no room for it.
    """
    continues = response.status == 206
    total = None if response.length is None else response.length + (have if continues else 0)
    if continues:
        sent = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if sent is None or int(sent["first"]) != have:
            part.unlink(missing_ok=True)
            raise ConnectionError(f"asked for what follows byte {have}, another part came")
        total = int(sent["total"]) if sent["total"] != "*" else total
    elif response.status != 200:
        raise ConnectionError(f"{response.status} {response.reason}")
    else:
        have = 0
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - have > free:
        raise InputError(
            f"{_megabytes(total - have)} to come, {_megabytes(free)} free",
            where=part.parent,
            fix=f"free space and run again, or {otherwise}",
        )
    last_line = time.monotonic()
    with write_faults_named(part), part.open("ab" if continues else "wb") as file:
        for chunk in _chunks(response):
            file.write(chunk)
            have += len(chunk)
            if time.monotonic() - last_line > _PROGRESS_SECONDS:
                last_line = time.monotonic()
                print(f"{url}: {_megabytes(have)} of {_megabytes(total)}", file=sys.stderr)
    if total is not None and have != total:
        raise ConnectionError(f"{have} of {total} bytes came")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(_CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            # Faults of TLS are OSErrors with numbers of their own, which must not pass for the disk's.
            raise ConnectionError(str(error) or type(error).__name__) from error
        if not chunk:
            return
        yield chunk


def _range_total(header: str | None) -> int | None:
    """Return the size of the whole file in a header like `bytes */1234`."""
    match = re.fullmatch(r"bytes \*/(\d+)", header or "")
    return None if match is None else int(match[1])


def _mismatch(part: Path, checksums: dict[str, str | None], size_bytes: int | None) -> str | None:
    """Return what of the size and the checksums differs, or None."""
    found_bytes = part.stat().st_size
    if size_bytes is not None and found_bytes != size_bytes:
        return f"{found_bytes} bytes, expected {size_bytes}"
    for name, expected in checksums.items():
        if expected is None:
            continue
        digest = hashlib.new(name, usedforsecurity=False)
        with part.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        if digest.hexdigest() != expected:
            return f"{name} {digest.hexdigest()}, expected {expected}"
    return None


def _megabytes(count: int | None) -> str:
    return "?" if count is None else f"{count / _MEGABYTE:.1f} MB"


def unpack(archive: Path, folder: Path, *, otherwise: str, inner: str | None = None) -> None:
    """Unpack `archive` as `folder`: all of it or nothing. Only plain files and folders are taken.

    A broken archive is removed, so that the next run fetches it again.

    Args:
        archive: a .tar.gz file.
        folder: folder to make; one that is there is replaced.
        otherwise: what the user can do without this archive; ends the error line.
        inner: the folder of the archive that becomes `folder`, what lies beside it is left out;
            None: the one folder at the top.

    Raises:
        InputError: the archive is broken, has no folder `inner`, or holds a link, a device, or a path
            that leads outside.
    """
    try:
        with atomic_folder(folder) as target, tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                _unpack_member(tar, member, target, archive=archive, inner=inner)
            while tar.fileobj.read(_CHUNK_BYTES):  # to gzip's own checksum, which stands at the end
                pass
            if not any(target.iterdir()):
                raise InputError(
                    f"nothing to unpack: no files in {inner or 'it'}",
                    where=archive,
                    fix="remove the archive: this is not the corpus",
                )
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


def _unpack_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, *, archive: Path, inner: str | None
) -> None:
    # tarfile's own filter="data" lets links within the folder pass and lacks in Python below 3.10.12.
    path = PurePosixPath(member.name)
    parts = [part for part in path.parts if part != "."]
    is_below_top = len(parts) > 1 or member.isdir()
    is_plain = (member.isfile() and not member.issparse()) or member.isdir()
    leads_outside = path.is_absolute() or ".." in parts or "\0" in member.name
    if leads_outside or not (is_plain and is_below_top):
        raise InputError(
            f"member '{member.name}' is a link, a device or leads outside, expected plain files in "
            "one folder",
            where=archive,
            fix="remove the archive: this is not the corpus",
        )
    leading = parts[:1] if inner is None else list(PurePosixPath(inner).parts)
    if parts[: len(leading)] != leading or len(parts) == len(leading):
        return
    free = shutil.disk_usage(target).free
    if member.size > free:
        raise InputError(
            f"member '{member.name}' of {_megabytes(member.size)}, {_megabytes(free)} free",
            where=archive,
            fix="free space and run again",
        )
    place = target.joinpath(*parts[len(leading) :])
    try:
        (place if member.isdir() else place.parent).mkdir(parents=True, exist_ok=True)
        if member.isfile():
            with tar.extractfile(member) as source, place.open("wb") as copy:
                shutil.copyfileobj(source, copy)
    except OSError as error:
        if error.errno not in _NAME_FAULTS:
            raise
        raise InputError(
            f"member '{member.name[:100]}': {error.strerror}",
            where=archive,
            fix="remove the archive: this is not the corpus",
        ) from error
