"""All tables of a data directory restricted to some of its utterances, and ways to choose them."""

import random
from collections.abc import Collection, Sequence
from pathlib import Path

from espnet_lite.data.data_dir import parse_count, parse_segment
from espnet_lite.data.tables import (
    read_rows,
    read_table,
    speakers_to_utterances,
    write_table,
)
from espnet_lite.data.target_folder import check_target
from espnet_lite.data.validate import is_positive_number
from espnet_lite.errors import InputError
from espnet_lite.files import atomic_folder

Tables = dict[str, dict[str, str]]


def table_names(folder: Path) -> list[str]:
    """Return the names of the tables in a data directory: Kaldi's, and any utt2* spk2* reco2*.

    Without spk2utt, which is written anew from utt2spk.
    """
    fixed = ["wav.scp", "utt2spk", "text", "segments"]
    found = sorted(
        path.name
        for pattern in ("utt2*", "spk2*", "reco2*")
        for path in folder.glob(pattern)
        if path.is_file() and path.name not in ("utt2spk", "spk2utt")
    )
    return [name for name in fixed if (folder / name).exists()] + found


def key_kind(table: str) -> str:
    """Return what the lines of a table are about: "recording", "speaker" or "utterance".

    A recording without segments is an utterance as well.
    """
    if table == "wav.scp" or table.startswith("reco2"):
        return "recording"
    return "speaker" if table.startswith("spk2") else "utterance"


def restrict(tables: Tables, ids: Collection[str]) -> Tables:
    """Return the tables with only these utterances, and the recordings and speakers they use."""
    keep = set(ids)
    wanted = {"utterance": keep, "recording": keep}
    wanted["speaker"] = {tables["utt2spk"][key] for key in keep}
    if "segments" in tables:
        wanted["recording"] = {tables["segments"][key].split()[0] for key in keep}
    restricted: Tables = {}
    for name, table in tables.items():
        keys = wanted[key_kind(name)]
        restricted[name] = {key: value for key, value in table.items() if key in keys}
    restricted["spk2utt"] = speakers_to_utterances(restricted["utt2spk"])
    return restricted


def subset_data_dir(source: Path | str, target: Path | str, ids: Collection[str]) -> None:
    """Write the utterances `ids` of one data directory as another, whole or not at all.

    Raises:
        InputError: no ids, an id that the source does not have, or a target that is or holds the
            source or something else than a data directory.
    """
    source, target = Path(source), Path(target)
    check_target(target, sources=[source])
    tables = {name: read_table(source / name) for name in table_names(source)}
    if not ids:
        raise InputError("no utterance chosen", where=source)
    for key in ids:
        if key not in tables["utt2spk"]:
            raise InputError(f"utterance '{key}' is not in {source / 'utt2spk'}", where=target)
    with atomic_folder(target) as folder:
        for name, table in restrict(tables, ids).items():
            write_table(folder / name, table)


def first_utterances(source: Path | str, number: int) -> list[str]:
    """Return the first `number` utterances in byte order.

    Raises:
        InputError: fewer than one asked for, or more than there are.
    """
    return _taken("first", source, number, _ids(source))


def last_utterances(source: Path | str, number: int) -> list[str]:
    """Return the last `number` utterances in byte order; faults as `first_utterances`."""
    return _taken("last", source, number, _ids(source)[::-1])


def shortest_utterances(source: Path | str, number: int) -> list[str]:
    """Return the `number` shortest utterances; of equally long ones the first in byte order.

    Raises:
        InputError: as `first_utterances`, or nothing tells how long the utterances are.
    """
    lengths = utterance_lengths(source)
    if lengths is None:
        raise _no_lengths(source)
    ids = sorted(_ids(source), key=lambda key: lengths[key])
    return _taken("shortest", source, number, ids)


def utterances_per_speaker(source: Path | str, number: int) -> list[str]:
    """Return at most `number` utterances of every speaker, spread evenly over those there are.

    Raises:
        InputError: fewer than one asked for.
    """
    if number < 1:
        raise InputError(f"{number} utterances per speaker, expected at least 1", where=source)
    chosen = []
    for ids in speakers_to_utterances(read_table(Path(source) / "utt2spk")).values():
        ids = ids.split()
        count = min(number, len(ids))
        chosen += [ids[i * len(ids) // count] for i in range(count)]
    return chosen


def random_hours(source: Path | str, hours: float | int, *, seed: int = 0) -> list[str]:
    """Return utterances in random order until the next one would exceed `hours` of audio.

    Raises:
        InputError: more hours than there are, or none; nothing tells how long the utterances are.
    """
    seconds = utterance_lengths(source, in_seconds=True)
    if seconds is None:
        raise _no_lengths(source)
    ids = list(seconds)
    there = sum(seconds.values()) / 3600
    if not 0 < hours <= there:
        raise InputError(f"{hours:g} hours asked for, expected up to {there:.3f}", where=source)
    random.Random(seed).shuffle(ids)
    chosen, total = [], 0.0
    for key in ids:
        total += seconds[key]
        if total > hours * 3600:
            break
        chosen.append(key)
    if not chosen:
        raise InputError(f"{hours:g} hours are less than utterance '{ids[0]}'", where=source)
    return chosen


def listed_utterances(source: Path | str, path: Path | str) -> list[str]:
    """Return the utterances that a file lists, one a line (what follows the id is ignored).

    Raises:
        InputError: a line names an utterance that the source does not have.
    """
    known = read_table(Path(source) / "utt2spk")
    return _listed(path, known, f"utterance of {source}")


def utterances_of_listed_speakers(source: Path | str, path: Path | str) -> list[str]:
    """Return the utterances of the speakers that a file lists, one a line.

    Raises:
        InputError: a line names a speaker that the source does not have.
    """
    utt2spk = read_table(Path(source) / "utt2spk")
    speakers = set(_listed(path, set(utt2spk.values()), f"speaker of {source}"))
    return [key for key, speaker in utt2spk.items() if speaker in speakers]


def utterance_lengths(source: Path | str, *, in_seconds: bool = False) -> dict[str, float] | None:
    """Return how long every utterance is, by utt2num_samples, utt2dur or segments.

    None where none of them tells. The unit is that of the table; with `in_seconds` it is seconds
    and utt2num_samples, which does not name its rate, is not asked.

    Raises:
        InputError: an utterance is missing from the table, or its value is senseless.
    """
    source = Path(source)
    lengths: dict[str, float] = {}
    if not in_seconds and (source / "utt2num_samples").exists():
        path = source / "utt2num_samples"
        for row in read_rows(path):
            lengths[row.key] = float(parse_count(row.value, where=f"{path}:{row.line}"))
    elif (source / "utt2dur").exists():
        path = source / "utt2dur"
        for row in read_rows(path):
            if not is_positive_number(row.value):
                raise InputError(
                    f"'{row.value}', expected a positive number of seconds",
                    where=f"{path}:{row.line}",
                )
            lengths[row.key] = float(row.value)
    elif (source / "segments").exists():
        path = source / "segments"
        for row in read_rows(path):
            segment = parse_segment(row.value, where=f"{path}:{row.line}")
            if segment.end_seconds is None:
                return None
            lengths[row.key] = segment.end_seconds - segment.start_seconds
    else:
        return None
    ids = _ids(source)
    for key in ids:
        if key not in lengths:
            raise InputError(f"utterance '{key}' of utt2spk is missing", where=path)
    return {key: lengths[key] for key in ids}


def _ids(source: Path | str) -> list[str]:
    return list(read_table(Path(source) / "utt2spk"))


def _taken(which: str, source: Path | str, number: int, ids: Sequence[str]) -> list[str]:
    if not 1 <= number <= len(ids):
        raise InputError(
            f"{which} {number} utterances asked for, expected 1 to {len(ids)}", where=source
        )
    return list(ids[:number])


def _no_lengths(source: Path | str) -> InputError:
    return InputError(
        "nothing tells how long the utterances are, expected utt2dur or segments with their ends",
        where=source,
        fix="choose from a folder that the dump stage (2) wrote",
    )


def _listed(path: Path | str, known: Collection[str], what: str) -> Sequence[str]:
    rows = read_rows(path)
    for row in rows:
        if row.key not in known:
            raise InputError(f"'{row.key}' is no {what}", where=f"{path}:{row.line}")
    return [row.key for row in rows]
