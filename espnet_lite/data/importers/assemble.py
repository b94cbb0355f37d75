"""Entries of a source as utterances of data directories: names, words, and what is left out."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from espnet_lite.data.data_dir import Utterance
from espnet_lite.data.importers.entry import Entry, ImportOptions, check_wav_scp_path
from espnet_lite.data.importers.names import clean_name, raw_speaker, utterance_id
from espnet_lite.data.importers.texts import clean_text
from espnet_lite.errors import InputError

# The dump stage names a file after an utterance, and file systems take 255 bytes.
MAX_ID_BYTES = 240


@dataclass(slots=True)
class Imported:
    """An utterance with what its data directory has no place for.

    Attributes:
        utterance: as it will be written.
        where: `file:line` it comes from.
        seconds: its length where the source says it.
        set_name: the set the source puts it in.
        has_speaker: False where the speaker is the utterance, for want of a name.
    """

    utterance: Utterance
    where: str
    seconds: float | None
    set_name: str | None
    has_speaker: bool


@dataclass
class Assembled:
    """Utterances, and by reason the places of the entries that were left out."""

    rows: list[Imported] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, entry: Entry) -> None:
        self.left_out.setdefault(reason, []).append(f"{entry.where} ({entry.given})")


def assemble(
    entries: Iterable[Entry],
    *,
    options: ImportOptions,
    text_case: str = "keep",
    strip_punctuation: bool = False,
    skip_missing: bool = False,
) -> Assembled:
    """Return the utterances of a source, in its order.

    Entries without words are left out and counted, with `skip_missing` those without audio too.

    Raises:
        InputError: audio that is not there or empty, two utterances or two speakers with one name,
            sets for some entries only, what the importer raises.
    """
    assembled = Assembled()
    names = _Names()
    for entry in entries:
        path = str(entry.audio.absolute())
        check_wav_scp_path(path, where=entry.where)
        text = None
        if options.need_text:
            text = clean_text(entry.text or "", case=text_case, strip_punctuation=strip_punctuation)
            if not text:
                assembled.leave_out("without words", entry)
                continue
        fault = _audio_fault(entry)
        if fault is not None:
            if not skip_missing:
                raise InputError(
                    f"{fault} '{entry.audio}', expected audio",
                    where=entry.where,
                    fix="correct the path, name its folder by --audio_root, or leave such "
                    "utterances out: --skip_missing",
                )
            assembled.leave_out(f"with {fault}", entry)
            continue
        speaker, key = names.of(entry, options)
        assembled.rows.append(
            Imported(
                utterance=Utterance(
                    id=key,
                    audio=path,
                    start_seconds=entry.start_seconds,
                    end_seconds=entry.end_seconds,
                    text=text,
                    speaker=key if speaker is None else speaker,
                    num_samples=None,
                ),
                where=entry.where,
                seconds=entry.seconds,
                set_name=entry.set_name,
                has_speaker=speaker is not None,
            )
        )
    _check_sets(assembled.rows)
    return assembled


class _Names:
    """Ids and speakers given so far; two things with one name are a fault."""

    def __init__(self):
        self._ids: dict[tuple[str | None, str], Entry] = {}
        self._speakers: dict[str, tuple[str, str]] = {}

    def of(self, entry: Entry, options: ImportOptions) -> tuple[str | None, str]:
        """Return (speaker or None, utterance id)."""
        raw = raw_speaker(entry, options)
        speaker = None if raw is None else clean_name(raw)
        if speaker is not None:
            first, where = self._speakers.setdefault(speaker, (raw.strip(), entry.where))
            if first != raw.strip():
                raise InputError(
                    f"speaker '{raw.strip()}' would be named '{speaker}' as '{first}' is, at {where}",
                    where=entry.where,
                    fix="rename one of them",
                )
        key = utterance_id(entry, speaker)
        if not key:
            raise InputError("an id of blanks alone, expected a name", where=entry.where)
        if len(key.encode()) > MAX_ID_BYTES:
            raise InputError(
                f"utterance id '{key[:40]}…' of {len(key.encode())} bytes, expected at most "
                f"{MAX_ID_BYTES}",
                where=entry.where,
            )
        first = self._ids.setdefault((entry.set_name, key), entry)
        if first is not entry:
            raise InputError(
                f"utterance id '{key}' is that of {first.where} too ({entry.given}, {first.given})",
                where=entry.where,
                fix="rename one of them, or name a column of unique ids: --id_column NAME",
            )
        return speaker, key


def _audio_fault(entry: Entry) -> str | None:
    try:
        if not os.path.isfile(entry.audio):
            return "no such file"
        if not os.access(entry.audio, os.R_OK):
            return "no permission to read"
        return None if entry.audio.stat().st_size > 0 else "empty file"
    except OSError as error:  # a name that is too long, no permission
        raise InputError(
            f"cannot open '{entry.audio}': {error.strerror}", where=entry.where
        ) from error


def _check_sets(rows: list[Imported]) -> None:
    """Refuse utterances of no set beside those of sets: where they belong is not for us to say."""
    named = next((row for row in rows if row.set_name is not None), None)
    bare = next((row for row in rows if row.set_name is None), None)
    if named is not None and bare is not None:
        raise InputError(
            f"'{bare.utterance.id}' is in no set, but {named.where} is in '{named.set_name}'",
            where=bare.where,
            fix="put all audio into the folders train, dev and test, or import one set at a time",
        )
