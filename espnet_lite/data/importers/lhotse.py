"""lhotse manifests: recordings and supervisions, or cuts, as JSON Lines (.jsonl, .jsonl.gz).

    recordings.jsonl.gz     {"id": "tape", "sources": [{"type": "file", "channels": [0], "source": "tape.wav"}], ...}
    supervisions.jsonl.gz   {"id": "tape-1", "recording_id": "tape", "start": 0.2, "duration": 1.5, "channel": 0, "text": "..."}
    cuts.jsonl.gz           {"type": "MonoCut", "start": 0, "recording": {...}, "supervisions": [...], ...}

Every supervision is an utterance; its start counts from the cut it lies in. A name like
`librispeech_recordings_train-clean-5.jsonl.gz` names a set. Relative paths count from the manifest's
folder, then from the current one as in lhotse, or from --audio_root alone. The layout is that of
lhotse 1.33. Refused: several channels, commands, URLs, audio inside of manifests or archives,
changed audio (`transforms`), mixed and padded cuts, cuts of features or with custom arrays.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from espnet_lite.data.importers.entry import Entry, ImportOptions, resolve_audio, set_of_name
from espnet_lite.data.importers.records import parse_seconds
from espnet_lite.data.importers.source_lines import first_record, json_lines, visible_files
from espnet_lite.errors import InputError

# A supervision that ends this close to the end of its recording covers it: lhotse rounds its times.
ROUNDING_SECONDS = 1e-3
_NAME = re.compile(
    r"(?P<before>(?:.*[_.-])?)(?P<kind>recordings|supervisions|cuts)([_.-](?P<set>.+?))?"
    r"\.(?P<format>jsonl|json|yaml|yml)(\.gz)?"
)
Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Recording:
    where: str
    audio: Path
    given: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Manifests:
    """Files that belong together: cuts, or recordings and supervisions."""

    set_name: str | None
    cuts: Path | None = None
    recordings: Path | None = None
    supervisions: Path | None = None


def import_lhotse(path: Path, options: ImportOptions) -> Iterator[Entry]:
    """Yield the supervisions of the manifests of a folder, or of one file and its partner."""
    for manifests in _find(path):
        if manifests.cuts is not None:
            yield from _import_cuts(manifests.cuts, options, set_name=manifests.set_name)
        else:
            yield from _import_supervisions(manifests, options)


def manifest_files(folder: Path) -> list[Path]:
    """Return the files of a folder that have the names of lhotse manifests."""
    return [path for path in visible_files(folder, "*") if _NAME.fullmatch(path.name)]


def _find(path: Path) -> list[_Manifests]:
    """Return the manifests to read; cuts only where there are no supervisions."""
    is_folder = path.is_dir()
    files = manifest_files(path if is_folder else path.parent)
    if not is_folder and path not in files:  # named otherwise: it must be a file of cuts
        return [_Manifests(None, cuts=path)]
    groups: dict[tuple[str, str], dict[str, Path]] = {}
    for file in files:
        match = _NAME.fullmatch(file.name)
        group = groups.setdefault((match["before"], match["set"] or ""), {})
        if match["kind"] in group:
            raise InputError(
                f"{group[match['kind']].name} and {file.name} in one folder, expected one of them",
                where=file.parent,
            )
        group[match["kind"]] = file
    if not is_folder:
        [group] = [group for group in groups.values() if path in group.values()]
        return [_manifests(group, path=path, set_name=None)]
    has_pairs = any("supervisions" in group for group in groups.values())
    kinds = {"supervisions"} if has_pairs else {"cuts"}
    chosen = {name: group for name, group in groups.items() if kinds & group.keys()}
    if not chosen:
        raise InputError(
            "no supervisions.jsonl[.gz] and no cuts.jsonl[.gz] in this folder", where=path
        )
    return [
        _manifests(
            group, path=group.get("supervisions", path), set_name=set_of_name(name[1]) or name[1]
        )
        for name, group in chosen.items()
    ]


def _manifests(group: dict[str, Path], *, path: Path, set_name: str | None) -> _Manifests:
    cuts, recordings, supervisions = map(group.get, ("cuts", "recordings", "supervisions"))
    if path == cuts or (supervisions is None and cuts is not None):
        found = _Manifests(set_name or None, cuts=cuts)
    elif recordings is None or supervisions is None:
        lacks = "recordings" if recordings is None else "supervisions"
        raise InputError(f"no {lacks} manifest of the same name beside it", where=path)
    else:
        found = _Manifests(set_name or None, recordings=recordings, supervisions=supervisions)
    for file in (found.cuts, found.recordings, found.supervisions):
        if file is not None and ".jsonl" not in file.suffixes:
            raise InputError(
                "a JSON or YAML document, expected JSON Lines",
                where=file,
                fix=f"lhotse copy {file} {file.parent / file.name.split('.')[0]}.jsonl.gz",
            )
    return found


def _import_supervisions(manifests: _Manifests, options: ImportOptions) -> Iterator[Entry]:
    path = manifests.supervisions
    roots = _roots(path, options)
    recordings: dict[str, _Recording] = {}
    for where, record in json_lines(manifests.recordings):
        key = _name(record, "id", where=where)
        if key in recordings:
            raise InputError(
                f"recording '{key}' twice, it is at {recordings[key].where}", where=where
            )
        recordings[key] = _recording(record, roots=roots, where=where)
    is_empty = True
    for where, record in json_lines(path):
        is_empty = False
        key = _name(record, "recording_id", where=where)
        if key not in recordings:
            raise InputError(
                f"recording '{key}' is not in {manifests.recordings}, which has {len(recordings)}",
                where=where,
            )
        yield _entry(record, recordings[key], start=0.0, set_name=manifests.set_name, where=where)
    if is_empty:
        raise InputError("empty manifest, expected one supervision a line", where=path)


def _import_cuts(path: Path, options: ImportOptions, *, set_name: str | None) -> Iterator[Entry]:
    roots = _roots(path, options)
    is_empty = True
    for where, cut in json_lines(path):
        is_empty = False
        kind = cut.get("type", "MonoCut" if "supervisions" in cut or "recording" in cut else None)
        if kind != "MonoCut":
            raise InputError(
                f"a cut of type {kind!r}, expected MonoCut",
                where=where,
                fix="write the cuts before they are mixed, padded or made of several channels",
            )
        if not isinstance(cut.get("recording"), dict):
            raise InputError(
                "a cut without a recording (features alone), expected audio", where=where
            )
        _refuse_custom(cut, where=where)
        recording = _recording(cut["recording"], roots=roots, where=where)
        start = parse_seconds(cut.get("start"), name="start", where=where)
        seconds = parse_seconds(cut.get("duration"), name="duration", where=where)
        supervisions = cut.get("supervisions") or []
        if not isinstance(supervisions, list) or not all(isinstance(s, dict) for s in supervisions):
            raise InputError("'supervisions', expected a list of objects", where=where)
        if not supervisions:  # counted as an utterance without text
            supervisions = [{"id": cut.get("id"), "start": 0.0, "duration": seconds}]
        for supervision in supervisions:
            yield _entry(supervision, recording, start=start, set_name=set_name, where=where)
    if is_empty:
        raise InputError("empty manifest, expected one cut a line", where=path)


def _roots(manifest: Path, options: ImportOptions) -> list[Path]:
    return [manifest.parent, Path.cwd()] if options.audio_root is None else [options.audio_root]


def _recording(record: Json, *, roots: list[Path], where: str) -> _Recording:
    """Return the one file of a recording.

    Raises:
        InputError: what this toolkit cannot read, see the top of this module.
    """
    key = _name(record, "id", where=where)
    if record.get("transforms"):
        raise InputError(
            f"recording '{key}' is changed by its 'transforms', expected audio as it lies on disk",
            where=where,
            fix="write the manifest before speed, volume or resampling are changed",
        )
    sources = record.get("sources")
    if not isinstance(sources, list) or not all(isinstance(s, dict) for s in sources):
        raise InputError(f"recording '{key}' has no list of 'sources'", where=where)
    channels = [source.get("channels") or [0] for source in sources]
    if not all(isinstance(numbers, list) for numbers in channels):
        raise InputError(f"'channels' of recording '{key}', expected a list", where=where)
    channels = [number for numbers in channels for number in numbers]
    if len(channels) != 1:
        raise InputError(
            f"recording '{key}' has {len(channels)} channels in {len(sources)} files, expected 1",
            where=where,
            fix="write each channel as a file of its own and make the manifest of those",
        )
    [source] = sources
    if source.get("type") != "file":
        raise InputError(
            f"recording '{key}' is of type {source.get('type')!r}, expected 'file'",
            where=where,
            fix="write the audio to files: lhotse's CutSet.save_audios does",
        )
    audio, given = resolve_audio(source.get("source"), roots=roots, where=where)
    seconds = parse_seconds(record.get("duration"), name="duration", where=where)
    return _Recording(where, audio, given, seconds)


def _entry(
    supervision: Json, recording: _Recording, *, start: float, set_name: str | None, where: str
) -> Entry:
    """Return a supervision whose cut begins at `start` seconds of the recording."""
    key = _name(supervision, "id", where=where)
    offset = supervision.get("start")  # below 0 where the supervision begins before its cut
    if isinstance(offset, bool) or not isinstance(offset, int | float):
        raise InputError(f"start {offset!r} of '{key}', expected seconds", where=where)
    parse_seconds(abs(offset), name=f"start of '{key}'", where=where)  # finite, no huge integer
    begin = parse_seconds(start + offset, name=f"start of '{key}' in its recording", where=where)
    begin = round(begin, 6)
    seconds = parse_seconds(supervision.get("duration"), name="duration", where=where)
    end = round(begin + seconds, 6)
    if end <= begin or begin >= recording.seconds:
        raise InputError(
            f"supervision '{key}' from {begin:g} s to {end:g} s of a recording of "
            f"{recording.seconds:g} s",
            where=where,
        )
    is_whole = begin == 0 and abs(end - recording.seconds) <= ROUNDING_SECONDS
    text, speaker = supervision.get("text"), supervision.get("speaker")
    for name, value in (("text", text), ("speaker", speaker)):
        if value is not None and not isinstance(value, str):
            raise InputError(f"'{name}' of '{key}' is {value!r}, expected text", where=where)
    return Entry(
        where=where,
        audio=recording.audio,
        given=recording.given,
        text=text,
        id=key,
        speaker=speaker,
        start_seconds=None if is_whole else begin,
        end_seconds=None if is_whole else end,
        seconds=seconds,
        set_name=set_name,
    )


def _refuse_custom(cut: Json, *, where: str) -> None:
    custom = cut.get("custom")
    for name, value in custom.items() if isinstance(custom, dict) else ():
        if isinstance(value, dict) and {"storage_path", "array", "sources"} & value.keys():
            raise InputError(
                f"custom field '{name}' holds audio or an array, which a data directory cannot",
                where=where,
                fix="write the cuts without that field",
            )


def _name(record: Json, key: str, *, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        has = ", ".join(list(record)[:8])
        raise InputError(f"'{key}' is {value!r}, expected a name; it has: {has}", where=where)
    return value


def looks_like_manifest(path: Path) -> bool:
    """Return whether the first line of a file is that of a lhotse manifest."""
    record = first_record(path)
    is_cut = "supervisions" in record or record.get("type") in ("MonoCut", "MultiCut", "MixedCut")
    return is_cut or "sources" in record or "recording_id" in record
