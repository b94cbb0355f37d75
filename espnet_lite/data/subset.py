"""All tables of a data directory restricted to some of its utterances."""

from collections.abc import Collection, Sequence
from pathlib import Path

from espnet_lite.data.tables import (
    byte_order,
    read_rows,
    read_table,
    speakers_to_utterances,
    write_table,
)
from espnet_lite.errors import InputError
from espnet_lite.files import atomic_folder

Tables = dict[str, dict[str, str]]


def table_names(folder: Path) -> list[str]:
    """Return the names of the tables in a data directory: Kaldi's, and any utt2* spk2* reco2*."""
    fixed = ["wav.scp", "utt2spk", "text", "segments"]
    found = sorted(
        path.name
        for pattern in ("utt2*", "spk2*", "reco2*")
        for path in folder.glob(pattern)
        if path.is_file() and path.name not in ("utt2spk", "spk2utt")
    )
    return [name for name in fixed if (folder / name).exists()] + found


def restrict(tables: Tables, ids: Collection[str]) -> Tables:
    """Return the tables with only these utterances, and the recordings and speakers they use."""
    keep = set(ids)
    speakers = {tables["utt2spk"][key] for key in keep}
    recordings = keep
    if "segments" in tables:
        recordings = {tables["segments"][key].split()[0] for key in keep}
    restricted: Tables = {}
    for name, table in tables.items():
        if name == "wav.scp" or name.startswith("reco2"):
            wanted: Collection[str] = recordings
        elif name.startswith("spk2"):
            wanted = speakers
        else:
            wanted = keep
        restricted[name] = {key: value for key, value in table.items() if key in wanted}
    restricted["spk2utt"] = speakers_to_utterances(restricted["utt2spk"])
    return restricted


def subset_data_dir(source: Path | str, target: Path | str, ids: Collection[str]) -> None:
    """Write the utterances `ids` of one data directory as another, whole or not at all.

    Raises:
        InputError: no ids, an id that the source does not have, or target is the source.
    """
    source, target = Path(source), Path(target)
    if source.resolve() == target.resolve():
        raise InputError("source and destination are the same folder", where=target)
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
    ids = sorted(read_table(Path(source) / "utt2spk"), key=byte_order)
    if not 1 <= number <= len(ids):
        raise InputError(
            f"first {number} utterances asked for, expected 1 to {len(ids)}", where=source
        )
    return ids[:number]


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


def _listed(path: Path | str, known: Collection[str], what: str) -> Sequence[str]:
    rows = read_rows(path)
    for row in rows:
        if row.key not in known:
            raise InputError(f"'{row.key}' is no {what}", where=f"{path}:{row.line}")
    return [row.key for row in rows]
