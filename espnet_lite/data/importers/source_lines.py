"""Files of a source, their lines and JSON objects, with the physical line for messages.

Files come from anywhere, so a byte order mark and Windows line ends are taken; other encodings than
UTF-8 are refused by line.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from espnet_lite.errors import InputError

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_UTF_8_MARK = b"\xef\xbb\xbf"
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


def visible_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a folder that match, in byte order of their names.

    Hidden ones are passed over: a Mac leaves a `._NAME` beside each file on foreign disks.
    """
    found = (path for path in folder.glob(pattern) if not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def source_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line with its end) of a UTF-8 file, unpacked if it ends in .gz.

    Raises:
        InputError: while iterating: no such file, not UTF-8, a broken archive.
    """
    if not path.is_file():
        raise InputError("no such file", where=path)
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if number == 1:
                    if raw.startswith(_UTF_16):
                        raise InputError(
                            "UTF-16, expected UTF-8",
                            where=f"{path}:1",
                            fix=f"convert it: iconv -f utf-16 -t utf-8 '{path}'",
                        )
                    raw = raw.removeprefix(_UTF_8_MARK)
                try:
                    line = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"byte 0x{raw[error.start]:02x} is not UTF-8",
                        where=f"{path}:{number}",
                        fix=f"convert it: iconv -f latin1 -t utf-8 '{path}'",
                    ) from error
                yield number, line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"broken gzip file after line {number}: {error}", where=path, fix="fetch it again"
        ) from error
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", where=path) from error


def plain_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (`file:line`, line without outer blanks) of the lines that are not empty."""
    for number, line in source_lines(path):
        if line.strip():
            yield f"{path}:{number}", line.strip()


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield (`file:line`, object) of a file with one JSON object a line; empty lines are passed over.

    Raises:
        InputError: while iterating: what `source_lines` raises, no JSON, JSON but no object, a key
            twice, half of a character.
    """
    for where, line in plain_lines(path):
        try:
            record = json.loads(line, parse_constant=_refuse_constant, object_pairs_hook=_object_of)
            if _HALF_CHARACTER.search(line):  # the escape of one; a pair of them is a character
                json.dumps(record, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            fix = f"a document over several lines becomes one by: jq -c . '{path}'"
            raise InputError(
                f"not JSON ({_reason(error)}): {line[:60]!r}, expected one object a line",
                where=where,
                fix=fix if isinstance(error, json.JSONDecodeError) else None,
            ) from error
        if not isinstance(record, dict):
            hint = f"jq -c '.[]' '{path}' writes one object a line"
            raise InputError(
                f"a JSON {type(record).__name__}, expected one object a line",
                where=where,
                fix=hint if isinstance(record, list) else None,
            )
        yield where, record


def first_record(path: Path) -> dict[str, object]:
    """Return the first JSON object of a file, or an empty one where it does not begin with one."""
    try:
        return next(json_lines(path), ("", {}))[1]
    except InputError:
        return {}  # the importer says what is wrong


def _object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key '{twice}' twice in one object")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    if isinstance(error, UnicodeEncodeError):
        half = ord(error.object[error.start])
        return f"\\u{half:04x} is half of a character"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
