"""A folder of audio files and their transcripts, in one of three layouts.

    anna/7.wav + anna/7.txt           a transcript beside each file: .txt, .lab or .trn
    1034/121119/1034-121119.trans.txt `1034-121119-0000 THE WORDS` for the audio in its folder: LibriSpeech
    transcripts.txt, metadata.csv     one file for all, at the top or named by --transcripts:
        anna/7.wav<tab>the words      a path or a name, then a tab or blanks
        LJ001-0001|written|spoken     LJSpeech's metadata.csv; the last field that is filled
        the words (anna7)             .trn, as sclite reads it

The first of these that is there counts: one file, *.trans.txt, beside. Audio without a transcript is left out
and counted. In LibriSpeech's layout the speaker is the name up to the first `-`, else the folder
that the file lies in. With a folder train at the top, train, dev and test are the sets.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from espnet_lite.data.importers.entry import (
    AUDIO_SUFFIXES,
    Entry,
    ImportOptions,
    resolve_audio,
    set_of_name,
)
from espnet_lite.data.importers.names import speaker_of_path
from espnet_lite.data.importers.source_lines import plain_lines, visible_files
from espnet_lite.errors import InputError

ONE_FILE = ("metadata.csv", "metadata.txt", "transcripts.txt", "transcript.txt", "transcripts.trn")
ONE_FILE += ("transcription.txt", "transcripts.tsv", "text")
BESIDE = (".txt", ".lab", ".trn")
_TRN = re.compile(r"(?P<words>.*)\((?P<key>[^()\s]+)\)")


@dataclass
class _Audio:
    """The audio files of a folder: by path below it, without suffix too, and by bare name."""

    files: dict[str, Path] = field(default_factory=dict)
    by_path: dict[str, list[str]] = field(default_factory=dict)
    by_stem: dict[str, list[str]] = field(default_factory=dict)

    def add(self, given: str, path: Path) -> None:
        self.files[given] = path
        self.by_path.setdefault(os.path.splitext(given)[0], []).append(given)
        self.by_stem.setdefault(path.stem, []).append(given)
        self.by_stem.setdefault(path.name, []).append(given)

    def find(self, key: str, *, where: str) -> str | None:
        """Return the path of the file that a transcript names; None where there is none."""
        key = key.removeprefix("./")
        if key in self.files:
            return key
        found = self.by_path.get(key) or self.by_stem.get(key) or []
        if len(found) > 1:
            raise InputError(
                f"'{key}' may be {found[0]} or {found[1]}, expected a path for one of them",
                where=where,
            )
        return found[0] if found else None


def import_folder(path: Path, options: ImportOptions) -> Iterator[Entry]:
    """Yield the entries of a folder of audio."""
    if not path.is_dir():
        raise InputError("no folder, expected a folder of audio files", where=path)
    audio = find_audio(path)
    if not audio.files:
        raise InputError(f"no audio ({', '.join(AUDIO_SUFFIXES)}) in this folder", where=path)
    tops = {given.partition("/")[0] for given in audio.files if "/" in given}
    has_sets = "train" in map(set_of_name, tops)
    for entry in _entries(path, audio, options):
        top, slash, _ = entry.given.partition("/")
        set_name = set_of_name(top) if has_sets and slash else None
        yield replace(entry, set_name=set_name)


def find_audio(folder: Path) -> _Audio:
    """Return the audio files of a folder, in byte order; hidden ones are passed over."""
    audio = _Audio()
    visited = set()
    for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        place = os.path.realpath(parent)
        if place in visited:  # a link that leads back up
            folders.clear()
            continue
        visited.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(AUDIO_SUFFIXES) and not name.startswith("."):
                path = Path(parent, name)
                audio.add(path.relative_to(folder).as_posix(), path)
    return audio


def _raise(error: OSError) -> None:
    raise error  # os.walk passes over what it may not read


def transcript_file(folder: Path) -> Path | None:
    """Return the one transcript file at the top of a folder, if it is there."""
    for path in (folder / name for name in ONE_FILE):
        # A metadata.csv with commas is a table with a header row.
        if path.is_file() and (path.name != "metadata.csv" or is_ljspeech(path)):
            return path
    return None


def is_ljspeech(path: Path) -> bool:
    """Return whether a file begins with a line like LJSpeech's `LJ001-0001|written|spoken`."""
    try:
        return "|" in next(plain_lines(path), ("", ""))[1]
    except InputError:
        return False  # who reads it says what is wrong


def _entries(folder: Path, audio: _Audio, options: ImportOptions) -> Iterator[Entry]:
    if not options.need_text:
        for given, path in audio.files.items():
            yield Entry(str(path), path, given, None, speaker=speaker_of_path(given, "folder"))
        return
    one = options.transcripts or transcript_file(folder)
    folders = sorted({path.parent for path in audio.files.values()})
    lists = [path for parent in folders for path in visible_files(parent, "*.trans.txt")]
    if one is not None:
        listed = _one_file(one, folder, audio)
    elif lists:
        listed = _librispeech(lists, folder)
    else:
        listed = _beside(audio)
    seen = set()
    for entry in listed:
        seen.add(entry.given)
        yield entry
    for given, path in audio.files.items():
        if given not in seen:
            yield Entry(str(path), path, given, None)


def _beside(audio: _Audio) -> Iterator[Entry]:
    for given, path in audio.files.items():
        beside = [*BESIDE, *map(str.upper, BESIDE)]
        transcript = next((p for p in map(path.with_suffix, beside) if p.is_file()), None)
        if transcript is None:
            continue
        lines = [line for _, line in plain_lines(transcript)]
        text = " ".join(lines)
        if transcript.suffix.lower() == ".trn" and (match := _TRN.fullmatch(text)):
            text = match["words"]
        yield Entry(f"{transcript}:1", path, given, text, speaker=speaker_of_path(given, "folder"))


def _librispeech(lists: list[Path], folder: Path) -> Iterator[Entry]:
    for path in lists:
        for where, line in plain_lines(path):
            key, _, text = line.partition(" ")
            _check_key(key, where=where)
            found = [path.parent / f"{key}{suffix}" for suffix in AUDIO_SUFFIXES]
            audio = next((p for p in found if p.is_file()), path.parent / f"{key}.flac")
            given = audio.relative_to(folder).as_posix()
            speaker = speaker_of_path(given, "name_prefix")
            yield Entry(where, audio, given, text, id=key, speaker=speaker)


def _one_file(path: Path, folder: Path, audio: _Audio) -> Iterator[Entry]:
    separator = None
    for where, line in plain_lines(path):
        if separator is None:
            separator = next((mark for mark in "|\t" if mark in line), " ")
        key, text = _split_line(path, line, separator, where=where)
        given = audio.find(key, where=where)
        if given is None:
            missing, given = resolve_audio(key, roots=[folder], where=where)
            yield Entry(where, missing, given, text)
            continue
        file = audio.files[given]
        yield Entry(
            where,
            file,
            given,
            text,
            id=key if key == file.stem else None,
            speaker=speaker_of_path(given, "folder"),
        )
    if separator is None:
        raise InputError("empty file, expected a line for each audio file", where=path)


def _split_line(path: Path, line: str, separator: str, *, where: str) -> tuple[str, str]:
    """Return (key, text) of a line of the one transcript file."""
    if path.suffix == ".trn":
        match = _TRN.fullmatch(line)
        if match is None:
            raise InputError(f"'{line[:60]}', expected 'the words (name)'", where=where)
        return match["key"], match["words"]
    if separator == " ":
        key, *rest = line.split(maxsplit=1)
        return key, rest[0] if rest else ""
    fields = [part.strip() for part in line.split(separator)]
    most = 3 if separator == "|" else 2
    if not 2 <= len(fields) <= most or not fields[0]:
        shape = "name|written[|spoken]" if separator == "|" else "name<tab>words"
        raise InputError(
            f"{len(fields)} fields in '{line[:60]}', expected {shape}",
            where=where,
            fix="a table with a header row is read by --format tsv or csv",
        )
    return fields[0], next((text for text in reversed(fields[1:]) if text), "")


def _check_key(key: str, *, where: str) -> None:
    if "/" in key:
        raise InputError(f"'{key}', expected the name of a file in this folder", where=where)
