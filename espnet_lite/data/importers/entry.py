"""What an importer reads: one utterance as its source describes it, before Kaldi's rules."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from espnet_lite.errors import InputError

# What libsndfile reads.
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".sph", ".aiff", ".aif", ".au")
SET_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "development", "valid", "validation", "val"), "dev"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Entry:
    """One utterance of a source.

    Attributes:
        where: `file:line` it comes from, for messages.
        audio: the file, which may be missing.
        given: its path as the source writes it, relative to the source where it lies in it.
        text: as written; None where the source has none.
        id: the name the source gives it; None: it is made from `given` and the times.
        speaker: as written; None where the source has none.
        start_seconds, end_seconds: the part of the file; None for its begin and end.
        seconds: how long the utterance is, where the source says so.
        set_name: the set the source puts it in; None where the source has no sets.
    """

    where: str
    audio: Path
    given: str
    text: str | None
    id: str | None = None
    speaker: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    seconds: float | None = None
    set_name: str | None = None


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How a source is read; the defaults let the importer find out.

    Attributes:
        audio_root: folder that relative audio paths count from.
        audio_column .. set_column: names of columns of a table, or of keys of a JSON object.
        quoting: of tables: `csv` (as Python's csv module), `none`, or `auto` by the format.
        speaker_from: `auto` (what the source says), `none`, or taken from the audio's path:
            `folder`, `top_folder`, `name_prefix`.
        speaker_pattern: regular expression for the audio's path, its first group the speaker.
        transcripts: of a folder of audio: its transcript file.
        need_text: False for unlabelled speech.
    """

    audio_root: Path | None = None
    audio_column: str | None = None
    text_column: str | None = None
    speaker_column: str | None = None
    id_column: str | None = None
    start_column: str | None = None
    end_column: str | None = None
    duration_column: str | None = None
    set_column: str | None = None
    quoting: str = "auto"
    speaker_from: str = "auto"
    speaker_pattern: str | None = None
    transcripts: Path | None = None
    need_text: bool = True


def set_of_name(name: str) -> str | None:
    """Return train, dev or test for the names that stand for them, else None."""
    return SET_NAMES.get(name.lower())


def resolve_audio(value: object, *, roots: Sequence[Path], where: str) -> tuple[Path, str]:
    """Return (path, path as given) of an audio file that a source names.

    A relative path counts from the first of `roots` that has it, and from the first of all where
    none has: whether the file is there is checked later. An absolute path inside of a root is given
    relative to it.

    Raises:
        InputError: no path, a pipe or a URL.
    """
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"audio {value!r}, expected the path of an audio file", where=where)
    value = value.strip()
    if value.endswith("|"):
        raise InputError(
            f"pipe '{value}', expected the path of an audio file",
            where=where,
            fix="run the command yourself and name the file that it writes",
        )
    if _URL.match(value):
        raise InputError(
            f"URL '{value}', expected the path of a file on this machine",
            where=where,
            fix="download it and write its path",
        )
    path = Path(value)
    if path.is_absolute():
        roots = [root.absolute() for root in roots]
        inside = next((root for root in roots if path.is_relative_to(root)), None)
        return path, value if inside is None else path.relative_to(inside).as_posix()
    found = roots[0] / path
    if len(roots) > 1:
        found = next((root / path for root in roots if os.path.isfile(root / path)), found)
    return found, PurePosixPath(value).as_posix()


def check_wav_scp_path(path: str, *, where: str) -> None:
    """Raise InputError for a path that a line of wav.scp cannot hold."""
    bad = next((c for c in path if ord(c) < 32 or 0xD800 <= ord(c) <= 0xDFFF), None)
    fault = None if bad is None else f"character U+{ord(bad):04X} (or a byte that is not UTF-8)"
    if path.endswith((" ", "|")):
        fault = f"'{path[-1]}' at the end"
    if fault is not None:
        where = where.encode(errors="backslashreplace").decode()  # may hold the same bytes
        raise InputError(
            f"{fault} in {path!r}, which wav.scp cannot hold", where=where, fix="rename the file"
        )
