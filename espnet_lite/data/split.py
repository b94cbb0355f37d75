"""A data directory split into parts of like size, so that several programs share the work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet_lite.data.subset import key_kind, table_names, utterance_lengths
from espnet_lite.data.tables import read_table, speakers_to_utterances, write_table
from espnet_lite.data.target_folder import check_target
from espnet_lite.data.validate import validate_data_dir
from espnet_lite.errors import InputError, unknown_name
from espnet_lite.files import atomic_folder

WAYS = ("speaker", "utterance")


@dataclass(frozen=True)
class Split:
    """What was written: the folder of the parts 1 … n, and how many utterances each of them has."""

    folder: Path
    utterances: list[int]


def split_data_dir(folder: Path | str, number: int, *, by: str = "speaker") -> Split:
    """Write `folder/split<number>/1` … `/<number>`, all of them or none; old ones are replaced.

    By speaker the parts have whole speakers, dealt out from the largest on, each to the smallest
    part. By utterance they are runs of the sorted list, in `folder/split<number>utt` (Kaldi's
    names). Sizes are samples or seconds where the folder tells them, else utterances. Every table
    is split; a part has the recordings and speakers of its own utterances only.

    Raises:
        InputError: the folder breaks a rule, or has fewer speakers or utterances than parts.
    """
    if by not in WAYS:
        raise unknown_name("way to split", by, WAYS)
    folder = Path(folder)
    # A command in wav.scp is carried over, not run.
    validate_data_dir(folder, need_text=False, allow_pipes=True)
    utt2spk = read_table(folder / "utt2spk")
    lengths = utterance_lengths(folder) or dict.fromkeys(utt2spk, 1.0)
    if by == "speaker":
        target = folder / f"split{number}"
        parts = _by_speaker(folder, number, utt2spk, lengths)
    else:
        target = folder / f"split{number}utt"
        parts = _by_utterance(folder, number, list(utt2spk), lengths)
    check_target(target, marks=["1"])
    with atomic_folder(target) as temporary:
        for part in range(number):
            (temporary / str(part + 1)).mkdir()
        _write_parts(folder, temporary, parts)
    return Split(target, np.bincount(list(parts.values()), minlength=number).tolist())


def _by_speaker(
    folder: Path, number: int, utt2spk: Mapping[str, str], lengths: Mapping[str, float]
) -> dict[str, int]:
    """Return the part of every utterance, counted from 0."""
    sizes: dict[str, float] = {}
    for key, speaker in utt2spk.items():
        sizes[speaker] = sizes.get(speaker, 0.0) + lengths[key]
    if not 1 <= number <= len(sizes):
        raise InputError(
            f"{number} parts asked for, expected 1 to {len(sizes)}, the number of speakers",
            where=folder,
            fix="a speaker stays in one part; cut through them with --by utterance",
        )
    loads = np.zeros(number)
    parts = {}
    for speaker in sorted(sizes, key=lambda name: (-sizes[name], name)):
        parts[speaker] = int(np.argmin(loads))
        loads[parts[speaker]] += sizes[speaker]
    return {key: parts[speaker] for key, speaker in utt2spk.items()}


def _by_utterance(
    folder: Path, number: int, ids: Sequence[str], lengths: Mapping[str, float]
) -> dict[str, int]:
    if not 1 <= number <= len(ids):
        raise InputError(
            f"{number} parts asked for, expected 1 to {len(ids)}, the number of utterances",
            where=folder,
        )
    ends = np.cumsum([lengths[key] for key in ids])  # of each utterance, in the whole list
    parts = np.zeros(len(ids), dtype=np.int64)
    first = 0
    for part in range(1, number):
        wanted = ends[-1] * part / number
        nearest = int(np.argmin(np.abs(ends - wanted))) + 1
        # An utterance for this part and for each one to come, however long the others are.
        first = min(max(nearest, first + 1), len(ids) - (number - part))
        parts[first:] = part
    return dict(zip(ids, parts.tolist(), strict=True))


def _write_parts(folder: Path, target: Path, parts: Mapping[str, int]) -> None:
    """Write every table of `folder` into `target/1`, `target/2`, …"""
    number = 1 + max(parts.values())
    recordings, speakers = _users(folder, parts)
    for name in table_names(folder):
        tables: list[dict[str, str]] = [{} for _ in range(number)]
        kind = key_kind(name)
        for key, value in read_table(folder / name).items():
            if kind == "recording" and recordings is not None:
                users = recordings.get(key, ())
            elif kind == "speaker":
                users = speakers.get(key, ())
            else:
                users = (parts[key],) if key in parts else ()
            for part in users:
                tables[part][key] = value
        for part, table in enumerate(tables, start=1):
            write_table(target / str(part) / name, table)
            if name == "utt2spk":
                write_table(target / str(part) / "spk2utt", speakers_to_utterances(table))


def _users(
    folder: Path, parts: Mapping[str, int]
) -> tuple[dict[str, set[int]] | None, dict[str, set[int]]]:
    """Return the parts that use each recording (None without segments) and each speaker."""
    speakers: dict[str, set[int]] = {}
    for key, speaker in read_table(folder / "utt2spk").items():
        speakers.setdefault(speaker, set()).add(parts[key])
    if not (folder / "segments").exists():
        return None, speakers
    recordings: dict[str, set[int]] = {}
    for key, value in read_table(folder / "segments").items():
        recordings.setdefault(value.split()[0], set()).add(parts[key])
    return recordings, speakers
