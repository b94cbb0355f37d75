"""Names of utterances and speakers that keep Kaldi's rules, made from what a source says."""

import re
from pathlib import PurePosixPath

from espnet_lite.data.importers.entry import SET_NAMES, Entry, ImportOptions
from espnet_lite.errors import InputError

# Folders that hold audio and name nobody.
PLAIN_FOLDERS = frozenset(
    ("audio", "audios", "clips", "data", "flac", "mp3", "ogg", "recordings", "sph", "wav", "wavs")
) | frozenset(SET_NAMES)
SPEAKER_SOURCES = ("auto", "none", "folder", "top_folder", "name_prefix")


def clean_name(name: str) -> str:
    """Return a name without blanks, control characters and slashes, each of them made `_`."""
    name = name.strip()
    if name.isprintable() and not set(name) & set(" /\\"):  # the usual case
        return name
    return "".join(
        c if c.isprintable() and not c.isspace() and c not in "/\\" else "_" for c in name
    )


def naming_folders(given: str) -> list[str]:
    """Return the folders of a path that may name a speaker or a session."""
    folders = PurePosixPath(given).parts[:-1]
    return [name for name in folders if name not in ("/", "..") and not _is_plain(name)]


def _is_plain(name: str) -> bool:
    return name.lower() in PLAIN_FOLDERS


def raw_speaker(entry: Entry, options: ImportOptions) -> str | None:
    """Return the speaker as the options ask for it, None where it is not known.

    Raises:
        InputError: the pattern does not match the path.
    """
    if options.speaker_pattern is not None:
        match = re.search(options.speaker_pattern, entry.given)
        if match is None or not match[1]:
            raise InputError(
                f"speaker pattern '{options.speaker_pattern}' does not match '{entry.given}'",
                where=entry.where,
            )
        return match[1]
    if options.speaker_from == "auto":
        return entry.speaker
    if options.speaker_from == "none":
        return None
    return speaker_of_path(entry.given, options.speaker_from)


def speaker_of_path(given: str, how: str) -> str | None:
    """Return the speaker by the path of the audio.

    Args:
        given: the path, relative to its source.
        how: `folder` the one that the file lies in, `top_folder` the first below the source (folders
            such as wav, clips or train count for neither); `name_prefix` the file's name up to
            the first `-` or `_`.
    """
    if how == "name_prefix":
        parts = re.split("[-_]", PurePosixPath(given).stem, maxsplit=1)
        return parts[0] if len(parts) == 2 and parts[0] else None
    folders = naming_folders(given)
    if not folders:
        return None
    return folders[-1] if how == "folder" else folders[0]


def utterance_id(entry: Entry, speaker: str | None) -> str:
    """Return the id: the source's own or made from path and times, behind its speaker.

    A path `anna/7.wav` gives `anna-7`, its part from 1.5 s to 2.25 s `anna-7-0001500-0002250`.
    """
    name = entry.id if entry.id is not None else _name_of_audio(entry)
    name = clean_name(name)
    if speaker is None:
        return name
    after = name.removeprefix(speaker)
    # `anna2-1` is not of the speaker `anna`.
    begins_with_speaker = after != name and not after[:1].isalnum()
    return name if begins_with_speaker else f"{speaker}-{name}"


def _name_of_audio(entry: Entry) -> str:
    path = PurePosixPath(entry.given)
    # Where the source lies on this machine is no part of a name.
    is_outside = path.is_absolute() or ".." in path.parts
    name = "-".join([*([] if is_outside else naming_folders(entry.given)), path.stem])
    if entry.start_seconds is None:
        return name
    times = [entry.start_seconds, entry.end_seconds]
    ends = ["end" if seconds is None else f"{round(1000 * seconds):07d}" for seconds in times]
    return "-".join([name, *ends])
