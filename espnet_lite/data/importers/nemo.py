"""NeMo manifests: one JSON object a line.

    {"audio_filepath": "anna/1.wav", "duration": 2.5, "text": "open the door", "speaker": "anna"}
    {"audio_filepath": "tape.wav", "offset": 12.4, "duration": 3.5, "text": "..."}

With an offset the entry is that part of its file; a duration alone is only counted. Relative paths
count from the manifest's folder, as in NeMo, or from --audio_root. Given a folder, the manifests named
after sets in it are the sets: train_manifest.json, dev.jsonl, ... Audio in tar files is refused.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from espnet_lite.data.importers.entry import Entry, ImportOptions, set_of_name
from espnet_lite.data.importers.records import JsonColumns, record_entry
from espnet_lite.data.importers.source_lines import json_lines, visible_files
from espnet_lite.errors import InputError

_MANIFEST = re.compile(r"(?P<set>[A-Za-z]+)([_-]manifest)?\.(json|jsonl)(\.gz)?")


def import_nemo(path: Path, options: ImportOptions) -> Iterator[Entry]:
    """Yield the entries of a manifest, or of the manifests of a folder that name sets."""
    if not path.is_dir():
        yield from _import_manifest(path, options, set_name=None)
        return
    manifests = set_manifests(path)
    if not manifests:
        raise InputError(
            "no train_manifest.json, dev_manifest.json or the like in this folder",
            where=path,
            fix="give the path of one manifest",
        )
    for manifest, set_name in manifests.items():
        yield from _import_manifest(manifest, options, set_name=set_name)


def set_manifests(folder: Path) -> dict[Path, str]:
    """Return manifest → set of the JSON files of a folder whose names are those of sets."""
    found = {}
    for path in visible_files(folder, "*"):
        match = _MANIFEST.fullmatch(path.name)
        set_name = set_of_name(match["set"]) if match else None
        if set_name is not None:
            found[path] = set_name
    return found


def _import_manifest(
    path: Path, options: ImportOptions, *, set_name: str | None
) -> Iterator[Entry]:
    roots = [options.audio_root or path.parent]
    columns = JsonColumns(options)
    for where, record in json_lines(path):
        if "shard_id" in record:
            raise InputError(
                "'shard_id': the audio lies in tar files, expected files",
                where=where,
                fix="unpack the tar files and use the manifest from before they were made",
            )
        chosen = columns.of(record, where=where)
        if isinstance(record[chosen.audio], list):
            raise InputError(
                f"'{chosen.audio}' is a list (one file for each channel), expected one file",
                where=where,
            )
        yield record_entry(record, chosen, where=where, roots=roots, set_name=set_name)
    if columns.is_unused:
        raise InputError("empty manifest, expected one JSON object a line", where=path)
