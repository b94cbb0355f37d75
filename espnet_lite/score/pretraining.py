"""Pre-trainings of a recipe: `results/pretraining/<name>.json`, and their table in RESULTS.md.

A record joins what three others wrote: model.json of the training, units.json of its units, and,
where phones are aligned, the JSON of `score_units`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_lite.errors import InputError
from espnet_lite.score.results import read_json

FOLDER = Path("results") / "pretraining"


def build_pretraining(
    name: str, *, record: Mapping, units: Mapping, phones: Mapping | None
) -> dict[str, object]:
    """Return the record of a pre-training, JSON-able.

    Args:
        name: of the pre-training; its file's name.
        record: model.json.
        units: units.json.
        phones: what `score_units` wrote of these units; None where no phones are known.

    Raises:
        InputError: one of the three is the JSON of something else.
    """
    known = ("clusters", "features", "quality", "shift_samples", "sample_rate")
    if phones is not None:
        phones = {key: phones[key] for key in _SCORES if key in phones}
    built = {
        "name": name,
        "record": dict(record),
        "units": {key: units[key] for key in known if key in units},
        "phones": phones,
    }
    _check(built, where=f"pre-training {name}")
    return built


def _check(known: Mapping, *, where: object) -> None:
    for place, keys in _NEEDED.items():
        if place.startswith("phones") and known["phones"] is None:
            continue
        part: object = known
        for name in place.split("."):
            part = part.get(name) if isinstance(part, Mapping) else None
        for key in keys:
            if not isinstance(part, Mapping) or key not in part:
                raise _lacks(f"{place}.{key}", where)


def _lacks(key: str, where: object) -> InputError:
    return InputError(
        f"no '{key}', expected the record of a pre-training",
        where=where,
        fix="write it again: ./run.sh --stage pretrain",
    )


_SCORES = ("with_silence", "speech")  # of score_units
_NEEDED = {  # what the table shows
    "record": ("parameters", "updates", "minutes", "core_minutes", "audio_hours"),
    "units": ("clusters", "features", "quality"),
    "units.quality": ("used_clusters", "mean_segment_ms"),
    "phones": _SCORES,
    f"phones.{_SCORES[0]}": ("pnmi", "phone_purity"),
}


def read_pretrainings(results_dir: Path) -> list[dict]:
    """Return the records of a recipe, by name.

    Raises:
        InputError: a file that is no such record.
    """
    records = []
    for path in sorted((results_dir / FOLDER).glob("*.json")):
        records.append(read_json(path))
        _check({"phones": None, **records[-1]}, where=path)
    return records


def pretraining_rows(records: Sequence[Mapping]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table."""
    header = ["pre-training", "parameters", "updates", "minutes", "core-minutes", "audio hours"]
    header += ["units of", "units", "segment ms", "PNMI", "phone purity"]
    header += ["masked acc. %", "unmasked acc. %"]
    return header, [_row(record) for record in records]


def _row(known: Mapping) -> list[str]:
    record, units = known["record"], known["units"]
    phones = (known["phones"] or {}).get(_SCORES[0])
    dev = record.get("dev", {})
    features = units["features"]
    source = features.get("name", "")
    if "layer" in features:
        source = f"{features.get('model', source)}, block {features['layer']}"

    def percent(key: str) -> str:
        value = dev.get(key)  # None where it was not finite
        return "-" if value is None else f"{100 * value:.1f}"

    return [
        known["name"],
        f"{record['parameters'] / 1e6:.2f} M",
        f"{record['updates']:,}",
        f"{record['minutes']:.1f}",
        f"{record['core_minutes']:.1f}",
        f"{record['audio_hours']:.1f}",
        source,
        f"{units['quality']['used_clusters']} of {units['clusters']}",
        f"{units['quality']['mean_segment_ms']:.0f}",
        "-" if phones is None else f"{phones['pnmi']:.3f}",
        "-" if phones is None else f"{phones['phone_purity']:.3f}",
        percent("accuracy"),
        percent("accuracy_unmasked"),
    ]
