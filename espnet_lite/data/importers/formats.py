"""The formats that `import_data` reads, and the guess which one a source has.

A format is a function (path, options) → entries in a file of this folder, and a line in IMPORTERS.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from espnet_lite.data.importers.entry import Entry, ImportOptions
from espnet_lite.data.importers.folder import find_audio, import_folder, is_ljspeech
from espnet_lite.data.importers.hugging_face import METADATA, import_hugging_face, metadata_files
from espnet_lite.data.importers.lhotse import import_lhotse, looks_like_manifest, manifest_files
from espnet_lite.data.importers.nemo import import_nemo, set_manifests
from espnet_lite.data.importers.source_lines import first_record, visible_files
from espnet_lite.data.importers.table import import_csv, import_tsv, set_tables
from espnet_lite.errors import InputError

Importer = Callable[[Path, ImportOptions], Iterator[Entry]]

IMPORTERS: dict[str, Importer] = {
    "folder": import_folder,
    "tsv": import_tsv,
    "csv": import_csv,
    "hugging_face": import_hugging_face,
    "nemo": import_nemo,
    "lhotse": import_lhotse,
}

_COLUMNS = tuple(name for name in ImportOptions.__slots__ if name.endswith("_column"))
_USED = {
    "folder": ("transcripts",),
    "tsv": (*_COLUMNS, "audio_root", "quoting"),
    "csv": (*_COLUMNS, "audio_root", "quoting"),
    "hugging_face": (*_COLUMNS, "audio_root", "quoting"),
    "nemo": (*_COLUMNS, "audio_root"),
    "lhotse": ("audio_root",),
}

_PARQUET_FIX = (
    "write it out as files where `datasets` is installed: docs/import.md, 'Parquet and Arrow', "
    "has the lines"
)
_REFUSED = {
    ".parquet": ("Parquet with audio inside, expected audio files", _PARQUET_FIX),
    ".arrow": ("Arrow with audio inside, expected audio files", _PARQUET_FIX),
    ".zip": ("an archive, expected its contents", "unpack it and give the folder"),
    ".tar": ("an archive, expected its contents", "unpack it and give the folder"),
    ".tgz": ("an archive, expected its contents", "unpack it and give the folder"),
    ".xlsx": ("a spreadsheet, expected a table as text", "save it as CSV (UTF-8)"),
}


def guess_format(path: Path) -> str:
    """Return the format of a source by its names and, for JSON and metadata.csv, its first line.

    Raises:
        InputError: it is not there, none of the formats, or one that is refused.
    """
    if not path.exists():
        raise InputError("no such file or folder", where=path)
    _refuse_known(path)
    found = _guess_folder(path) if path.is_dir() else _guess_file(path)
    if found is None:
        what = "folder without audio, tables or manifests" if path.is_dir() else "unknown kind"
        raise InputError(
            f"{what}, expected one of: {', '.join(IMPORTERS)}",
            where=path,
            fix="say which: --format NAME",
        )
    return found


def check_options(format_name: str, options: ImportOptions) -> None:
    """Raise InputError for an option that was given and that the format has no use for."""
    usual = asdict(ImportOptions())
    for option, value in asdict(options).items():
        formats = [name for name, used in _USED.items() if option in used]
        if value != usual[option] and formats and format_name not in formats:
            raise InputError(
                f"--{option} means nothing for the format {format_name}, expected one of: "
                f"{', '.join(formats)}",
                fix="leave it out, or say which format it is: --format NAME",
            )


def _refuse_known(path: Path) -> None:
    suffix = ".tar" if ".tar" in path.suffixes else path.suffix.lower()
    if not path.is_dir() and suffix in _REFUSED:
        message, fix = _REFUSED[suffix]
        raise InputError(message, where=path, fix=fix)
    if (path / "wav.scp").is_file():
        raise InputError(
            "a Kaldi data directory already",
            where=path,
            fix=f"check it: python -m espnet_lite.bin.validate_data {path}",
        )


def _guess_file(path: Path) -> str | None:
    suffix = next((s.lower() for s in reversed(path.suffixes) if s.lower() != ".gz"), "")
    if path.name in METADATA and not (suffix == ".csv" and is_ljspeech(path)):
        return "hugging_face"
    if suffix in (".tsv", ".csv"):
        if suffix == ".csv" and is_ljspeech(path):
            raise InputError(
                "LJSpeech's metadata without a header row",
                where=path,
                fix=f"give its folder: {path.parent}",
            )
        return suffix[1:]
    if suffix in (".json", ".jsonl"):
        record = first_record(path)
        if looks_like_manifest(path) or path in manifest_files(path.parent):
            return "lhotse"
        return "hugging_face" if "file_name" in record else "nemo"
    return None


def _guess_folder(path: Path) -> str | None:
    if any(not is_ljspeech(file) for file in metadata_files(path)):
        return "hugging_face"
    if manifest_files(path):
        return "lhotse"
    for suffix in ("tsv", "csv"):
        if set_tables(path, f".{suffix}"):
            return suffix
    if set_manifests(path):
        return "nemo"
    if find_audio(path).files:
        return "folder"
    for suffix in ("tsv", "csv"):
        if len(visible_files(path, f"*.{suffix}")) == 1:
            return suffix
    for suffix in (".parquet", ".arrow", ".tar", ".zip"):
        inside = min(path.rglob(f"*{suffix}"), default=None)
        if inside is not None:
            _refuse_known(inside)
    return None
