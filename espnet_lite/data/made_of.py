"""What an output was made of, so that a program need not make the same once more.

A stage of a recipe writes several sets, and runs again when one of them, or the list of them, changed.
The program that writes a set then sees from the set's record that it would write the same. Tables count
by their content, audio by path, size and time: it is not read for that.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from espnet_lite.data.audio_entries import parse_entry
from espnet_lite.errors import InputError
from espnet_lite.files import write_text

_BLOCK_BYTES = 1 << 20


def tables_of(folder: Path) -> list[Path]:
    """Return the files directly in a folder, without hidden ones, by name."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in found if path.is_file() and not path.name.startswith(".")]


def content_digests(paths: Iterable[Path]) -> dict[str, str]:
    """Return the hash of each file by its name."""
    digests = {}
    for path in paths:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        digests[path.name] = digest.hexdigest()
    return digests


def audio_digest(wav_scp: Path) -> str:
    """Return a hash over place, size and time of all audio that a wav.scp names.

    Of a pipe its command counts; a file that is not there counts as such.
    """
    digest, known = hashlib.sha256(), {}
    raw = wav_scp.read_bytes() if wav_scp.is_file() else b""
    for line in raw.decode("utf-8", "surrogateescape").split("\n"):
        words = line.split(maxsplit=1)
        if len(words) < 2:
            continue
        try:
            path = parse_entry(words[1].rstrip(), allow_pipes=True).path
        except InputError:
            path = None
        if path is not None and path not in known:
            known[path] = _mark(path)
        mark = words[1] if path is None else known[path]
        digest.update(f"{mark}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def files_digest(folder: Path) -> str:
    """Return a hash over name, size and time of the files directly in a folder."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    marks = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr(marks).encode("utf-8", "surrogateescape")).hexdigest()


def _mark(path: Path) -> tuple:
    try:
        stat = path.stat()
    except OSError:
        return (str(path.absolute()), None)
    return (str(path.absolute()), stat.st_size, stat.st_mtime_ns)


def write_record(path: Path, made_of: Mapping[str, object], outputs: Sequence[Path]) -> None:
    """Write what `outputs` were made of.

    Args:
        path: of the record, beside the outputs.
        made_of: JSON-able; taken before anything was read, so that what changes meanwhile shows.
        outputs: files, and folders, of which the files directly in them count.
    """
    record = {"made_of": made_of, "outputs": _written(outputs)}
    write_text(path, json.dumps(record, indent=1) + "\n")


def _written(outputs: Sequence[Path]) -> dict[str, str]:
    folders = {path.name: files_digest(path) for path in outputs if path.is_dir()}
    return {**content_digests(path for path in outputs if path.is_file()), **folders}


def is_made_of(path: Path, made_of: Mapping[str, object]) -> bool:
    """Return whether the record says so, and all it tells of is beside it, as it was written."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # none, or one that is damaged: make it again
    if not isinstance(record, dict) or record.get("made_of") != json.loads(json.dumps(made_of)):
        return False
    return _written([path.with_name(name) for name in record["outputs"]]) == record["outputs"]
