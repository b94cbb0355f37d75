"""Everything that the report of a recipe shows, as one JSON-able object."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_lite import __version__
from espnet_lite.data.data_dir import read_data_dir
from espnet_lite.data.tables import read_table
from espnet_lite.environment import commit
from espnet_lite.report.audio_files import audio_addresses
from espnet_lite.report.decoded_sets import find_decoded_sets
from espnet_lite.report.quantization_maps import read_quantization_maps
from espnet_lite.report.trainings import read_trainings
from espnet_lite.report.unit_usage import read_unit_usage
from espnet_lite.report.utterance_tables import set_table
from espnet_lite.score.efficiency import efficiency_lines, read_profiles, shown_timing
from espnet_lite.score.pretraining import pretraining_rows, read_pretrainings
from espnet_lite.score.results import headline_kind, read_json
from espnet_lite.score.results_page import by_dev_rate
from espnet_lite.score.score_folder import UTTERANCES, read_utterances


def gather(
    results_dir: Path, rows: Mapping[str, Mapping], *, expdir: Path, page: Path, audio: bool
) -> dict[str, object]:
    """Return what the page shows; what is not there is an empty list or object.

    Args:
        results_dir: the recipe's folder with results/.
        rows: of it, as `read_rows` returns them; at least one.
        expdir: folder of experiments: trainings, units, decoded sets.
        page: where the page will stand; addresses of audio are relative to it.
        audio: False leaves the audio out.

    Raises:
        InputError: a file of the results or of a score that is not what it should be, rows with
            different dev sets, damaged units.
    """
    ordered = by_dev_rate(rows)
    folders = find_decoded_sets(expdir, ordered)
    names = dict.fromkeys([*ordered[0]["dev_sets"], *sorted(_sets(ordered))])
    lines = efficiency_lines(ordered, read_profiles(results_dir))
    header, pretrainings = pretraining_rows(read_pretrainings(results_dir))
    return {
        "title": ordered[0]["title"],
        "made": _made(),
        "sets": list(names),
        "rows": [_row(row) for row in ordered],
        "efficiency": [_cost(line) for line in lines],
        "trainings": read_trainings(expdir),
        "pretrainings": {"header": header, "rows": pretrainings},
        "units": read_unit_usage(expdir),
        "quantization": read_quantization_maps(results_dir),
        "utterances": {
            name: table
            for name in names
            if (table := _utterances(name, folders, page=page, audio=audio)) is not None
        },
    }


def _made() -> str:
    """Return when and with what the page was written."""
    now, version = time.strftime("%Y-%m-%d %H:%M"), f"espnet_lite {__version__}"
    known = commit()
    return f"Written {now} by {version}" + (f", commit {known}." if known else ".")


def _sets(rows: Sequence[Mapping]) -> set[str]:
    return {name for row in rows for name in row["scores"]}


def _row(row: Mapping) -> dict[str, object]:
    """Return a row without its counts of each speaker; the page has those of each utterance."""
    scores = {
        name: {
            kind: {key: value for key, value in part.items() if key != "speakers"}
            if isinstance(part, Mapping)
            else part
            for kind, part in score.items()
        }
        for name, score in row["scores"].items()
    }
    return {**row, "scores": scores, "kind": headline_kind(row)}


def _cost(line: Mapping) -> dict[str, object]:
    """Return a line of the efficiency table with the one timing that is shown."""
    kept = ("model", "weights", "rates", "parameters", "bytes", "bytes_of")
    timing = shown_timing(line)
    return {
        **{key: line[key] for key in (*kept, "macs_per_second", "macs_share")},
        "rtf": None if timing is None else timing["rtf"],
        "peak_bytes": None if timing is None else timing["peak_bytes"],
    }


def _utterances(
    set_name: str, folders: Mapping[str, Mapping[str, Path]], *, page: Path, audio: bool
) -> dict[str, object] | None:
    """Return the table of a set with `seconds` and `audio` (null where not known)."""
    decoded = {row: sets[set_name] for row, sets in folders.items() if set_name in sets}
    if not decoded:
        return None
    table = set_table(
        {row: read_utterances(path / "score" / UTTERANCES) for row, path in decoded.items()}
    )
    seconds: dict[str, float] = {}
    addresses: dict[str, str] = {}
    data_dir = Path(read_json(next(iter(decoded.values())) / "decode.json").get("data_dir", ""))
    if (data_dir / "wav.scp").is_file():
        if (data_dir / "utt2dur").is_file():
            seconds = {
                name: float(value) for name, value in read_table(data_dir / "utt2dur").items()
            }
        if audio:
            utterances = {one.id: one for one in read_data_dir(data_dir, need_text=False)}
            copies = page.parent / "report_audio" / set_name
            addresses = audio_addresses(utterances, page=page, copies=copies)
    table["seconds"] = [seconds.get(name) for name in table["ids"]]
    table["audio"] = [addresses.get(name) for name in table["ids"]]
    return table
