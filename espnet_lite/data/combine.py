"""Several data directories as one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from espnet_lite.data.subset import key_kind, table_names
from espnet_lite.data.tables import read_rows, speakers_to_utterances, write_table
from espnet_lite.data.target_folder import check_target
from espnet_lite.data.validate import validate_data_dir
from espnet_lite.errors import InputError
from espnet_lite.files import atomic_folder

# What a training cannot do without is not left out because one folder lacks it.
_NEEDED = {
    "text": "take labelled and unlabelled folders apart, or leave it out with --no_text",
    "utt2num_samples": "run the dump stage (2) on that folder, or delete the file in the others",
}


@dataclass
class CombineReport:
    """Utterances in all; table → the folder that lacks it, for tables that were left out."""

    utterances: int = 0
    left_out: dict[str, Path] = field(default_factory=dict)


def combine_data_dirs(
    target: Path | str,
    sources: Sequence[Path | str],
    *,
    need_text: bool = True,
    allow_pipes: bool = False,
) -> CombineReport:
    """Write the utterances of several data directories as one, whole or not at all.

    Every source is validated first. A table goes over where all have it; entries of wav.scp stay as
    they are, so relative paths count from the current directory as before. Where only some have
    segments, a recording of the others becomes a segment from 0 to its end. A speaker may occur in
    several sources, and so may a recording with segments, if their lines are the same.

    Args:
        target: the data directory to write; replaced if it is there.
        sources: their order does not matter.
        need_text: False leaves text out where one lacks it.
        allow_pipes: accept commands in wav.scp.

    Raises:
        InputError: a source breaks a rule, an utterance occurs twice, a recording or speaker has two
            different lines (both files are named), only some sources have text or utt2num_samples,
            or the target is or holds a source or something else than a data directory.
    """
    target, folders = Path(target), [Path(source) for source in sources]
    _check_folders(target, folders)
    report = CombineReport()
    names = _shared_tables(folders, report, need_text=need_text)
    for folder in folders:
        validate_data_dir(folder, need_text=need_text, allow_pipes=allow_pipes)
    with atomic_folder(target) as temporary:
        for name in names:
            table = _merge(folders, name)
            write_table(temporary / name, table)
            if name == "utt2spk":
                write_table(temporary / "spk2utt", speakers_to_utterances(table))
                report.utterances = len(table)
    return report


def _check_folders(target: Path, folders: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError("no such data directory", where=folder)
        place = folder.resolve()
        if place in seen:
            raise InputError(f"given twice, as {seen[place]} too", where=folder)
        seen[place] = folder
    check_target(target, sources=folders)


def _shared_tables(folders: Sequence[Path], report: CombineReport, *, need_text: bool) -> list[str]:
    """Return the tables to write: those of all folders, and segments if one has them."""
    names: dict[str, Path] = {}
    for folder in folders:
        for name in table_names(folder):
            names.setdefault(name, folder)
    shared = []
    for name, owner in names.items():
        lacking = [folder for folder in folders if not (folder / name).exists()]
        if not lacking or name == "segments":
            shared.append(name)
        elif name in _NEEDED and (name != "text" or need_text):
            raise InputError(
                f"no such file, but {owner / name} is there",
                where=lacking[0] / name,
                fix=_NEEDED[name],
            )
        else:
            report.left_out[name] = lacking[0]
    return shared


def _merge(folders: Sequence[Path], name: str) -> dict[str, str]:
    """Return a table of all folders; two lines on one thing are refused, for an utterance always."""
    has_segments = any((folder / "segments").exists() for folder in folders)
    kind = key_kind(name)
    if kind == "recording" and not has_segments:
        kind = "utterance"
    merged: dict[str, str] = {}
    for folder in folders:
        path = folder / name
        if name == "segments" and not path.exists():
            path = folder / "wav.scp"
            rows = [row._replace(value=f"{row.key} 0 -1") for row in read_rows(path)]
        else:
            rows = read_rows(path)
        for row in rows:
            is_there = row.key in merged
            if is_there and (kind == "utterance" or merged[row.key] != row.value):
                raise _clash(folders, name, kind, row.key, where=f"{path}:{row.line}")
            merged[row.key] = row.value
    return merged


def _clash(folders: Sequence[Path], name: str, kind: str, key: str, *, where: str) -> InputError:
    """Return the error for the second line on `key`; the first one is found again."""
    for folder in folders:
        path = folder / name if (folder / name).exists() else folder / "wav.scp"
        for row in read_rows(path):
            if row.key == key:
                return InputError(
                    f"{kind} '{key}' stands in {path}:{row.line} already"
                    + ("" if kind == "utterance" else f" with '{row.value}'"),
                    where=where,
                    fix="rename one of them in every file of its folder, or drop it with subset_data",
                )
    raise AssertionError("a second line has a first one")
