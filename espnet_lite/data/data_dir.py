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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_lite.data.tables import (
    BLANKS,
    byte_order,
    fix_command,
    read_table,
    speakers_to_utterances,
    write_table,
)
from espnet_lite.errors import InputError
from espnet_lite.files import atomic_folder


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance of a data directory.

    Attributes:
        id: unique name, begins with the speaker.
        audio: the wav.scp entry: a path, `ark:offset`, or a pipe.
        start_seconds, end_seconds: the part of the recording; None for its begin and end.
        text: words parted by single spaces; None for unlabelled data.
        speaker: speaker name.
        num_samples: samples at the rate of the dump stage; None where not measured.
    """

    id: str
    audio: str
    start_seconds: float | None
    end_seconds: float | None
    text: str | None
    speaker: str
    num_samples: int | None


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a recording; `end_seconds` None means to its end."""

    recording: str
    start_seconds: float
    end_seconds: float | None


def parse_segment(value: str, *, where: str) -> Segment:
    """Return the segment of a line `recording start end` of a segments file.

    Raises:
        InputError: not three fields, not numbers, a negative start, or an end before the start.
    """
    fields = value.split()
    if len(fields) != 3:
        raise InputError(
            f"'{value}', expected '<utterance> <recording> <start> <end>'", where=where
        )
    try:
        start, end = float(fields[1]), float(fields[2])
    except ValueError:
        raise InputError(
            f"start '{fields[1]}' and end '{fields[2]}', expected seconds", where=where
        ) from None
    to_the_end = end == -1  # Kaldi's mark for "as long as the recording"
    if not (math.isfinite(start) and math.isfinite(end)) or start < 0:
        raise InputError(f"start {fields[1]} and end {fields[2]}, expected 0 ≤ start", where=where)
    if not to_the_end and end <= start:
        raise InputError(
            f"end {fields[2]} is not after start {fields[1]}, expected start < end in seconds",
            where=where,
        )
    return Segment(fields[0], start, None if to_the_end else end)


def read_data_dir(folder: Path | str, *, need_text: bool = True) -> list[Utterance]:
    """Return the utterances of a data directory in byte order of their ids.

    Args:
        folder: the data directory.
        need_text: False lets `text` be absent; where it is there it is read.

    Raises:
        InputError: a table is missing or malformed, or the tables speak of different utterances.
            The audio itself is not opened; `validate_data_dir` checks more rules.
    """
    folder = Path(folder)
    recordings = read_table(folder / "wav.scp")
    segments = _read_segments(folder, recordings)
    ids = list(recordings if segments is None else segments)
    if not ids:
        raise InputError("no utterances", where=folder / "wav.scp")
    speakers = _read_matching(folder, "utt2spk", ids)
    has_text = need_text or (folder / "text").exists()
    texts = _read_matching(folder, "text", ids) if has_text else None
    has_samples = (folder / "utt2num_samples").exists()
    num_samples = _read_matching(folder, "utt2num_samples", ids) if has_samples else None
    utterances = []
    samples_path = folder / "utt2num_samples"
    for line, key in enumerate(ids, start=1):
        segment = Segment(key, 0.0, None) if segments is None else segments[key]
        utterances.append(
            Utterance(
                id=key,
                audio=recordings[segment.recording],
                start_seconds=None if segments is None else segment.start_seconds,
                end_seconds=segment.end_seconds,
                text=None if texts is None else BLANKS.sub(" ", texts[key]),
                speaker=speakers[key],
                num_samples=None
                if num_samples is None
                else parse_count(num_samples[key], where=f"{samples_path}:{line}"),
            )
        )
    return utterances


def parse_count(value: str, *, where: str) -> int:
    """Return a positive whole number.

    Raises:
        InputError: it is not one.
    """
    if not (value.isascii() and value.isdigit()) or int(value) == 0:
        raise InputError(f"'{value}', expected a positive number of samples", where=where)
    return int(value)


def write_data_dir(folder: Path | str, utterances: Iterable[Utterance]) -> None:
    """Write a data directory, whole or not at all; one that was there before is replaced.

    `text` is left out when no utterance has one, `segments` when none has a start or an end,
    `utt2num_samples` when none has a count. Recordings of segments are named by their first
    utterance.

    Raises:
        InputError: no utterances, a duplicate id, blanks in an id or speaker, an id that does not
            begin with its speaker, or some utterances with and some without a field.
    """
    rows = sorted(utterances, key=lambda utterance: byte_order(utterance.id))
    _check_ids(folder, rows)
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


def _read_segments(folder: Path, recordings: dict[str, str]) -> dict[str, Segment] | None:
    path = folder / "segments"
    if not path.exists():
        return None
    segments = {}
    for line, (key, value) in enumerate(read_table(path).items(), start=1):
        segment = parse_segment(value, where=f"{path}:{line}")
        if segment.recording not in recordings:
            raise InputError(
                f"recording '{segment.recording}' of utterance '{key}' is not in wav.scp",
                where=f"{path}:{line}",
                fix=fix_command(folder),
            )
        segments[key] = segment
    return segments


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
