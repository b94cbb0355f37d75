"""A data directory brought to the rules: sorted, cleaned, cut down to what every table has."""

import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from espnet_lite.data.audio_entries import parse_entry
from espnet_lite.data.data_dir import parse_segment
from espnet_lite.data.subset import Tables, restrict, table_names
from espnet_lite.data.tables import write_table
from espnet_lite.data.validate import is_positive_number
from espnet_lite.errors import InputError
from espnet_lite.files import read_lines

BACKUP_FOLDER = ".backup"
# Written from the audio: an incomplete one is removed and made again, no utterance is dropped for it.
_DERIVED = ("utt2num_samples", "utt2dur")


@dataclass
class FixReport:
    """Utterances before and after, and how many fell to which reason."""

    before: int = 0
    after: int = 0
    dropped: Counter = field(default_factory=Counter)
    removed_tables: list[str] = field(default_factory=list)


def fix_data_dir(folder: Path | str, *, need_text: bool = True) -> FixReport:
    """Mend a data directory in place and return what was dropped.

    Sorts every table, removes carriage returns, byte order marks, odd blanks and repeated lines,
    keeps the utterances that have audio, a speaker and (unless `need_text` is False) words, and
    rewrites spk2utt. The tables as they were stay in `.backup`.

    Raises:
        InputError: what cannot be decided here: bytes that are not UTF-8, a table that is missing,
            one id with two different values; or nothing would be left.
    """
    folder = Path(folder)
    for name in ("wav.scp", "utt2spk", "text") if need_text else ("wav.scp", "utt2spk"):
        if not (folder / name).is_file():
            raise InputError("no such file", where=folder / name, fix="run the data stage (1)")
    tables = {name: _read_leniently(folder / name) for name in table_names(folder)}
    report = FixReport()
    keep = _complete_utterances(tables, need_text, report)
    if not keep:
        reasons = ", ".join(f"{count} {why}" for why, count in report.dropped.items())
        raise InputError(f"no utterance would be left of {report.before}: {reasons}", where=folder)
    for name in _DERIVED:
        usable = tables.get(name, {})
        if name in tables and not all(is_positive_number(usable.get(key, "")) for key in keep):
            report.removed_tables.append(name)
            del tables[name]
    _write(folder, restrict(tables, keep), report.removed_tables)
    report.after = len(keep)
    return report


def _read_leniently(path: Path) -> dict[str, str]:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        read_lines(path)  # names the line and the command that converts it
        raise
    table: dict[str, str] = {}
    lines: dict[str, int] = {}
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    for number, line in enumerate(text.split("\n"), start=1):
        if path.name == "wav.scp":  # a path may hold two blanks
            parts = line.strip().split(maxsplit=1)
            key, value = [*parts, "", ""][:2]
        else:
            words = line.replace("\ufeff", "").split()
            key, value = (words or [""])[0], " ".join(words[1:])
        if not key:
            continue
        if table.setdefault(key, value) != value:
            raise InputError(
                f"'{key}' has '{value}' here and '{table[key]}' in line {lines[key]}",
                where=f"{path}:{number}",
                fix="delete the wrong line",
            )
        lines.setdefault(key, number)
    return table


def _complete_utterances(tables: Tables, need_text: bool, report: FixReport) -> list[str]:
    """Return the utterances that every table has, counting the others by reason."""
    audio = _with_audio(tables, report)
    names = [name for name in ("utt2spk", "text") if name in tables]
    everyone = set(tables.get("segments", tables["wav.scp"])).union(*(tables[n] for n in names))
    report.before = len(everyone)
    keep = []
    for key in everyone:
        if key not in audio:
            if key not in tables.get("segments", tables["wav.scp"]):
                report.dropped["without audio"] += 1
        elif not tables["utt2spk"].get(key):
            report.dropped["without a speaker"] += 1
        elif "text" in tables and key not in tables["text"]:
            report.dropped["without a transcript"] += 1
        elif need_text and not tables["text"][key]:
            report.dropped["with an empty transcript"] += 1
        else:
            keep.append(key)
    return keep


def _with_audio(tables: Tables, report: FixReport) -> set[str]:
    """Return the utterances whose audio file is there and whose segment makes sense."""
    there = {}
    for key, entry in tables["wav.scp"].items():
        path = parse_entry(entry, allow_pipes=True).path if entry else Path()
        there[key] = path is None or (os.path.isfile(path) and path.stat().st_size > 0)
    found = set()
    for key, value in tables.get("segments", dict.fromkeys(tables["wav.scp"])).items():
        recording = key
        if value is not None:
            try:
                recording = parse_segment(value, where=key).recording
            except InputError:
                report.dropped["with a malformed segment"] += 1
                continue
        if recording not in there:
            report.dropped["without a recording in wav.scp"] += 1
        elif not there[recording]:
            report.dropped["whose audio file is missing or empty"] += 1
        else:
            found.add(key)
    return found


def _write(folder: Path, tables: Tables, removed: list[str]) -> None:
    backup = folder / BACKUP_FOLDER
    backup.mkdir(exist_ok=True)
    for name in (*tables, *removed):
        if (folder / name).exists():
            shutil.copy2(folder / name, backup / name)
    for name in removed:
        (folder / name).unlink()
    for name, table in tables.items():
        write_table(folder / name, table)
