"""Read a set that lies in LibriSpeech's layout, whatever the set is called.

    84/121550/84-121550.trans.txt      84-121550-0000 BUT WITH FULL RAVISHMENT THE HOURS OF PRIME
    84/121550/84-121550-0000.flac      or .opus, .ogg, .mp3, .wav

84 is the reader, 121550 the chapter that was read, 0000 the utterance. The name of the utterance is
kept: it begins with its reader. The reader is the speaker, so speakers count as the corpus counts
them, in SPEAKERS.TXT and in its paper. Kaldi's and ESPnet's recipes make each chapter a speaker,
because they normalize and adapt features per speaker and want that per recording; nothing here does.
"""

import os
import re
from pathlib import Path

from espnet_lite.data.data_dir import Utterance
from espnet_lite.errors import InputError
from espnet_lite.files import read_lines

AUDIO_SUFFIXES = (".flac", ".opus", ".ogg", ".mp3", ".wav")

_NAME = re.compile(r"\w+", re.ASCII)
_WORDS = re.compile(r"[A-Z']+( [A-Z']+)*")
_EXPECTED = "expected <speaker>/<chapter>/<speaker>-<chapter>.trans.txt in it"


def read_set(folder: Path) -> list[Utterance]:
    """Return the utterances of the set in `folder`, ordered by reader, chapter and line.

    Raises:
        InputError: another layout, a line that is no transcript, an utterance without audio or audio
            without a transcript, a duplicate, or no utterance at all.
    """
    utterances = []
    for speaker in _folders(folder):
        for chapter in _folders(speaker):
            utterances += _read_chapter(chapter)
    if not utterances:
        raise InputError(f"no utterances, {_EXPECTED}", where=folder)
    return utterances


def folders_in(folder: Path) -> list[str]:
    """Return the names of the folders in `folder`, sorted; hidden ones are left out."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _folders(folder: Path) -> list[Path]:
    names = folders_in(folder)
    for name in names:
        if not _NAME.fullmatch(name):
            raise InputError(f"a folder '{name}', {_EXPECTED}", where=folder)
    return [folder / name for name in names]


def _read_chapter(chapter: Path) -> list[Utterance]:
    name = f"{chapter.parent.name}-{chapter.name}"
    transcripts = chapter / f"{name}.trans.txt"
    if not transcripts.is_file():
        raise InputError("no such file: every chapter has its transcripts", where=transcripts)
    audio = _audio_files(chapter)
    texts: dict[str, str] = {}
    utterances = []
    for number, line in enumerate(read_lines(transcripts), start=1):
        where = f"{transcripts}:{number}"
        key, text = _parse(line, chapter=name, where=where)
        if key in texts:
            raise InputError(f"duplicate '{key}'", where=where)
        if key not in audio:
            raise InputError(
                f"no audio {chapter / key} with {', '.join(AUDIO_SUFFIXES)}", where=where
            )
        texts[key] = text
        utterances.append(
            Utterance(
                id=key,
                audio=f"{chapter}/{audio[key]}",
                start_seconds=None,
                end_seconds=None,
                text=text,
                speaker=chapter.parent.name,
                num_samples=None,
            )
        )
    for key, file in audio.items():
        if key not in texts:
            raise InputError(f"'{key}' has no line in {transcripts}", where=chapter / file)
    return utterances


def _audio_files(chapter: Path) -> dict[str, str]:
    """Return utterance → name of its audio file."""
    files: dict[str, str] = {}
    for name in sorted(os.listdir(chapter)):
        stem, suffix = os.path.splitext(name)
        if suffix not in AUDIO_SUFFIXES or name.startswith("."):
            continue
        if stem in files:
            raise InputError(
                f"two audio files of one utterance, {files[stem]} and {name}",
                where=chapter,
                fix="remove one of them",
            )
        files[stem] = name
    return files


def _parse(line: str, *, chapter: str, where: str) -> tuple[str, str]:
    """Return (utterance, words) of a line of a chapter's transcripts."""
    key, _, text = line.strip().partition(" ")
    text = " ".join(text.split())
    prefix, _, last = key.rpartition("-")
    if prefix != chapter or not _NAME.fullmatch(last):
        raise InputError(f"'{line}', expected a line like '{chapter}-0000 AND SO ON'", where=where)
    if not text:
        raise InputError(f"'{key}' has no words", where=where)
    if not _WORDS.fullmatch(text):
        odd = next(c for c in text if not re.match(r"[A-Z' ]", c))
        raise InputError(
            f"'{odd}' in the transcript of '{key}', expected capital letters A to Z and apostrophes",
            where=where,
        )
    return key, text
