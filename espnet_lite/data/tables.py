"""Kaldi tables: text files of `key value` lines, one key once, sorted by the bytes of the key."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from espnet_lite.errors import InputError
from espnet_lite.files import read_lines, write_text

BLANKS = re.compile(r"[ \t]+")


class Row(NamedTuple):
    """One line of a table: its number from 1, the key and the rest without outer blanks."""

    line: int
    key: str
    value: str


def byte_order(key: str) -> bytes:
    """Return the sort key of the C locale, which is the order Kaldi's tools expect."""
    return key.encode("utf-8")


def fix_command(folder: Path | str) -> str:
    """Return the command that mends what can be mended in a data directory."""
    return f"mend it: python -m espnet_lite.bin.fix_data {folder}"


def split_row(line: str) -> tuple[str, str]:
    """Return key and value of a line; the key of a blank line and a missing value are empty."""
    key, *value = BLANKS.split(line.strip(" \t"), maxsplit=1)
    return key, value[0] if value else ""


def read_rows(path: Path | str) -> list[Row]:
    """Return the lines of a table in file order, whatever their order and keys are.

    Key and value are parted by the first run of spaces and tabs; a line may have a key alone.

    Raises:
        InputError: missing file, not UTF-8, CRLF (see `read_lines`), or an empty line.
    """
    path = Path(path)
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        key, value = split_row(line)
        if not key:
            raise InputError(
                "empty line, expected '<id> <value>'",
                where=f"{path}:{number}",
                fix=fix_command(path.parent),
            )
        rows.append(Row(number, key, value))
    return rows


def order_faults(rows: Iterable[Row], path: Path) -> Iterator[InputError]:
    """Yield the faults in the order of the keys: duplicate or unsorted ones."""
    for before, row in itertools.pairwise(rows):
        if row.key == before.key:
            yield InputError(
                f"duplicate id '{row.key}', it stands in line {before.line} already",
                where=f"{path}:{row.line}",
                fix=fix_command(path.parent),
            )
        elif byte_order(row.key) < byte_order(before.key):
            yield InputError(
                f"'{row.key}' stands after '{before.key}', expected byte order (LC_ALL=C sort)",
                where=f"{path}:{row.line}",
                fix=fix_command(path.parent),
            )


def read_table(path: Path | str) -> dict[str, str]:
    """Return key → value of a sorted table.

    Raises:
        InputError: what `read_rows` raises, a duplicate or an unsorted key.
    """
    rows = read_rows(path)
    for fault in order_faults(rows, Path(path)):
        raise fault
    return {row.key: row.value for row in rows}


def write_table(path: Path | str, table: Mapping[str, object]) -> None:
    """Write `key value` lines in byte order of the keys, whole or not at all."""
    lines = [f"{key} {table[key]}".rstrip(" ") + "\n" for key in sorted(table, key=byte_order)]
    write_text(path, "".join(lines))


def speakers_to_utterances(utt2spk: Mapping[str, str]) -> dict[str, str]:
    """Return spk2utt: speaker → its utterance ids in byte order, parted by single spaces."""
    utterances: dict[str, list[str]] = {}
    for utterance in sorted(utt2spk, key=byte_order):
        utterances.setdefault(utt2spk[utterance], []).append(utterance)
    return {speaker: " ".join(ids) for speaker, ids in utterances.items()}
