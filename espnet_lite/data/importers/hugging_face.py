"""Folders in the layout of Hugging Face `datasets` (AudioFolder): audio and metadata.csv or .jsonl.

    my_data/train/metadata.csv       file_name,transcription
                                     1.wav,open the door
    my_data/train/1.wav              the folders train, validation and test are the sets
    my_data/metadata.jsonl           {"file_name": "train/1.wav", "transcription": "..."}   or so

`file_name` counts from the folder of its metadata. Audio embedded in Parquet or Arrow files is refused;
docs/import.md has the lines that write it out.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from espnet_lite.data.importers.entry import Entry, ImportOptions, set_of_name
from espnet_lite.data.importers.records import JsonColumns, choose_columns, record_entry
from espnet_lite.data.importers.source_lines import json_lines
from espnet_lite.data.importers.table import read_table_rows
from espnet_lite.errors import InputError

METADATA = ("metadata.csv", "metadata.jsonl")


def import_hugging_face(path: Path, options: ImportOptions) -> Iterator[Entry]:
    """Yield the entries of an AudioFolder, or of one metadata file."""
    if path.is_dir():
        files = metadata_files(path)
        if not files:
            raise InputError("no metadata.csv or metadata.jsonl in this folder", where=path)
        top = path
    else:
        files, top = [path], path.parent
    for before, file in itertools.pairwise(files):
        if before.parent == file.parent:
            raise InputError(
                f"{before.name} and {file.name} in one folder, expected one of them",
                where=file.parent,
            )
    for file in files:
        roots = [options.audio_root or file.parent]
        for entry in _import_metadata(file, options, roots=roots):
            yield replace(entry, set_name=entry.set_name or _set_of_path(entry, top=top))


def metadata_files(folder: Path) -> list[Path]:
    """Return the metadata files of a folder and of those below it, hidden ones aside."""
    found = (path for name in METADATA for path in folder.rglob(name))
    return sorted(p for p in found if not any(x[0] == "." for x in p.relative_to(folder).parts))


def _import_metadata(path: Path, options: ImportOptions, *, roots: list[Path]) -> Iterator[Entry]:
    if path.suffix == ".csv":
        columns = None
        quoting = "csv" if options.quoting == "auto" else options.quoting
        for where, row in read_table_rows(path, delimiter=",", quoting=quoting):
            if columns is None:
                columns = choose_columns(list(row), options=options, where=f"{path}:1")
            yield record_entry(row, columns, where=where, roots=roots)
        return
    chosen = JsonColumns(options)
    for where, record in json_lines(path):
        columns = chosen.of(record, where=where)
        yield record_entry(record, columns, where=where, roots=roots)
    if chosen.is_unused:
        raise InputError("empty metadata, expected one JSON object a line", where=path)


def _set_of_path(entry: Entry, *, top: Path) -> str | None:
    """Return the set that a folder between `top` and the audio names."""
    if entry.audio.is_relative_to(top):
        folders = entry.audio.relative_to(top).parts[:-1]
    else:
        folders = PurePosixPath(entry.given).parts[:-1]
    return next((name for name in map(set_of_name, folders) if name), None)
