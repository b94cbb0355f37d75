"""A source becomes data directories: read, divided, written, validated, counted."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from espnet_lite.data.data_dir import write_data_dir
from espnet_lite.data.importers.assemble import Assembled, Imported, assemble
from espnet_lite.data.importers.entry import ImportOptions
from espnet_lite.data.importers.formats import IMPORTERS, check_options, guess_format
from espnet_lite.data.importers.split import check_set_name, divide
from espnet_lite.data.validate import validate_data_dir
from espnet_lite.errors import InputError, unknown_name

# What a data directory may hold; a folder with anything else in it is never replaced.
_IN_DATA_DIR = re.compile(r"wav\.scp|text|segments|(utt2|spk2|reco2)\w+|\.backup|split\d+(utt)?")


@dataclass
class ImportReport:
    """What was read and written.

    Attributes:
        format: the format that was read.
        sets: data directory → its utterances.
        left_out: reason → places of the entries that were left out.
        notes: further lines for the user.
    """

    format: str
    sets: dict[Path, list[Imported]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def import_source(
    source: Path | str,
    data_dir: Path | str,
    *,
    format_name: str = "auto",
    options: ImportOptions,
    shares: dict[str, float],
    split_by: str = "speaker",
    seed: int = 1,
    text_case: str = "keep",
    strip_punctuation: bool = False,
    skip_missing: bool = False,
) -> ImportReport:
    """Write data directories from a source and return what was done.

    `data_dir` itself is one where neither the source nor `shares` name sets; else it gets one for
    each set. Sets of the source are kept: of `shares` only the sets that it lacks are made, from its
    train. Everything is checked before the first one is written.

    Raises:
        InputError: an unknown format, what importers, `assemble` and `divide` raise, nothing to
            write, or a folder in the way that is no data directory.
    """
    source, data_dir = Path(source), Path(data_dir)
    try:
        if format_name == "auto":
            format_name = guess_format(source)
        elif format_name not in IMPORTERS:
            raise unknown_name("format", format_name, (*IMPORTERS, "auto"))
        elif not source.exists():
            raise InputError("no such file or folder", where=source)
        check_options(format_name, options)
        report = ImportReport(format_name)
        assembled = assemble(
            IMPORTERS[format_name](source, options),
            options=options,
            text_case=text_case,
            strip_punctuation=strip_punctuation,
            skip_missing=skip_missing,
        )
    except OSError as error:  # no permission for a folder, a disk that fails
        raise InputError(
            f"cannot read: {error.strerror}", where=error.filename or source
        ) from error
    report.left_out = assembled.left_out
    if not assembled.rows:
        raise InputError(f"no utterance left{_reasons(assembled)}", where=source)
    sets = _own_sets(assembled.rows)
    if shares and not sets:
        sets = divide(assembled.rows, shares, by=split_by, seed=seed, where=source)
    elif sets:
        _add_missing_sets(sets, shares, by=split_by, seed=seed, source=source, notes=report.notes)
    _note_shared_speakers(sets, report.notes)
    if sets:
        report.sets = {data_dir / name: rows for name, rows in sets.items()}
    else:
        report.sets = {data_dir: assembled.rows}
    for folder in report.sets:
        _check_target(folder)
    for folder, rows in report.sets.items():
        write_data_dir(folder, (row.utterance for row in rows))
        validate_data_dir(folder, need_text=options.need_text)
    return report


def _own_sets(rows: Iterable[Imported]) -> dict[str, list[Imported]]:
    """Return set → utterances by the sets of the source; empty where it has none."""
    sets: dict[str, list[Imported]] = {}
    for row in rows:
        if row.set_name is None:
            return {}
        if row.set_name not in sets:
            check_set_name(row.set_name, where=row.where)
        sets.setdefault(row.set_name, []).append(row)
    usual = [name for name in ("train", "dev", "test") if name in sets]
    return {name: sets[name] for name in (*usual, *sorted(sets.keys() - set(usual)))}


def _add_missing_sets(
    sets: dict[str, list[Imported]],
    shares: dict[str, float],
    *,
    by: str,
    seed: int,
    source: Path,
    notes: list[str],
) -> None:
    """Take the sets of `shares` that the source lacks from its train, in their proportion."""
    missing = [name for name in shares if name not in sets]
    own = ", ".join(sets)
    if shares and not missing:
        notes.append(f"the source has its own sets {own}: --split is not used")
    if not missing:
        return
    if "train" not in sets or "train" not in shares:
        raise InputError(
            f"it has its own sets {own}, and no train to take {', '.join(missing)} from",
            where=source,
            fix="import without --split and name these sets to the recipe: --train_sets, "
            "--dev_sets, --test_sets",
        )
    parts = {name: shares[name] for name in ("train", *missing)}
    total = sum(parts.values())
    parts = {name: share / total for name, share in parts.items()}
    sets.update(divide(sets["train"], parts, by=by, seed=seed, where=source))
    notes.append(f"the source has its own sets {own}: {', '.join(missing)} taken from its train")


def _note_shared_speakers(sets: dict[str, list[Imported]], notes: list[str]) -> None:
    """Note the speakers of train that are heard in another set too."""
    speakers = {
        name: {row.utterance.speaker for row in rows if row.has_speaker}
        for name, rows in sets.items()
    }
    for name in sets:
        shared = speakers[name] & speakers.get("train", set()) if name != "train" else set()
        if shared:
            notes.append(f"{len(shared)} of {len(speakers[name])} speakers of {name} are in train")


def _check_target(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError("a file, expected a new folder or a data directory", where=folder)
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    others = [name for name in names if not _IN_DATA_DIR.fullmatch(name)]
    if others:
        raise InputError(
            f"it holds '{others[0]}', so it is no data directory and is not replaced",
            where=folder,
            fix="choose a new folder: --data_dir DIR",
        )


def _reasons(assembled: Assembled) -> str:
    counts = [f"{len(places)} {reason}" for reason, places in assembled.left_out.items()]
    first = next(iter(assembled.left_out.values()), [""])[0]
    return f": {', '.join(counts)}, first {first}" if counts else ", the source is empty"
