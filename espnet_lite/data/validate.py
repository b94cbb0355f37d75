"""Rules of a data directory, checked without decoding audio.

1.  wav.scp, utt2spk and (unless --no_text) text are there; segments, spk2utt, utt2num_samples and
    utt2dur are checked where they are.
2.  Every file is UTF-8 without byte order mark, with Unix line ends and no empty line. Ids and words
    are parted by spaces or tabs; no other blank or control character occurs.
3.  Every file is sorted by the bytes of its ids (LC_ALL=C sort), and no id occurs twice.
4.  Utterances are the ids of segments, or of wav.scp where there are no segments. text, utt2spk,
    utt2num_samples and utt2dur have exactly these ids.
5.  Every utterance has one speaker, and its id begins with the speaker's. spk2utt is the reverse of
    utt2spk.
6.  No transcript is empty (unless --no_text).
7.  Every entry of wav.scp is the path of a file that is there and not empty, `ark:offset`, or (with
    --allow_pipes) `command |`.
8.  Every segment names a recording of wav.scp, and 0 <= start < end in seconds (end -1: to its end).
9.  utt2num_samples are positive whole numbers, utt2dur positive seconds.
"""

import hashlib
import math
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from espnet_lite.data.audio_entries import parse_entry
from espnet_lite.data.segment import parse_count, parse_segment
from espnet_lite.data.tables import Row, fix_command, order_faults, read_rows
from espnet_lite.errors import InputError

OPTIONAL_TABLES = ("segments", "spk2utt", "utt2num_samples", "utt2dur")


class _RowsOnDisk(Collection[Row]):
    """The rows of a table, read from its file each time they are asked for."""

    def __init__(self, file: Iterable[tuple[str, str]], count: int):
        self._file = file
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        return (Row(line, *row) for line, row in enumerate(self._file, start=1))

    def __contains__(self, row: object) -> bool:
        return any(row == other for other in self)


@dataclass(frozen=True)
class _Table:
    """A table to check; a million rows in memory would take some 300 MB.

    Attributes:
        rows: in file order.
        digest: of all keys; None unless they are proven sorted and unique.
    """

    rows: Collection[Row]
    digest: str | None


def validate_data_dir(
    folder: Path | str, *, need_text: bool = True, allow_pipes: bool = False
) -> int:
    """Return the number of utterances of a data directory that keeps every rule of this module.

    Raises:
        InputError: the first fault, and how many others there are.
    """
    tables, faults = _read_tables(Path(folder), need_text=need_text)
    if not faults:
        faults = list(_table_faults(Path(folder), tables, need_text, allow_pipes))
    if not faults:
        return len(tables["utt2spk"].rows)
    others = len(faults) - 1
    tail = f" (and {others} other fault{'s' if others > 1 else ''})" if others else ""
    raise InputError(f"{faults[0]}{tail}")


def bad_character(text: str) -> str | None:
    """Return the first blank or control character other than space and tab, or None."""
    if text.replace("\t", " ").isprintable():  # the usual case; no blank but the space is printable
        return None
    for character in text:
        is_bad = character.isspace() or character == "\ufeff" or ord(character) < 32
        if is_bad and character not in " \t":
            return character
    return None


def _read_tables(folder: Path, *, need_text: bool) -> tuple[dict[str, _Table], list[InputError]]:
    if not folder.is_dir():
        missing = InputError(
            "no such data directory", where=folder, fix="run the data stage (1), which makes it"
        )
        return {}, [missing]
    required = ("wav.scp", "utt2spk", "text") if need_text else ("wav.scp", "utt2spk")
    names = list(required)
    names += [n for n in ("text", *OPTIONAL_TABLES) if n not in required and (folder / n).exists()]
    tables, faults = {}, []
    for name in names:
        try:
            tables[name] = _read_table(folder / name)
        except InputError as error:
            faults.append(error)
    return tables, faults


def _read_table(path: Path) -> _Table:
    from espnet_lite.data.table_file import index_table  # numpy, which --help does without

    indexed = index_table(path)
    if indexed is None:
        return _Table(read_rows(path), None)  # which raises for what is wrong
    digest = None
    if indexed.keys is not None:
        width = b"%d " % indexed.keys.itemsize  # of the longest key, to which all are padded
        digest = hashlib.sha256(width + indexed.keys.tobytes()).hexdigest()
    return _Table(_RowsOnDisk(indexed.file, len(indexed.file)), digest)


def _table_faults(
    folder: Path, tables: dict[str, _Table], need_text: bool, allow_pipes: bool
) -> Iterator[InputError]:
    if not tables["wav.scp"].rows:
        yield InputError("no recordings, expected at least one", where=folder / "wav.scp")
    for name, table in tables.items():
        yield from _character_faults(folder / name, table.rows)
        if table.digest is None:
            yield from order_faults(table.rows, folder / name)
    yield from _id_faults(folder, tables)
    yield from _speaker_faults(folder, tables)
    if need_text:
        yield from _empty_transcripts(folder, tables["text"].rows)
    yield from _entry_faults(folder, tables["wav.scp"].rows, allow_pipes)
    if "segments" in tables:
        yield from _segment_faults(folder, tables)
    yield from _number_faults(folder, tables)


def _character_faults(path: Path, rows: Collection[Row]) -> Iterator[InputError]:
    for row in rows:
        # A path may hold any character; an id may not.
        text = row.key if path.name == "wav.scp" else f"{row.key} {row.value}"
        bad = bad_character(text)
        if bad is not None:
            yield InputError(
                f"character U+{ord(bad):04X} in '{text[:40]}', expected words parted by spaces",
                where=f"{path}:{row.line}",
                fix=fix_command(path.parent),
            )


def _id_faults(folder: Path, tables: dict[str, _Table]) -> Iterator[InputError]:
    audio_table = "segments" if "segments" in tables else "wav.scp"
    for name in ("text", "utt2spk", "utt2num_samples", "utt2dur"):
        if name not in tables:
            continue
        if tables[name].digest is not None and tables[name].digest == tables[audio_table].digest:
            continue
        for has, lacks in ((audio_table, name), (name, audio_table)):
            known = {row.key for row in tables[lacks].rows}
            for row in tables[has].rows:
                if row.key not in known:
                    yield InputError(
                        f"utterance '{row.key}' is not in {lacks}",
                        where=f"{folder / has}:{row.line}",
                        fix=fix_command(folder),
                    )


def _speaker_faults(folder: Path, tables: dict[str, _Table]) -> Iterator[InputError]:
    speakers: dict[str, list[str]] = {}
    path = folder / "utt2spk"
    for row in tables["utt2spk"].rows:
        where = f"{path}:{row.line}"
        if len(row.value.split()) != 1:
            yield InputError(
                f"speaker '{row.value}' of '{row.key}', expected one name", where=where
            )
        elif not row.key.startswith(row.value):
            yield InputError(
                f"utterance id '{row.key}' does not begin with its speaker '{row.value}'",
                where=where,
                fix=f"rename the utterance to '{row.value}-{row.key}' in every file",
            )
        if "spk2utt" in tables:
            speakers.setdefault(row.value, []).append(row.key)
    for row in _rows(tables, "spk2utt"):
        expected = sorted(speakers.pop(row.key, []))
        found = row.value.split()
        if sorted(found) != expected:
            odd = sorted(set(found) ^ set(expected)) or found
            yield InputError(
                f"speaker '{row.key}' disagrees with utt2spk on utterance '{odd[0]}'",
                where=f"{folder / 'spk2utt'}:{row.line}",
                fix=fix_command(folder),
            )
    if "spk2utt" in tables:
        for speaker in speakers:
            yield InputError(
                f"speaker '{speaker}' of utt2spk is missing",
                where=folder / "spk2utt",
                fix=fix_command(folder),
            )


def _empty_transcripts(folder: Path, rows: Collection[Row]) -> Iterator[InputError]:
    for row in rows:
        if not row.value:
            yield InputError(
                f"empty transcript of '{row.key}', expected words",
                where=f"{folder / 'text'}:{row.line}",
                fix=fix_command(folder),
            )


def _entry_faults(folder: Path, rows: Collection[Row], allow_pipes: bool) -> Iterator[InputError]:
    table = str(folder / "wav.scp")
    for row in rows:
        where = f"{table}:{row.line}"
        try:
            path = parse_entry(row.value, allow_pipes=allow_pipes).path
        except InputError as error:
            yield InputError(str(error), where=where)
            continue
        if path is None:
            continue
        if not os.path.isfile(path):  # False too for a name that no file can have
            yield InputError(
                f"no such file '{path}' for '{row.key}', expected audio (relative paths count "
                "from the current directory)",
                where=where,
                fix=fix_command(folder),
            )
        elif path.stat().st_size == 0:
            yield InputError(
                f"empty file '{path}' for '{row.key}', expected audio",
                where=where,
                fix=f"fetch it again, or {fix_command(folder)}",
            )


def _segment_faults(folder: Path, tables: dict[str, _Table]) -> Iterator[InputError]:
    recordings = {row.key for row in tables["wav.scp"].rows}
    path = folder / "segments"
    for row in tables["segments"].rows:
        where = f"{path}:{row.line}"
        try:
            segment = parse_segment(row.value, where=where)
        except InputError as error:
            yield error
            continue
        if segment.recording not in recordings:
            yield InputError(
                f"recording '{segment.recording}' of utterance '{row.key}' is not in wav.scp",
                where=where,
                fix=fix_command(folder),
            )


def _number_faults(folder: Path, tables: dict[str, _Table]) -> Iterator[InputError]:
    path = folder / "utt2num_samples"
    for row in _rows(tables, "utt2num_samples"):
        try:
            parse_count(row.value, where=f"{path}:{row.line}")
        except InputError as error:
            yield error
    for row in _rows(tables, "utt2dur"):
        if not is_positive_number(row.value):
            yield InputError(
                f"'{row.value}', expected a positive number of seconds",
                where=f"{folder / 'utt2dur'}:{row.line}",
            )


def _rows(tables: dict[str, _Table], name: str) -> Collection[Row]:
    return tables[name].rows if name in tables else ()


def is_positive_number(value: str) -> bool:
    """Return whether the text is a finite number above zero."""
    try:
        number = float(value)
    except ValueError:
        return False
    return math.isfinite(number) and number > 0
