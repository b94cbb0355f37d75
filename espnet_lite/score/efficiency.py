"""What each model costs beside what it gets wrong: `results/profile/<name>.json` and their table.

A profile is what `profile_model` wrote. It belongs to the rows whose packed model has its SHA-256; a
profile of a configuration, or of a model that was not scored, has a line without error rates.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_lite.score.alignment import percent_text
from espnet_lite.score.bootstrap import bounds_text
from espnet_lite.score.results import check_needed, headline_kind, interval_of, read_json

FOLDER = Path("results") / "profile"
TABLE = Path("results") / "tables" / "efficiency.json"
ABSENT = "-"
RANDOM = " (random weights)"
# The clip and the threads of the one real-time factor in the main table, and of its figure.
SHOWN_SECONDS, SHOWN_THREADS = 15.0, 1

_NEEDED: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "source": (str,),
    "weights": (str,),
    "model.bytes": (int,),
    "model.bytes_of": (str,),
    "parameters.total": (int,),
    "macs.audio_seconds": (int, float),
    "macs.total": (int,),
    "macs.per_second": (int,),
    "macs.by_kind.*": (int,),
    "timings": (list,),
}
_NEEDED_OF_TIMING: dict[str, tuple[type, ...]] = {
    "threads": (int,),
    "audio_seconds": (int, float),
    "rtf": (int, float),
    "runs": (int,),
    "peak_bytes": (int,),
}

# By bits of the factors, not measured: columns of the main table where a profile has them.
ESTIMATES = ("TBOPs (est.)", "GMACs·w/32 (est.)")
PROFILED_METHOD = "ctc_greedy"  # of decoding: `profile_model` times it


def read_profiles(results_dir: Path) -> list[dict]:
    """Return the profiles of a recipe, by name, each one checked.

    Raises:
        InputError: a file that is no profile, naming the first key that is missing.
    """
    profiles = []
    for path in sorted((results_dir / FOLDER).glob("*.json")):
        profile = read_json(path)
        check_needed(profile, _NEEDED, where=path)
        for timing in profile["timings"]:
            check_needed(timing, _NEEDED_OF_TIMING, where=path)
        profiles.append(profile)
    return profiles


def efficiency_lines(
    ordered: Sequence[Mapping], profiles: Sequence[Mapping]
) -> list[dict[str, object]]:
    """Return the table, JSON-able: a line for each profile of each row, then for the others.

    A row of another decoding than the one that is profiled has no line: what its search costs is
    not in the profile.

    Args:
        ordered: rows, best first; may be empty.
        profiles: as `read_profiles` returns them.
    """
    by_digest: dict[str, list[Mapping]] = {}
    for profile in profiles:
        if digest := profile["model"].get("sha256"):
            by_digest.setdefault(digest, []).append(profile)
    lines, joined = [], set()
    for row in ordered:
        if row["decode"]["config"].get("method") != PROFILED_METHOD:
            continue
        for profile in by_digest.get(row["model"]["sha256"], []):
            lines.append(_line(row["row"], profile, _rates(row), _intervals(row)))
            joined.add(profile["name"])
    rest = [profile for profile in profiles if profile["name"] not in joined]
    return lines + [_line(profile["name"], profile, {}, {}) for profile in rest]


def _rates(row: Mapping) -> dict[str, dict[str, float]]:
    """Return `{"wer" or "per": {set: percent}}`, what the row is chosen by."""
    kind = headline_kind(row)
    rates = {}
    for name, score in row["scores"].items():
        counts = score[kind]["counts"]
        text = percent_text(counts["err"], counts["tokens"], decimals=2)
        if text is not None:
            rates[name] = float(text)  # the number that the page prints elsewhere
    return {kind: rates}


def _intervals(row: Mapping) -> dict[str, dict[str, list[float]]]:
    """Return `{"wer" or "per": {set: [low, high]}}` of the rates whose 95 % interval is known."""
    kind = headline_kind(row)
    known = {name: interval_of(score, kind) for name, score in row["scores"].items()}
    return {kind: {name: [one["low"], one["high"]] for name, one in known.items() if one}}


def _line(name: str, profile: Mapping, rates: Mapping, intervals: Mapping) -> dict[str, object]:
    macs = profile["macs"]
    return {
        "model": name,
        "profile": profile["name"],
        "source": profile["source"],
        "weights": profile["weights"],
        "rates": rates,
        "intervals": intervals,
        "parameters": profile["parameters"]["total"],
        "bytes": profile["model"]["bytes"],
        "bytes_of": profile["model"]["bytes_of"],
        "macs_seconds": macs["audio_seconds"],
        "macs": macs["total"],
        "macs_per_second": macs["per_second"],
        "macs_share": {
            kind: round(part / macs["total"], 5) for kind, part in sorted(macs["by_kind"].items())
        },
        "estimates": profile.get("estimates"),
        "timings": profile["timings"],
        "environment": profile.get("environment"),
    }


def table_text(lines: Sequence[Mapping]) -> str:
    """Return the JSON text of the table."""
    plain = {"lines": list(lines)}
    return json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def shown_timing(line: Mapping) -> Mapping | None:
    """Return the timing that the main table shows, None where it was not taken."""
    for timing in line["timings"]:
        if (timing["threads"], timing["audio_seconds"]) == (SHOWN_THREADS, SHOWN_SECONDS):
            return timing
    return None


def main_table(
    lines: Sequence[Mapping], rates: Sequence[tuple[str, str]]
) -> tuple[list[str], list[list[str]]]:
    """Return header and cells; `rates` are the error rates to show, ("wer", set)."""
    header = ["model", *(f"{kind.upper()} {name}" for kind, name in rates), "parameters", "bytes"]
    has_estimates = any(line["estimates"] for line in lines)
    header += ["GMACs", "GMACs/s", *(ESTIMATES if has_estimates else ())]
    header += [f"RTF {SHOWN_SECONDS:g} s", "peak MiB"]
    cells = []
    for line in lines:
        timing = shown_timing(line)
        cells.append(
            [
                line["model"] + (RANDOM if line["weights"] == "random" else ""),
                *(_rate_cell(line, kind, name) for kind, name in rates),
                f"{line['parameters'] / 1e6:.2f} M",
                ("" if line["bytes_of"] == "file" else "~") + f"{line['bytes']:,}",
                f"{line['macs'] / 1e9:.1f}",
                f"{line['macs_per_second'] / 1e9:.3f}",
                *(_estimate_cells(line["estimates"]) if has_estimates else ()),
                *_timing_cells(timing),
            ]
        )
    return header, cells


def _rate_cell(line: Mapping, kind: str, set_name: str) -> str:
    rate = line["rates"].get(kind, {}).get(set_name)
    bounds = line["intervals"].get(kind, {}).get(set_name)
    if rate is None:
        return ABSENT
    return f"{rate:.2f}" if bounds is None else f"{rate:.2f} {bounds_text(*bounds)}"


def _estimate_cells(estimates: Mapping | None) -> tuple[str, str]:
    """Return what the bits of the factors make of the MACs, in 10¹² and in 10⁹."""
    if estimates is None:
        return ABSENT, ABSENT
    return f"{estimates['bops'] / 1e12:.2f}", f"{estimates['weighted_macs'] / 1e9:.2f}"


def _timing_cells(timing: Mapping | None) -> tuple[str, str]:
    """Return real-time factor and peak memory in MiB."""
    if timing is None:
        return ABSENT, ABSENT
    return f"{timing['rtf']:.4f}", f"{timing['peak_bytes'] / 2**20:.0f}"


def share_table(lines: Sequence[Mapping]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells: percent of the MACs by kind, the largest kind of all first."""
    total: dict[str, float] = {}
    for line in lines:
        for kind, part in line["macs_share"].items():
            total[kind] = total.get(kind, 0.0) + part
    kinds = sorted(total, key=lambda kind: (-total[kind], kind))
    cells = [
        [line["model"], *(_percent(line["macs_share"].get(kind)) for kind in kinds)]
        for line in lines
    ]
    return ["model", *(kind.replace("_", " ") for kind in kinds)], cells


def _percent(part: float | None) -> str:
    return ABSENT if part is None else f"{100 * part:.1f}"


def timing_table(lines: Sequence[Mapping]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells: real-time factors and peak memory of every clip length that some
    line has, a line for each number of threads."""
    timed = [line for line in lines if line["timings"]]
    clips = sorted({timing["audio_seconds"] for line in timed for timing in line["timings"]})
    header = ["model", "threads", *(f"RTF {clip:g} s" for clip in clips)]
    header += [f"MiB {clip:g} s" for clip in clips]
    cells = []
    for line in timed:
        by_threads: dict[int, dict[float, Mapping]] = {}
        for timing in line["timings"]:
            by_threads.setdefault(timing["threads"], {})[timing["audio_seconds"]] = timing
        for threads, by_clip in sorted(by_threads.items()):
            rtfs, peaks = zip(*(_timing_cells(by_clip.get(clip)) for clip in clips), strict=True)
            cells.append([line["model"], str(threads), *rtfs, *peaks])
    return header, cells


def machines(lines: Sequence[Mapping]) -> list[Mapping]:
    """Return the environments of the timings, each once."""
    found: list[Mapping] = []
    for line in lines:
        if line["timings"] and line["environment"] and line["environment"] not in found:
            found.append(line["environment"])
    return found
