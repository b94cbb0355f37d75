"""Runs compared with each other on one set: rates with intervals, and whether differences are more
than chance."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_lite.errors import InputError
from espnet_lite.score.bootstrap import (
    FEWEST_SPEAKERS,
    SPEAKERS,
    UTTERANCES,
    Interval,
    PairedDifference,
    paired_difference,
)
from espnet_lite.score.matched_pairs import MatchedPairs, matched_pairs
from espnet_lite.score.results import SCORE_AGAIN, check_row, headline_kind, read_json
from espnet_lite.score.score_folder import SCORES, main_kind, read_utterances
from espnet_lite.score.score_folder import UTTERANCES as UTTERANCES_FILE

Counted = Mapping[str, tuple[int, int]]  # errors and reference tokens of each speaker or utterance


@dataclass(frozen=True)
class Scored:
    """What one run got on a set.

    Attributes:
        kind: "wer" or "per".
        speakers, utterances: errors and tokens; utterances are None in a row of results.
        references, steps: of each utterance, likewise.
    """

    source: Path
    kind: str
    speakers: Counted
    utterances: Counted | None = None
    references: Mapping[str, tuple[str, ...]] | None = None
    steps: Mapping[str, str] | None = None

    def counted(self, over: str) -> Counted:
        """Return errors and tokens of what is drawn."""
        return self.utterances if over == UTTERANCES and self.utterances else self.speakers

    @property
    def rate(self) -> float:
        """Return the error rate in percent."""
        errors, tokens = map(sum, zip(*self.speakers.values(), strict=True))
        return 100 * errors / tokens


@dataclass(frozen=True)
class Run:
    """A run, or several of another seed each, whose errors are averaged."""

    name: str
    seeds: tuple[Scored, ...]

    @property
    def deviation(self) -> float | None:
        """Return the standard deviation of the seeds' rates, in percent; None of a single one."""
        rates = [seed.rate for seed in self.seeds]
        return statistics.stdev(rates) if len(rates) > 1 else None

    def errors(self, over: str, names: Sequence[str]) -> list[float]:
        counted = [seed.counted(over) for seed in self.seeds]
        return [statistics.fmean(one[name][0] for one in counted) for name in names]


@dataclass(frozen=True)
class Difference:
    """First minus second run.

    Attributes:
        matched: the MAPSSWE test; None of seeds, or of rows of results, which have no alignments.
        adjusted: the bootstrap's p-value after Holm, over all pairs that are compared.
    """

    first: Run
    second: Run
    paired: PairedDifference
    matched: MatchedPairs | None
    adjusted: float


@dataclass(frozen=True)
class Comparison:
    """All runs, and all pairs of them.

    Attributes:
        over: what was drawn, speakers or utterances.
        drawn: how many of them.
        rates: of each run.
    """

    kind: str
    over: str
    drawn: int
    runs: tuple[Run, ...]
    rates: tuple[Interval, ...]
    differences: tuple[Difference, ...]


def read_scored(path: Path, set_name: str | None) -> Scored:
    """Return what a run got: a row of results, `results/ROW.json`, or the folder of a decoded set.

    Args:
        set_name: which set of a row; a folder is of one set.

    Raises:
        InputError: no such file, a fault in it, no such set, or no counts by speaker.
    """
    if not path.is_dir():
        return _read_row(path, set_name)
    folder = path if (path / SCORES).is_file() else path / "score"
    kind = main_kind(read_json(folder / SCORES, fix=SCORE_AGAIN))
    found = read_utterances(folder / UTTERANCES_FILE)
    speakers: dict[str, tuple[int, int]] = {}
    for one in found.values():
        errors, tokens = one.errors[kind]
        before = speakers.get(one.speaker, (0, 0))
        speakers[one.speaker] = (before[0] + errors, before[1] + tokens)
    return Scored(
        path,
        kind,
        speakers,
        {name: one.errors[kind] for name, one in found.items()},
        {name: one.alignment.reference for name, one in found.items()},
        {name: one.alignment.steps for name, one in found.items()},
    )


def _read_row(path: Path, set_name: str | None) -> Scored:
    row = read_json(path)
    check_row(row, where=path)
    known = ", ".join(row["scores"])
    if set_name is None:
        raise InputError(
            f"a row of results has several sets: {known}", where=path, fix="give --set"
        )
    if set_name not in row["scores"]:
        raise InputError(f"no scores of '{set_name}', there are: {known}", where=path)
    kind = headline_kind(row)
    speakers = row["scores"][set_name][kind].get("speakers")
    if not speakers:
        raise InputError("the row has no counts by speaker", where=path, fix=SCORE_AGAIN)
    return Scored(path, kind, {name: (one[0], one[1]) for name, one in speakers.items()})


def compare(runs: Sequence[Run], *, draws: int, seed: int) -> Comparison:
    """Return rates, and differences of all pairs.

    Speakers are drawn, or utterances where there are few speakers and all runs have utterances.

    Raises:
        InputError: runs of other references or of another kind than the first one.
    """
    every = [one for run in runs for one in run.seeds]
    first = every[0]
    has_utterances = all(one.utterances is not None for one in every)
    few = len(first.speakers) < FEWEST_SPEAKERS
    over = UTTERANCES if few and has_utterances else SPEAKERS
    for one in every[1:]:
        _check_same(first, one)
    tokens = {name: count for name, (_, count) in first.counted(over).items()}
    if not sum(tokens.values()):
        raise InputError("no reference tokens, so there is no error rate", where=first.source)
    names = list(tokens)
    errors = [run.errors(over, names) for run in runs]
    found: list[PairedDifference] = []
    pairs = list(itertools.combinations(range(len(runs)), 2))
    for one, other in pairs:
        found.append(
            paired_difference(
                errors[one], errors[other], tokens=list(tokens.values()), draws=draws, seed=seed
            )
        )
    adjusted = holm([one.p_value for one in found])
    differences = tuple(
        Difference(runs[one], runs[other], paired, _matched(runs[one], runs[other]), p_value)
        for (one, other), paired, p_value in zip(pairs, found, adjusted, strict=True)
    )
    rates = [found[0].first, *(one.second for one in found[: len(runs) - 1])]
    return Comparison(first.kind, over, len(names), tuple(runs), tuple(rates), differences)


def _check_same(first: Scored, other: Scored) -> None:
    if other.kind != first.kind:
        raise InputError(
            f"has a {other.kind.upper()}, {first.source} a {first.kind.upper()}", where=other.source
        )
    if first.references is not None and other.references is not None:
        if first.references != other.references:
            differing = [
                name
                for name in {**first.references, **other.references}
                if first.references.get(name) != other.references.get(name)
            ]
            raise InputError(
                f"{len(differing)} utterances have another reference than in {first.source}, the "
                f"first '{differing[0]}'",
                where=other.source,
            )
    elif _tokens(first.speakers) != _tokens(other.speakers):
        raise InputError(f"other speakers or words than in {first.source}", where=other.source)


def _tokens(counted: Counted) -> dict[str, int]:
    return {name: tokens for name, (_, tokens) in counted.items()}


def _matched(first: Run, second: Run) -> MatchedPairs | None:
    if len(first.seeds) > 1 or len(second.seeds) > 1:
        return None
    one, other = first.seeds[0].steps, second.seeds[0].steps
    if one is None or other is None:
        return None
    return matched_pairs((steps, other[name]) for name, steps in one.items())


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that hold for all hypotheses together (Holm, "A simple sequentially rejective
    multiple test procedure", 1979)."""
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def comparison_to_plain(comparison: Comparison, *, draws: int) -> dict:
    """Return the JSON form; rates and differences in percent, p-values as they are."""
    return {
        "kind": comparison.kind,
        "over": comparison.over,
        "drawn": comparison.drawn,
        "draws": draws,
        "runs": [
            {
                "name": run.name,
                "sources": [str(seed.source) for seed in run.seeds],
                "rates": [round(seed.rate, 4) for seed in run.seeds],
                **_interval_to_plain(rate),
            }
            for run, rate in zip(comparison.runs, comparison.rates, strict=True)
        ],
        "differences": [
            {
                "first": one.first.name,
                "second": one.second.name,
                **_interval_to_plain(one.paired.difference),
                "p_bootstrap": one.paired.p_value,
                "p_bootstrap_holm": one.adjusted,
                "matched_pairs": None
                if one.matched is None
                else {
                    "segments": one.matched.segments,
                    "mean": one.matched.mean,
                    "deviation": one.matched.deviation,
                    "z": one.matched.z,
                    "p": one.matched.p_value,
                },
            }
            for one in comparison.differences
        ],
    }


def _interval_to_plain(interval: Interval) -> dict[str, float]:
    values = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {key: round(value, 4) for key, value in values.items()}


def comparison_text(comparison: Comparison, *, draws: int) -> str:
    """Return the comparison as a table for people."""
    kind = comparison.kind.upper()
    lines = [f"{kind} in percent [95 %], {draws:,} draws of {comparison.drawn} {comparison.over}"]
    if comparison.drawn < FEWEST_SPEAKERS:
        lines.append(
            f"of so few {comparison.over} the intervals are too short; folders of decoded sets "
            "have utterances"
        )
    numbers = {run.name: str(place) for place, run in enumerate(comparison.runs, start=1)}
    rates = [_text(rate) for rate in comparison.rates]
    width = max(map(len, rates))
    for run, rate in zip(comparison.runs, rates, strict=True):
        seeds = ""
        if run.deviation is not None:
            each = " ".join(f"{seed.rate:.2f}" for seed in run.seeds)
            seeds = f"  {len(run.seeds)} seeds: {each}, s.d. {run.deviation:.2f}"
        lines.append(f"{numbers[run.name]:>3}  {rate:<{width}}  {run.name}{seeds}")
    lines.append("differences")
    found = [_text(one.paired.difference) for one in comparison.differences]
    width = max(map(len, found))
    for one, difference in zip(comparison.differences, found, strict=True):
        pair = f"{numbers[one.first.name]} - {numbers[one.second.name]}"
        said = f"{pair:>7}  {difference:<{width}}  p {_p_text(one.paired.p_value, draws)}"
        if len(found) > 1:
            said += f", of all pairs {_p_text(one.adjusted, draws)}"
        if one.matched is not None:
            z = "-" if one.matched.z is None else f"{one.matched.z:.3f}"
            said += f"; MAPSSWE p {one.matched.p_value:.4f}"
            said += f" ({one.matched.segments} segments, Z {z})"
        lines.append(said)
    return "\n".join(lines) + "\n"


def _text(interval: Interval) -> str:
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _p_text(p_value: float, draws: int) -> str:
    return f"< {2 / draws:.4g}" if p_value == 0 else f"{p_value:.4f}"
