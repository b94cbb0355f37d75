"""Records with named fields (rows of a table, JSON objects) as entries.

Which field is what comes from the options, else from the names below, whatever their case; the first
one that is there counts.
"""

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_lite.data.importers.entry import Entry, ImportOptions, resolve_audio, set_of_name
from espnet_lite.errors import InputError

Record = Mapping[str, object]

KNOWN_NAMES = {
    "audio": (
        *("audio_filepath", "path", "file_name", "file", "filename", "audio", "audio_path"),
        *("audio_file", "filepath", "wav", "wav_path", "wav_filename"),
    ),
    "text": (
        *("sentence", "text", "transcription", "transcript", "normalized_text", "words"),
        *("transcripts",),
    ),
    "speaker": ("client_id", "speaker", "speaker_id", "spk", "spk_id", "speaker_name", "reader"),
    "id": ("utt_id", "utterance_id", "utt"),
    "start": ("start", "offset", "start_seconds", "start_time", "begin"),
    "end": ("end", "end_seconds", "end_time", "stop"),
    "duration": ("duration", "duration_seconds", "dur"),
    "set": (),  # a column of sets is used only when it is named
}
SHOWN_COLUMNS = 20  # in a message


@dataclass(frozen=True, slots=True)
class Columns:
    """The name of each field of a source; None for what it does not have."""

    audio: str
    text: str | None
    speaker: str | None
    id: str | None
    start: str | None
    end: str | None
    duration: str | None
    set: str | None


def choose_columns(known: Collection[str], *, options: ImportOptions, where: str) -> Columns:
    """Return which of the `known` names is what.

    Raises:
        InputError: a name of the options is not there, or none for audio or text is found.
    """
    asked = {
        "audio": options.audio_column,
        "text": options.text_column,
        "speaker": options.speaker_column,
        "id": options.id_column,
        "start": options.start_column,
        "end": options.end_column,
        "duration": options.duration_column,
        "set": options.set_column,
    }
    by_lower = {name.lower(): name for name in reversed(list(known))}
    chosen: dict[str, str | None] = {}
    for kind, name in asked.items():
        if name is not None and name not in known:
            raise InputError(f"no column '{name}'{_has(known, [name])}", where=where)
        found = [by_lower[known] for known in KNOWN_NAMES[kind] if known in by_lower]
        chosen[kind] = name or (found[0] if found else None)
    if not options.need_text:
        chosen["text"] = None
    for kind in ("audio", "text"):
        if chosen[kind] is None and (kind == "audio" or options.need_text):
            raise InputError(
                f"no column for {kind}{_has(known, KNOWN_NAMES[kind])}",
                where=where,
                fix=f"name it: --{kind}_column NAME",
            )
    return Columns(**chosen)


class JsonColumns:
    """The columns of JSON objects, chosen for each combination of keys: later ones may have more."""

    def __init__(self, options: ImportOptions):
        self._options = options
        self._chosen: dict[tuple[str, ...], Columns] = {}

    @property
    def is_unused(self) -> bool:
        """True before the first object."""
        return not self._chosen

    def of(self, record: Record, *, where: str) -> Columns:
        """Return the columns of an object; raises what `choose_columns` raises."""
        keys = tuple(record)
        if keys not in self._chosen:
            self._chosen[keys] = choose_columns(keys, options=self._options, where=where)
        return self._chosen[keys]


def _has(known: Collection[str], wanted: Sequence[str]) -> str:
    near = [n for word in wanted for n in difflib.get_close_matches(word, known, n=1, cutoff=0.6)]
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    shown = [name[:40] for name in known][:SHOWN_COLUMNS]
    more = f" and {len(known) - SHOWN_COLUMNS} more" if len(known) > SHOWN_COLUMNS else ""
    return f"{hint}, it has: {', '.join(shown) or 'none'}{more}"


def record_entry(
    record: Record,
    columns: Columns,
    *,
    where: str,
    roots: Sequence[Path],
    set_name: str | None = None,
) -> Entry:
    """Return the entry of one record.

    A start or an end makes it a part of its file; a duration alone only says how long the file is.

    Raises:
        InputError: a field is missing or no text, times that are no seconds, an end before the start.
    """
    audio, given = resolve_audio(record[columns.audio], roots=roots, where=where)
    start = _optional_seconds(record, columns.start, where=where)
    end = _optional_seconds(record, columns.end, where=where)
    duration = _optional_seconds(record, columns.duration, where=where)
    if start is not None or end is not None:
        start = start or 0.0
        if end is None and duration is not None:
            end = round(start + duration, 6)
        if end is not None and end <= start:
            raise InputError(
                f"from {start:g} s to {end:g} s, expected an end after the start", where=where
            )
        duration = None if end is None else end - start
    if columns.set is not None:
        named = _optional_text(record, columns.set, where=where)
        if named is None:
            raise InputError(f"'{columns.set}' is empty, expected the name of a set", where=where)
        set_name = set_of_name(named) or named
    return Entry(
        where=where,
        audio=audio,
        given=given,
        text=_optional_text(record, columns.text, where=where),
        id=_optional_text(record, columns.id, where=where),
        speaker=_optional_text(record, columns.speaker, where=where),
        start_seconds=start,
        end_seconds=end,
        seconds=duration,
        set_name=set_name,
    )


def parse_seconds(value: object, *, name: str, where: str) -> float:
    """Return a number of seconds from 0, written as a number or as text.

    Raises:
        InputError: it is not one.
    """
    try:
        seconds = float("nan") if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        seconds = float("nan")
    if not (math.isfinite(seconds) and seconds >= 0):
        raise InputError(f"{name} {value!r}, expected seconds from 0", where=where)
    return seconds


def _optional_seconds(record: Record, name: str | None, *, where: str) -> float | None:
    value = None if name is None else record.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return parse_seconds(value, name=name, where=where)


def _optional_text(record: Record, name: str | None, *, where: str) -> str | None:
    """Return a field as text, None where it is absent or empty; speakers may be numbers."""
    value = None if name is None else record.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise InputError(f"'{name}' is {value!r}, expected text", where=where)
    return value if value and value.strip() else None
