"""What a wav.scp entry names: an audio file, an offset in a Kaldi archive, or a pipe."""

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from espnet_lite.errors import InputError

_ARK = re.compile(r"^(?P<path>.+):(?P<offset>\d+)$")
_SHELL_WORDS = re.compile(r"^(;|&&?|\|\||\d*[<>].*|.*(`|\$\().*)$")


@dataclass(frozen=True, slots=True)
class AudioEntry:
    """A parsed wav.scp entry.

    Attributes:
        path: the audio file or archive; None for a pipe.
        offset: where the audio begins in an archive, in bytes; None for a file.
        command: the command of a pipe, without the bar at its end.
    """

    path: Path | None
    offset: int | None = None
    command: str | None = None


def parse_entry(entry: str, *, allow_pipes: bool = False) -> AudioEntry:
    """Return what a wav.scp entry names; nothing is opened or run.

    Raises:
        InputError: an empty entry, or a pipe without `allow_pipes`.
    """
    if not entry:
        raise InputError("no path, expected '<id> <path of an audio file>'")
    if entry.endswith("|"):
        if not allow_pipes:
            raise InputError(
                f"pipe '{entry}', expected a path or ark:offset",
                fix="write the file's path (SPHERE, FLAC, MP3, Ogg and WAV are read directly), "
                "or dump with --allow_pipes",
            )
        return AudioEntry(None, command=entry[:-1].strip())
    match = _ARK.match(entry)
    if match is not None and not os.path.exists(entry):
        return AudioEntry(Path(match["path"]), offset=int(match["offset"]))
    return AudioEntry(Path(entry))


def run_pipe(command: str) -> bytes:
    """Return the standard output of `a | b | c`, run without a shell.

    Raises:
        InputError: shell syntax other than the bar, an unknown program, a non-zero exit status.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"pipe '{command}': {error}") from error
    stages: list[list[str]] = [[]]
    for word in words:
        if _SHELL_WORDS.match(word):
            raise InputError(
                f"pipe '{command}' needs a shell for '{word}', expected 'program arguments |'"
            )
        if word == "|":
            stages.append([])
        else:
            stages[-1].append(word)
    if not all(stages):
        raise InputError(f"pipe '{command}' has an empty part, expected 'program arguments |'")
    output = b""
    for stage in stages:
        try:
            done = subprocess.run(stage, input=output, capture_output=True, check=False)
        except OSError as error:
            raise InputError(f"pipe '{command}': cannot run '{stage[0]}': {error}") from error
        if done.returncode != 0:
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [""]
            raise InputError(
                f"pipe '{command}': '{stage[0]}' ended with status {done.returncode} {last[0]}"
            )
        output = done.stdout
    return output
