"""Addresses of utterances' audio that a browser can play from a page on the same disk."""

import os
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

import soundfile

from espnet_lite.data.audio import read_audio, to_int16
from espnet_lite.data.audio_entries import parse_entry
from espnet_lite.data.data_dir import Utterance
from espnet_lite.errors import InputError
from espnet_lite.files import atomic_path

# First bytes of what Chromium, Firefox and Safari play: WAV, FLAC, Ogg, MP3 with and without tags.
# A suffix does not tell: TIMIT's *.WAV are SPHERE files.
PLAYABLE = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")


def audio_addresses(
    utterances: Mapping[str, Utterance], *, page: Path, copies: Path
) -> dict[str, str]:
    """Return `{utterance: address relative to the page}`; one without readable audio is absent.

    A file that a browser plays is pointed at. Of SPHERE files, archives and segments a FLAC copy is
    written into `copies`, unless one stands there that is younger than its source. Pipes are not run.
    """
    addresses = {}
    for name, utterance in utterances.items():
        if (path := _playable(utterance, copies)) is not None:
            relative = os.path.relpath(path, page.resolve().parent)
            addresses[name] = urllib.parse.quote(Path(relative).as_posix())
    return addresses


def _playable(utterance: Utterance, copies: Path) -> Path | None:
    if utterance.audio.endswith("|"):
        return None
    entry = parse_entry(utterance.audio)
    if entry.path is None or not entry.path.is_file():
        return None
    source = entry.path.resolve()
    is_whole = entry.offset is None and utterance.start_seconds is None
    if is_whole and _first_bytes(source).startswith(PLAYABLE):
        return source
    copy = copies.resolve() / f"{urllib.parse.quote(utterance.id, safe='')}.flac"
    if not copy.is_file() or copy.stat().st_mtime < source.stat().st_mtime:
        try:
            samples, rate = read_audio(
                utterance.audio,
                start_seconds=utterance.start_seconds,
                end_seconds=utterance.end_seconds,
                channel="mix",
            )
        except InputError:  # the report has the text of it all the same
            return None
        with atomic_path(copy) as temporary:
            soundfile.write(temporary, to_int16(samples), rate, format="FLAC", subtype="PCM_16")
    return copy


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)
