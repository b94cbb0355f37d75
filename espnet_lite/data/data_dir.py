"""Kaldi data directories: utterances read from and written to wav.scp, text, utt2spk and friends.

A data directory has these tables, sorted by the bytes of their key (LC_ALL=C):

    wav.scp          recording → path of an audio file, `ark:offset`, or a pipe `command |`
    text             utterance → words                      (absent for unlabelled data)
    utt2spk          utterance → speaker                    (the utterance id begins with it)
    spk2utt          speaker → utterances                   (the reverse of utt2spk)
    segments         utterance → recording start end        (seconds; end -1 = to the end)
    utt2num_samples  utterance → samples at the rate of the dump stage
    utt2dur          utterance → seconds

Without segments every recording is one utterance. Relative paths are relative to the current
directory, as in Kaldi.
"""

import itertools
import math
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from espnet_lite.data.segment import Segment, parse_count, parse_segment
from espnet_lite.data.table_file import BLOCK_BYTES, IndexedTable, TableFile, index_table
from espnet_lite.data.tables import (
    byte_order,
    fix_command,
    read_table,
    speakers_to_utterances,
    write_table,
)
from espnet_lite.data.target_folder import check_target
from espnet_lite.data.utterance_table import (
    FolderTables,
    SegmentArrays,
    Utterance,
    UtteranceTable,
)
from espnet_lite.errors import InputError
from espnet_lite.files import atomic_folder

__all__ = [
    "Segment",
    "Utterance",
    "parse_count",
    "parse_segment",
    "read_data_dir",
    "write_data_dir",
]


def read_data_dir(
    folder: Path | str, *, need_text: bool = True, block_bytes: int = BLOCK_BYTES
) -> UtteranceTable:
    """Return the utterances of a data directory in byte order of their ids.

    They are read from the tables when asked for; every line is checked now.

    Args:
        folder: the data directory.
        need_text: False lets `text` be absent; where it is there it is read.
        block_bytes: of a table are looked at together.

    Raises:
        InputError: a table is missing or malformed, or the tables speak of different utterances.
            The audio itself is not opened; `validate_data_dir` checks more rules.
    """
    folder = Path(folder)
    has_segments = (folder / "segments").exists()
    audio = index_table(folder / "wav.scp", block_bytes=block_bytes)
    named = index_table(folder / "segments", block_bytes=block_bytes) if has_segments else audio
    keys = None if named is None else named.keys

    def index(name: str, *, with_numbers: bool = False) -> IndexedTable | None:
        return index_table(
            folder / name, same_keys=keys, with_numbers=with_numbers, block_bytes=block_bytes
        )

    speakers = index("utt2spk")
    has_text = need_text or (folder / "text").exists()
    texts = index("text") if has_text else None
    has_samples = (folder / "utt2num_samples").exists()
    samples = index("utt2num_samples", with_numbers=True) if has_samples else None

    needed = [audio, named, speakers, *([texts] * has_text), *([samples] * has_samples)]
    if not all(table is not None and table.is_proven for table in needed):
        _check_line_by_line(folder, has_text=has_text, has_samples=has_samples)
    if audio is None or named is None or speakers is None or None in needed:
        raise InputError("changed while it was being read", where=folder, fix="run again")
    return UtteranceTable(
        [
            FolderTables(
                audio=audio.file,
                speakers=speakers.file,
                texts=None if texts is None else texts.file,
                segments=_segment_arrays(folder, audio.file, named.file) if has_segments else None,
                num_samples=None if samples is None else _numbers(samples),
            )
        ]
    )


def write_data_dir(folder: Path | str, utterances: Iterable[Utterance]) -> None:
    """Write a data directory, whole or not at all; one that was there before is replaced.

    `text` is left out when no utterance has one, `segments` when none has a start or an end,
    `utt2num_samples` when none has a count. Recordings of segments are named by their first
    utterance.

    Raises:
        InputError: no utterances, a duplicate id, blanks in an id or speaker, an id that does not
            begin with its speaker, some utterances with and some without a field, or a folder that
            holds something else than a data directory.
    """
    rows = sorted(utterances, key=lambda utterance: byte_order(utterance.id))
    _check_ids(folder, rows)
    check_target(folder)
    with atomic_folder(folder) as target:
        utt2spk = {row.id: row.speaker for row in rows}
        write_table(target / "utt2spk", utt2spk)
        write_table(target / "spk2utt", speakers_to_utterances(utt2spk))
        if _all_have(folder, "a text", rows, [row.text is not None for row in rows]):
            write_table(target / "text", {row.id: row.text for row in rows})
        if _all_have(folder, "a count", rows, [row.num_samples is not None for row in rows]):
            write_table(target / "utt2num_samples", {row.id: row.num_samples for row in rows})
        if any(row.start_seconds is not None or row.end_seconds is not None for row in rows):
            _write_segments(target, rows)
        else:
            write_table(target / "wav.scp", {row.id: row.audio for row in rows})


def _check_line_by_line(folder: Path, *, has_text: bool, has_samples: bool) -> None:
    """Raise for the first fault of the tables; not every table that looks odd has one."""
    recordings = read_table(folder / "wav.scp")
    ids = list(recordings)
    if (folder / "segments").exists():
        segments = read_table(folder / "segments")
        for _ in _segments(folder, segments.items(), recordings):
            pass
        ids = list(segments)
    if not ids:
        raise InputError("no utterances", where=folder / "wav.scp")
    _read_matching(folder, "utt2spk", ids)
    if has_text:
        _read_matching(folder, "text", ids)
    if has_samples:
        path = folder / "utt2num_samples"
        for line, value in enumerate(_read_matching(folder, path.name, ids).values(), start=1):
            parse_count(value, where=f"{path}:{line}")


def _numbers(table: IndexedTable) -> np.ndarray:
    if table.numbers is not None:
        return table.numbers
    file = table.file
    rows = enumerate(file, start=1)
    return np.array([parse_count(v, where=f"{file.path}:{n}") for n, (_, v) in rows], np.int64)


def _segments(
    folder: Path, rows: Iterable[tuple[str, str]], recordings: Container[str]
) -> Iterator[Segment]:
    """Yield the segments of the rows of a segments file."""
    path = folder / "segments"
    for line, (key, value) in enumerate(rows, start=1):
        segment = parse_segment(value, where=f"{path}:{line}")
        if segment.recording not in recordings:
            raise InputError(
                f"recording '{segment.recording}' of utterance '{key}' is not in wav.scp",
                where=f"{path}:{line}",
                fix=fix_command(folder),
            )
        yield segment


def _segment_arrays(folder: Path, audio: TableFile, segments: TableFile) -> SegmentArrays:
    lines = {name: line for line, (name, _) in enumerate(audio)}
    rows = [
        (lines[s.recording], s.start_seconds, math.inf if s.end_seconds is None else s.end_seconds)
        for s in _segments(folder, segments, lines)
    ]
    recordings, starts, ends = zip(*rows, strict=True)
    return SegmentArrays(
        recordings=np.array(recordings, dtype=np.int64),
        start_seconds=np.array(starts, dtype=np.float64),
        end_seconds=np.array(ends, dtype=np.float64),
    )


def _read_matching(folder: Path, name: str, ids: Sequence[str]) -> dict[str, str]:
    """Return a table that has exactly the keys `ids`."""
    table = read_table(folder / name)
    audio_table = "segments" if (folder / "segments").exists() else "wav.scp"
    for number, key in enumerate(ids, start=1):
        if key not in table:
            raise InputError(
                f"utterance '{key}' is not in {name}",
                where=f"{folder}/{audio_table}:{number}",
                fix=fix_command(folder),
            )
    if len(table) > len(ids):
        known = set(ids)
        number, key = next((n, k) for n, k in enumerate(table, start=1) if k not in known)
        raise InputError(
            f"utterance '{key}' is not in {audio_table}",
            where=f"{folder}/{name}:{number}",
            fix=fix_command(folder),
        )
    return table


def _write_segments(target: Path, rows: Sequence[Utterance]) -> None:
    names: dict[str, str] = {}
    segments = {}
    for row in rows:
        recording = names.setdefault(row.audio, row.id)
        end = -1 if row.end_seconds is None else row.end_seconds
        segments[row.id] = f"{recording} {row.start_seconds or 0.0} {end}"
    write_table(target / "segments", segments)
    write_table(target / "wav.scp", {name: audio for audio, name in names.items()})


def _check_ids(folder: Path | str, rows: Sequence[Utterance]) -> None:
    if not rows:
        raise InputError("no utterances to write", where=folder)
    for before, row in itertools.pairwise(rows):
        if before.id == row.id:
            raise InputError(f"duplicate utterance id '{row.id}'", where=folder)
    for row in rows:
        for kind, name in (("utterance id", row.id), ("speaker", row.speaker)):
            if not name or name.split() != [name]:
                raise InputError(f"{kind} '{name}', expected a name without blanks", where=folder)
        if not row.id.startswith(row.speaker):
            raise InputError(
                f"utterance id '{row.id}' does not begin with its speaker '{row.speaker}'",
                where=folder,
            )


def _all_have(
    folder: Path | str, what: str, rows: Sequence[Utterance], have: Sequence[bool]
) -> bool:
    """Return whether every utterance has the field; some with and some without is an error."""
    if any(have) and not all(have):
        missing = rows[have.index(False)].id
        raise InputError(f"utterance '{missing}' has not {what}, others have", where=folder)
    return all(have)
